// SPDX-License-Identifier: Apache-2.0

package probe

import "time"

// System is the machine as the watch sees it. No method may wait for anything but the kernel; each is called from one
// goroutine.
type System interface {
	// Now is the time since the kernel booted. It never jumps.
	Now() time.Duration
	// Glob lists the files and directories that match a pattern as of path.Match; at most a few.
	Glob(pattern string) []string
	// Read gives at most max bytes of a regular file from offset on, none at or behind its end, and what the file is
	// at the moment of reading. Anything else than a regular file is an error.
	Read(path string, offset int64, max int) (File, []byte, error)
	// Processes lists all processes.
	Processes() []Process
	// Mounts lists all mount points.
	Mounts() []string
	// Listening reports whether a TCP socket listens on a port.
	Listening(port int) bool
}

// File is what a path stood for when it was read.
type File struct {
	ID   string // the file itself, whatever its name: device and inode
	Size int64
}

// Process is a running program.
type Process struct {
	Name string // as in /proc/PID/stat: at most 15 bytes
	Args string // command line, cut at some length
}
