// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"provost/agent/internal/hungdisk"
	"provost/agent/internal/run"
	"provost/proto"
)

// TestHungBegin: the disk of the state directory does not answer when a run begins. The run ends and says so; when the disk answers
// after all, the lock that it took is let go, and a run begins.
func TestHungBegin(t *testing.T) {
	b := newBench(t, proto.Step{Name: "a"})
	lock := filepath.Join(b.state, "run.lock")
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j := b.journal()
	defer j.Close()
	d := b.deps(j)
	d.SetDiskWait(200 * time.Millisecond)
	_, release := hungdisk.Hold(t, lock, unix.FAN_OPEN_PERM)
	_, err := run.Run(t.Context(), d, b.opts)
	if err == nil || !strings.Contains(err.Error(), "the disk of "+b.state+" does not answer within 200ms") {
		t.Errorf("Run = %v, want that the disk does not answer", err)
	}
	if len(b.events()) > 0 || len(b.ran) > 0 {
		t.Errorf("%d records, %q ran, want nothing", len(b.events()), b.ran)
	}
	release()
	d.SetDiskWait(time.Minute)
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		r, err := run.Run(t.Context(), d, b.opts)
		if err == nil && r.Outcome == proto.OutcomeOK {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Run when the disk answers = %+v, %v", r, err)
		}
	}
}
