// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"io"
	"strings"
)

const (
	// shipHead is how much of the installer's logs is handed on as it comes.
	shipHead = 4 << 20
	// shipTail is how much of the end is kept beyond that, until a failure or the end asks for it.
	shipTail = 256 << 10
)

// shipper writes the lines of several logs into one, with a head line "==> PATH <==" where the log changes, as tail(1)
// does. It bounds what it writes: the first shipHead bytes, and at each flush at most the last shipTail bytes after them.
type shipper struct {
	w       io.Writer
	written int64
	last    string // the log of the last line
	tail    []byte
	missing int64 // bytes that are in neither
}

func (s *shipper) ship(path string, lines []string) {
	if s.w == nil || len(lines) == 0 {
		return
	}
	var b strings.Builder
	if path != s.last {
		fmt.Fprintf(&b, "==> %s <==\n", path)
		s.last = path
	}
	for _, l := range lines {
		b.WriteString(l)
		b.WriteByte('\n')
	}
	text := b.String()
	if s.written < shipHead {
		s.put(text)
		if s.written >= shipHead {
			s.put("[provost: of what follows the end is kept]\n")
		}
		return
	}
	s.tail = append(s.tail, text...)
	if over := len(s.tail) - shipTail; over > 0 {
		s.missing += int64(over)
		s.tail = append(s.tail[:0], s.tail[over:]...)
	}
}

// flush writes what is held back.
func (s *shipper) flush() {
	if len(s.tail) == 0 {
		return
	}
	if s.missing > 0 {
		s.put(fmt.Sprintf("\n[provost: %d bytes are missing here]\n", s.missing))
	}
	s.put(string(s.tail))
	s.tail, s.missing = nil, 0
}

// put hands text on. A writer that takes none costs the installer's log and nothing else.
func (s *shipper) put(text string) {
	n, err := io.WriteString(s.w, text)
	if err == nil {
		s.written += int64(n)
	}
}
