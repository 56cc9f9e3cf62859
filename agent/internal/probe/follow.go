// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"cmp"
	"strings"
)

const (
	// readLimit is what one look reads of one log; what is left waits for the next look. 1 MiB/s is more than any
	// installer writes for long.
	readLimit = 1 << 20
	// lineLimit is the length of a line that is still one; a longer one is cut in pieces.
	lineLimit = 8 << 10
	// anchorSize is how much before the mark must still be there, else the file has been written anew.
	anchorSize = 64
)

// Mark is how far a log has been read. It may be kept, to go on after a restart.
type Mark struct {
	ID     string `json:"id"`
	Offset int64  `json:"offset"` // behind the last whole line
	Anchor []byte `json:"anchor"` // the last bytes before Offset
	size   int64  // of the file at the last look
}

// rotated are the names that a log gets when a new one takes its place: syslogd of busybox, logrotate, y2log.
var rotated = []string{".0", ".1", "-1", ".old"}

// follow reads the lines of a log that came since the mark, and moves it. A log that was shortened, written anew or
// replaced is read from its start, what its replaced one had last before that. The lines come without their ends; grew
// says whether there was anything new, a beginning of a line included.
func (m *Mark) follow(sys System, path string) (lines []string, grew bool) {
	now, _, err := sys.Read(path, 0, 0)
	if err != nil {
		return nil, false
	}
	if m.ID != "" && m.ID != now.ID {
		for _, ext := range rotated {
			if old, _, err := sys.Read(path+ext, 0, 0); err == nil && old.ID == m.ID {
				lines, _ = m.read(sys, path+ext, true)
				break
			}
		}
		*m = Mark{}
	}
	more, grew := m.read(sys, path, false)
	return append(lines, more...), grew || len(lines) > 0
}

// read reads from the mark on. At the end of a file that nobody writes to any more, what has no line end is a line too.
func (m *Mark) read(sys System, path string, ended bool) (lines []string, grew bool) {
	at := m.Offset - int64(len(m.Anchor))
	f, b, err := sys.Read(path, at, len(m.Anchor)+readLimit)
	if err != nil {
		return nil, false
	}
	if m.ID != "" && (f.ID != m.ID || f.Size < m.Offset || !bytes.HasPrefix(b, m.Anchor)) {
		*m = Mark{}
		if f, b, err = sys.Read(path, 0, readLimit); err != nil {
			return nil, false
		}
	}
	m.ID = f.ID
	seen := b[len(m.Anchor):]
	n := 0
	for rest := seen; len(rest) > 0; rest = seen[n:] {
		end := bytes.IndexByte(rest, '\n')
		switch {
		case end > lineLimit || end < 0 && len(rest) > lineLimit:
			// not through a word: it might be a secret, which is found whole or not at all
			end = cmp.Or(max(bytes.LastIndexByte(rest[:lineLimit], ' '), 0), lineLimit)
			n += end
		case end >= 0:
			n += end + 1
		case ended:
			end = len(rest)
			n += end
		default:
			end = -1
		}
		if end < 0 {
			break
		}
		lines = append(lines, strings.TrimRight(string(rest[:end]), "\r"))
	}
	grew = len(seen) > 0 && (n > 0 || f.Size != m.size)
	m.size = f.Size
	m.Offset += int64(n)
	read := b[:len(b)-len(seen)+n]
	m.Anchor = bytes.Clone(read[max(0, len(read)-anchorSize):])
	return lines, grew
}
