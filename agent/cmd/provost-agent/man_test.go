// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestManPage: the manual page has each command and each of its options.
func TestManPage(t *testing.T) {
	page, err := os.ReadFile("../../../packaging/man/provost-agent.8")
	if err != nil {
		t.Fatal(err)
	}
	help := func(args ...string) string {
		var out bytes.Buffer
		if code := run(t.Context(), append(args, "--help"), strings.NewReader(""), &out, &out); code != 0 {
			t.Fatalf("%q --help exits %d", args, code)
		}
		return out.String()
	}
	_, list, _ := strings.Cut(help(), "Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	names := regexp.MustCompile(`(?m)^  ([a-z]+)`).FindAllStringSubmatch(list, -1)
	if len(names) < 12 {
		t.Fatalf("%d commands: the help is not understood", len(names))
	}
	for _, name := range names {
		if !bytes.Contains(page, []byte(".Ss "+name[1])) {
			t.Errorf("provost-agent %s is not in the page", name[1])
		}
		for _, o := range regexp.MustCompile(`(?m)^  --?([a-z-]+)`).FindAllStringSubmatch(help(name[1]), -1) {
			if !bytes.Contains(page, []byte("Fl -"+o[1])) && !bytes.Contains(page, []byte("Fl "+o[1])) {
				t.Errorf("option %s of provost-agent %s is not in the page", o[1], name[1])
			}
		}
	}
}
