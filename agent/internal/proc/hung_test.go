// SPDX-License-Identifier: Apache-2.0

package proc_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"provost/agent/internal/hungdisk"
	"provost/agent/internal/proc"
	"provost/proto"
)

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
			holds, release := hungdisk.Hold(t, s.Path, unix.FAN_OPEN_EXEC_PERM)
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

// TestHungStartAlone: so it is on a machine with one processor.
func TestHungStartAlone(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestHungStart$", "-test.v")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- ") {
		t.Errorf("TestHungStart with one processor = %v, %s", err, out)
	}
}

// TestHungLook: it does not even answer when the script is looked at.
func TestHungLook(t *testing.T) {
	s := held(t, t.TempDir())
	s.Digest = strings.Repeat("0", 64)
	_, release := hungdisk.Hold(t, s.Path, unix.FAN_OPEN_PERM)
	defer proc.SetCheckWait(2 * time.Second)()
	got := proc.Run(t.Context(), s)
	if got.Outcome != proto.OutcomePreflight || !strings.Contains(got.Message, "does not answer") {
		t.Errorf("Run = %s %q, want preflight that says that the disk does not answer", got.Outcome, got.Message)
	}
	release()
}
