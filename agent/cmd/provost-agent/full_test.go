// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// TestFullDiskUnderOwnLog: on a full disk the agent's log takes nothing. That is a trouble that the agent would log, and must
// not wait for.
func TestFullDiskUnderOwnLog(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("state", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skip("no tmpfs can be mounted here: ", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	var said bytes.Buffer
	a, err := (&common{state: dir}).open(&streams{out: &said, err: &said}, proto.EnvInstaller)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.dir.Path("ballast"), make([]byte, 4<<20), 0o600); err == nil {
		t.Fatal("the disk is not full: this test tests nothing")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			a.log.Warn(strings.Repeat("a long line ", 20))
		}
		a.close()
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("writing to the agent's log on a full disk has not ended after 2 minutes")
	}
	if !strings.Contains(said.String(), "no space left on device; the step goes on") {
		t.Errorf("it said %q, want that the disk is full", said.String())
	}
}
