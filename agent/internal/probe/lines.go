// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"slices"
	"strings"
)

func plain(l string) string { return l }

// syslogLine leaves "PROGRAM: TEXT" of "Mon DD HH:MM:SS PROGRAM[PID]: TEXT", as busybox's syslogd writes it with -S.
func syslogLine(l string) string {
	if len(l) < 16 || l[3] != ' ' || l[6] != ' ' || l[9] != ':' || l[12] != ':' || l[15] != ' ' {
		return l
	}
	l = l[16:]
	tag, text, ok := strings.Cut(l, ": ")
	if !ok || strings.ContainsRune(tag, ' ') {
		return l
	}
	name, _, _ := strings.Cut(tag, "[")
	return name + ": " + text
}

// debconfTalk tells the lines of debconf's protocol (debconf-devel(7)), as cdebconf logs them with DEBCONF_DEBUG=developer.
func debconfTalk(l string) bool {
	l, ok := strings.CutPrefix(l, "debconf: ")
	return ok && (strings.HasPrefix(l, "--> ") || strings.HasPrefix(l, "<-- ") || strings.HasPrefix(l, "Adding ["))
}

// debconfQuestions names the questions on the screen since the last GO but one: "INPUT PRIORITY NAME" was answered that it
// will be asked.
func debconfQuestions(talk []string) string {
	var names []string
	for i := len(talk) - 2; i > 0 && !strings.HasPrefix(talk[i], "debconf: --> GO"); i-- {
		words := strings.Fields(talk[i-1])
		if strings.HasPrefix(talk[i], "debconf: <-- 0 question will be asked") && len(words) == 5 && words[2] == "INPUT" {
			names = append(names, words[4])
		}
	}
	if names == nil {
		return ""
	}
	slices.Reverse(names)
	return "not answered: " + strings.Join(names, ", ")
}

// timedLine drops a leading time, or date and time.
func timedLine(l string) string {
	for range 2 {
		first, rest, ok := strings.Cut(l, " ")
		if !ok || first == "" || strings.Trim(first, "0123456789:,.-TZ+") != "" {
			break
		}
		l = rest
	}
	return l
}

// y2Line leaves "<LEVEL> [COMPONENT] TEXT" of "DATE TIME <LEVEL> HOST(PID) [COMPONENT] TEXT" (liby2util, y2log.cc).
func y2Line(l string) string {
	l = timedLine(l)
	level, rest, ok := strings.Cut(l, " ")
	if !ok || !strings.HasPrefix(level, "<") {
		return l
	}
	host, text, ok := strings.Cut(rest, " ")
	if !ok || !strings.HasSuffix(host, ")") {
		return l
	}
	return level + " " + text
}

// traceback finds the exception under the frames of a Python traceback: the last line that is not indented.
func traceback(lines []string) []string {
	last := ""
	for _, l := range lines {
		if l != "" && l[0] != ' ' && !strings.HasPrefix(l, "Traceback") {
			last = l
		}
	}
	if last == "" {
		return nil
	}
	return []string{last}
}

// command finds what curtin tells of the command that failed (ProcessExecutionError in its util.py), of each part the first line.
func command(lines []string) []string {
	var out []string
	for _, l := range lines {
		for _, part := range []string{"Command: ", "Exit code: ", "Stdout: ", "Stderr: "} {
			if text, ok := strings.CutPrefix(l, part); ok && text != "" && text != "''" {
				out = append(out, l)
			}
		}
	}
	return out
}

// unstamped are the lines up to the first that begins an entry of the log.
func unstamped(lines []string, clean func(string) string) []string {
	for i, l := range lines {
		if i == afterLines || clean(l) != l {
			return lines[:i]
		}
	}
	return lines
}

// exception finds the words of Anaconda's report of an exception: a head line, the frames, the exception, the variables.
func exception(b []byte) []string {
	b, _, _ = bytes.Cut(b, []byte("\nLocal variables in"))
	var last string
	for l := range strings.Lines(string(b)) {
		if l = strings.TrimRight(l, "\r\n"); l != "" && l[0] != ' ' && !strings.HasPrefix(l, "Traceback") {
			last = l
		}
	}
	if last == "" {
		return nil
	}
	return []string{last}
}
