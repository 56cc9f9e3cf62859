// SPDX-License-Identifier: Apache-2.0

package proc_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"provost/agent/internal/proc"
	"provost/proto"
)

// hang makes the kernel hold what is done to a file (fanotify(7), a permission event) until release, as a disk that does not
// answer does. held is closed when it holds somebody.
func hang(t *testing.T, path string, what uint64) (held <-chan struct{}, release func()) {
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

func held(t *testing.T, dir string) proc.Spec {
	t.Helper()
	s := spec("ok")
	s.Path = filepath.Join(dir, "script")
	if err := os.WriteFile(s.Path, []byte("#!/bin/sh\necho ran >\""+dir+"/ran\"\nexec sleep 1004\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestHungStart: the disk that holds the script does not answer when it is executed. The step ends at its deadline, or by an
// order; the script that starts at last is killed.
func TestHungStart(t *testing.T) {
	for _, way := range []string{"deadline", "abort"} {
		t.Run(way, func(t *testing.T) {
			dir := t.TempDir()
			s := held(t, dir)
			holds, release := hang(t, s.Path, unix.FAN_OPEN_EXEC_PERM)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			want := proto.OutcomeTimeout
			if way == "abort" {
				s.Timeout, want = time.Hour, proto.OutcomeAborted
				go func() { <-holds; cancel(proc.ErrAbort) }()
			} else {
				s.Timeout = 500 * time.Millisecond
			}
			r := proc.NewRunner()
			got := r.Run(ctx, s)
			if got.Outcome != want || !strings.Contains(got.Message, "does not answer") {
				t.Errorf("Run = %s %q, want %s that says why", got.Outcome, got.Message, want)
			}
			<-holds
			release()
			for end := time.Now().Add(time.Minute); len(children()) > 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			}
			noneLeft(t)
			next := spec("ok")
			if got := r.Run(t.Context(), next); got.Outcome != proto.OutcomeOK {
				t.Errorf("the next step = %s %q, want ok", got.Outcome, got.Message)
			}
			r.Close()
		})
	}
}

// TestHungLook: it does not even answer when the script is looked at.
func TestHungLook(t *testing.T) {
	s := held(t, t.TempDir())
	s.Digest = strings.Repeat("0", 64)
	_, release := hang(t, s.Path, unix.FAN_OPEN_PERM)
	defer proc.SetCheckWait(2 * time.Second)()
	got := proc.Run(t.Context(), s)
	if got.Outcome != proto.OutcomePreflight || !strings.Contains(got.Message, "does not answer") {
		t.Errorf("Run = %s %q, want preflight that says that the disk does not answer", got.Outcome, got.Message)
	}
	release()
}
