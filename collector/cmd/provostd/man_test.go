// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestManPage: the manual page has each command and each of its flags, that of the settings each key.
func TestManPage(t *testing.T) {
	page, err := os.ReadFile("../../../packaging/man/provostd.8")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	var look func(path []string)
	look = func(path []string) {
		var out bytes.Buffer
		if code := run(t.Context(), append(path, "--help"), &out, &out); code != 0 {
			t.Fatalf("%q --help exits %d", path, code)
		}
		_, list, _ := strings.Cut(out.String(), "Available Commands:\n")
		list, _, _ = strings.Cut(list, "\n\n")
		subs := regexp.MustCompile(`(?m)^  ([a-z-]+) `).FindAllStringSubmatch(list, -1)
		for _, sub := range subs {
			if sub[1] != "help" && sub[1] != "completion" {
				look(append(path[:len(path):len(path)], sub[1]))
			}
		}
		if len(subs) == 0 {
			commands++
			if !bytes.Contains(page, []byte(".Ss "+strings.Join(path, " "))) {
				t.Errorf("provostd %s is not in the page", strings.Join(path, " "))
			}
		}
		for _, f := range regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z-]+)`).FindAllStringSubmatch(out.String(), -1) {
			if !bytes.Contains(page, []byte("Fl -"+f[1])) {
				t.Errorf("--%s of provostd %s is not in the page", f[1], strings.Join(path, " "))
			}
		}
	}
	look(nil)
	if commands < 10 {
		t.Errorf("%d commands were looked for: the help is not understood", commands)
	}

	page, err = os.ReadFile("../../../packaging/man/provostd.yaml.5")
	if err != nil {
		t.Fatal(err)
	}
	for key := range defaults {
		if !bytes.Contains(page, []byte(strings.ReplaceAll(key, "::", "."))) {
			t.Errorf("setting %s is not in the page", key)
		}
	}
}
