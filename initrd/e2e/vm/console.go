// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// console is the machine's serial line: it stamps each line into a file and keeps it for waiters.
type console struct {
	mu      sync.Mutex
	file    *os.File
	began   time.Time
	lines   []string
	partial []byte        // the line that has no end yet, as it came
	more    chan struct{} // closed and replaced when anything arrives
}

var (
	lineEnd = regexp.MustCompile(`[\r\n]+`)
	control = regexp.MustCompile(`\x1b\[[0-9;?=]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b[=>c]|[\x00-\x08\x0b-\x1f]`)
)

func openConsole(path string) (*console, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the console file: %w", err)
	}
	c := &console{file: f, began: time.Now(), more: make(chan struct{})}
	fmt.Fprintf(f, "--- power on %s\n", c.began.UTC().Format(time.RFC3339))
	return c, nil
}

// Write takes what QEMU prints. A console file that cannot be written loses the file, not the test.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.partial = append(c.partial, p...)
	for {
		end := lineEnd.FindIndex(c.partial)
		// An end of line in two pieces must not make two lines.
		if end == nil || end[1] == len(c.partial) && !bytes.HasSuffix(c.partial, []byte("\n")) {
			break
		}
		c.add(c.partial[:end[0]])
		c.partial = c.partial[end[1]:]
	}
	close(c.more)
	c.more = make(chan struct{})
	return len(p), nil
}

func (c *console) add(raw []byte) {
	line := clean(raw)
	if line == "" {
		return
	}
	c.lines = append(c.lines, line)
	fmt.Fprintf(c.file, "%8.2f %s\n", time.Since(c.began).Seconds(), line)
}

func clean(raw []byte) string {
	return strings.TrimRight(strings.ToValidUTF8(control.ReplaceAllString(string(raw), ""), "?"), " ")
}

func (c *console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(c.partial)
	c.partial = nil
	c.file.Close()
}

// find returns the first matching line, or a channel that is closed when more has come.
// A line without an end, such as a prompt, counts.
func (c *console) find(re *regexp.Regexp) (line string, more <-chan struct{}, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lines {
		if re.MatchString(l) {
			return l, nil, true
		}
	}
	if l := clean(c.partial); re.MatchString(l) {
		return l, nil, true
	}
	return "", c.more, false
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := strings.Join(c.lines, "\n") + "\n"
	return text + clean(c.partial)
}

// tail returns the last lines for an error message.
func (c *console) tail() string {
	const n = 5
	lines := strings.Split(strings.TrimSpace(c.text()), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}
