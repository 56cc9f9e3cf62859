// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"provost/collector/internal/cli"
)

// TestManPage: the manual page has each command and each of its flags.
func TestManPage(t *testing.T) {
	page, err := os.ReadFile("../../../packaging/man/provost.1")
	if err != nil {
		t.Fatal(err)
	}
	commands, flags := 0, 0
	var look func(path []string)
	look = func(path []string) {
		var out bytes.Buffer
		p := cli.Program{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" }}
		if code := p.Run(t.Context(), append(path, "--help")); code != 0 {
			t.Fatalf("%q --help exits %d", path, code)
		}
		help, _, _ := strings.Cut(out.String(), "\nExamples:")
		list, _, _ := strings.Cut(help, "\nFlags:")
		subs := regexp.MustCompile(`(?m)^  ([a-z-]+) {2,}\S`).FindAllStringSubmatch(list[strings.Index(list, "\nUsage:"):], -1)
		for _, sub := range subs {
			if sub[1] != "also" {
				look(append(path[:len(path):len(path)], sub[1]))
			}
		}
		if len(subs) == 0 {
			commands++
			if !bytes.Contains(page, []byte(".Ss "+strings.Join(path, " "))) {
				t.Errorf("provost %s is not in the page", strings.Join(path, " "))
			}
		}
		for _, f := range regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z-]+)`).FindAllStringSubmatch(help, -1) {
			flags++
			if !bytes.Contains(page, []byte("Fl -"+f[1])) {
				t.Errorf("--%s of provost %s is not in the page", f[1], strings.Join(path, " "))
			}
		}
	}
	look(nil)
	if commands < 30 || flags < 100 {
		t.Errorf("%d commands and %d flags were looked for: the help is not understood", commands, flags)
	}
}
