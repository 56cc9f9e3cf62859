// SPDX-License-Identifier: Apache-2.0

package boot

import "strings"

// What a screen of 25 lines and 80 columns shows of a text.
const (
	maxLines = 16
	maxLine  = 74
)

// screen folds texts into lines that are sound after "echo" and a word.
func screen(texts []string) []string {
	var lines []string
	for _, text := range texts {
		for part := range strings.SplitSeq(text, "\n") {
			line := ""
			for _, w := range strings.Fields(echoText(part)) {
				for len(w) > maxLine {
					lines = append(lines, strings.TrimSpace(line+" "+w[:maxLine]))
					line, w = "", "."+w[maxLine:]
				}
				if len(line)+1+len(w) > maxLine && line != "" {
					lines = append(lines, line)
					line = ""
				}
				line = strings.TrimSpace(line + " " + w)
			}
			if line != "" {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) > maxLines {
		lines = append(lines[:maxLines-1], "[...]")
	}
	for i, l := range lines {
		lines[i] = echoText(l)
	}
	return lines
}

// echoText makes any text one that iPXE prints as it is, when a word that is no option stands in front: printable ASCII,
// and a quotation mark before each word that means something to iPXE.
func echoText(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		case r == '\\':
			return '/'
		}
		return r
	}, s)
	s = strings.ReplaceAll(s, "${", "$ {")
	words := strings.Fields(s)
	for i, w := range words {
		if w[0] == '#' || separator(w) {
			words[i] = "'" + w
		}
	}
	return strings.Join(words, " ")
}

func separator(w string) bool { return w == "||" || w == "&&" || w == ";" }
