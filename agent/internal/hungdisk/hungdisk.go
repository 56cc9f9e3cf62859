// SPDX-License-Identifier: Apache-2.0

// Package hungdisk is, for tests, a disk that does not answer. Nothing but tests may use it.
package hungdisk

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Hold makes the kernel hold what is done to a file (fanotify(7), a permission event) until release, as a disk that does not
// answer does. held is closed when it holds somebody.
func Hold(t testing.TB, path string, what uint64) (held <-chan struct{}, release func()) {
	t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY)
	if err == nil {
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD, what, unix.AT_FDCWD, path)
	}
	if err != nil {
		t.Skipf("this kernel, or this user, holds no file up: %v", err)
	}
	holds, quit, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		defer unix.Close(fd)
		var answers [][]byte
		for over := false; !over || len(answers) > 0; {
			var b [4096]byte
			n, _ := unix.Read(fd, b[:])
			for at := 0; at+24 <= n; at += int(binary.NativeEndian.Uint32(b[at:])) { // struct fanotify_event_metadata
				file := binary.NativeEndian.Uint32(b[at+16:])
				answers = append(answers, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, file), unix.FAN_ALLOW))
				if len(answers) == 1 && !over {
					close(holds)
				}
			}
			select {
			case <-quit:
				over = true
				for _, a := range answers {
					unix.Write(fd, a)
					unix.Close(int(binary.NativeEndian.Uint32(a)))
				}
				answers = nil
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	released := false
	release = func() {
		if !released {
			released = true
			close(quit)
			<-gone
		}
	}
	t.Cleanup(release)
	return holds, release
}
