// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"os"
	"syscall"
	"testing"

	"provost/agent/internal/report"
)

// TestSentOnFullDisk: who waits for a delivery hears of it on a full disk, too, also when there is less to be said.
func TestSentOnFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := report.Dir(t.TempDir())
	if err := syscall.Mount("tmpfs", string(dir), "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("no tmpfs can be mounted here: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(string(dir), syscall.MNT_DETACH) })
	if err := dir.SetSent(report.Sent{Journal: "j", Next: 1000, Trouble: "a disk that is nearly full"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir.Path("ballast"), make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full: this test tests nothing")
	}
	for next := uint64(1001); next < 1004; next++ {
		if err := dir.SetSent(report.Sent{Journal: "j", Next: next}); err != nil {
			t.Errorf("setting it on a full disk: %v", err)
		}
		if got := dir.Sent(); got.Next != next || got.Journal != "j" {
			t.Errorf("Sent() = %+v, want next %d", got, next)
		}
	}
}
