// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// globLimit bounds what Glob gives: who looks for more than a few files has the wrong pattern.
const globLimit = 16

// Glob lists the files that match a pattern as of path.Match, at most globLimit of them.
func (h Host) Glob(pattern string) []string {
	paths, err := filepath.Glob(h.path(pattern))
	if err != nil {
		return nil
	}
	paths = paths[:min(len(paths), globLimit)]
	for i, p := range paths {
		paths[i] = filepath.Join("/", strings.TrimPrefix(p, filepath.Clean("/"+h.Root)))
	}
	return paths
}

// ReadAt gives at most max bytes of a regular file from offset on, none at or behind its end, with the file's size, and
// an id that it keeps when it gets another name. It never waits for a writer: anything else than a regular file is an error.
func (h Host) ReadAt(path string, offset int64, max int) (id string, size int64, b []byte, err error) {
	f, err := os.OpenFile(h.path(path), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return "", 0, nil, fmt.Errorf("reading: %w", err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", 0, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", 0, nil, fmt.Errorf("reading %s: it is no regular file", path)
	}
	if max > 0 {
		b, err = io.ReadAll(io.NewSectionReader(f, offset, int64(max)))
	}
	if err != nil {
		return "", 0, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return fmt.Sprintf("%x:%x", st.Dev, st.Ino), st.Size, b, nil
}

// Mounts lists all mount points.
func (h Host) Mounts() []string {
	var out []string
	for _, m := range h.mounts() {
		out = append(out, m.point)
	}
	return out
}

// Listening reports whether a TCP socket listens on a port (/proc/net/tcp, proc_net(5): state 0A).
func (h Host) Listening(port int) bool {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(h.path(table))
		if err != nil {
			continue
		}
		found := false
		for s := bufio.NewScanner(f); s.Scan() && !found; {
			fields := strings.Fields(s.Text())
			if len(fields) < 4 || fields[3] != "0A" {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			n, err := strconv.ParseUint(hex, 16, 16)
			found = err == nil && int(n) == port
		}
		f.Close()
		if found {
			return true
		}
	}
	return false
}
