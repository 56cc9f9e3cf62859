// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"fmt"
	"strings"
)

// command is one command of an iPXE script, with the operator after it ("", "||", "&&", ";").
type command struct {
	label string // of its line
	words []string
	op    string
}

// parseIPXE reads a script as iPXE does (src/image/script.c and src/core/exec.c): lines, joined by a backslash at their
// end, a label, words at white space, comments, terminators. A line with an expansion is an error here: no script of ours
// has one.
func parseIPXE(script string) ([]command, error) {
	if !strings.HasPrefix(script, "#!ipxe\n") {
		return nil, fmt.Errorf("no magic in %q", script)
	}
	var out []command
	line := ""
	for part := range strings.SplitSeq(script, "\n") {
		line += strings.TrimSuffix(part, "\r")
		if strings.HasSuffix(line, `\`) {
			line = strings.TrimSuffix(line, `\`)
			continue
		}
		if strings.Contains(line, "${") {
			return nil, fmt.Errorf("expansion in %q", line)
		}
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\n\v\f\r", r) })
		line = ""
		c := command{}
		if len(words) > 0 && words[0][0] == ':' {
			c.label, words = words[0][1:], words[1:]
		}
		for i, w := range words {
			if w[0] == '#' {
				break
			}
			if w == "||" || w == "&&" || w == ";" {
				c.op = w
				out = append(out, c)
				c = command{}
				continue
			}
			c.words = append(c.words, words[i])
		}
		if len(c.words) > 0 || c.label != "" {
			out = append(out, c)
		}
	}
	return out, nil
}

// shape is what a script does, without its data: the commands, their options, and what joins them.
func shape(cmds []command) string {
	var b strings.Builder
	for _, c := range cmds {
		var parts []string
		if c.label != "" {
			parts = append(parts, ":"+c.label)
		}
		for i, w := range c.words {
			if i > 0 && !strings.HasPrefix(w, "-") && c.words[0] != "goto" && c.words[0] != "exit" && c.words[0] != "sleep" {
				break
			}
			parts = append(parts, w)
		}
		if c.op != "" {
			parts = append(parts, c.op)
		}
		b.WriteString(strings.Join(parts, " ") + "\n")
	}
	return b.String()
}
