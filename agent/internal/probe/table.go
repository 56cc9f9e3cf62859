// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"strings"
	"time"
)

// table is all that is known of one family's installer.
type table struct {
	family string
	// marks tell the family: all paths of one of them exist.
	marks [][]string
	logs  []logFile
	// stages in the order in which an install meets them.
	stages []row
	// failures are signs after which the installer does not go on.
	failures []sign
	// errors begin, or stand in, lines that say what went wrong. They do not fail an install: they explain it.
	errors []string
	stall  stall
}

// logFile is a log that is followed. Its lines are compared and shown as clean leaves them.
type logFile struct {
	path  string
	clean func(line string) string
	// talk tells the lines in which the installer speaks with its screen. They are not shipped, and are no words of a failure:
	// the answers are among them, passwords too. nil: there are none.
	talk func(line string) bool
}

// row is a stage and how it is seen: by any of the signs.
type row struct {
	stage string
	signs []sign
}

// sign is one thing to be seen: exactly one of path, process, args, mount, port and log is set.
type sign struct {
	path    string   // pattern; a directory, or a file that is not empty …
	empty   bool     // … or may be
	process string   // its name
	args    string   // part of a process's command line
	mount   string   // a mount point
	port    int      // TCP, listening
	log     string   // path of a log that is followed, a line of which …
	starts  string   // … begins so, and
	holds   []string // … has these in it, one after the other
	// text makes the words of a failure out of the file at path; nil if there are none in it.
	text textFunc
	// after makes further words of the lines that follow the line of a failure, up to the next that is stamped.
	after func(lines []string) []string
}

func file(pattern string) sign                  { return sign{path: pattern} }
func report(pattern string, f textFunc) sign    { return sign{path: pattern, text: f} }
func process(name string) sign                  { return sign{process: name} }
func args(part string) sign                     { return sign{args: part} }
func mount(point string) sign                   { return sign{mount: point} }
func port(n int) sign                           { return sign{port: n} }
func line(log, starts string, h ...string) sign { return sign{log: log, starts: starts, holds: h} }

// then adds the words that follow.
func (s sign) then(after func(lines []string) []string) sign {
	s.after = after
	return s
}

type textFunc = func(file []byte) []string

// fits reports whether a line of a log is what the sign stands for.
func (s sign) fits(log, line string) bool {
	line, ok := strings.CutPrefix(line, s.starts)
	for _, part := range s.holds {
		if ok {
			_, line, ok = strings.Cut(line, part)
		}
	}
	return ok && s.log == log
}

// stall is how an installer looks that waits for somebody: a log whose last line has holds in it has not grown for idle.
type stall struct {
	log, holds string
	idle       time.Duration
	// asks, if set, is for a log with a talk, whose last line is then the one that counts: it says what is asked in it, "" if
	// nothing is.
	asks func(talk []string) string
}
