// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPartitions: what is mounted, small, or no disk is not looked at.
func TestPartitions(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, "proc", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("partitions", `major minor  #blocks  name

   8        0  488386584 sda
   8        1     524288 sda1
   8        2  487861248 sda2
   8        3       2048 sda3
   7        0     120000 loop0
   1        0     120000 ram0
 104        0   71652960 cciss!c0d0
 253        0  100000000 dm-0
broken line
`)
	write("mounts", "/dev/sda1 /boot ext4 rw 0 0\nproc /proc proc rw 0 0\n")
	want := []string{"sda", "sda2", "cciss/c0d0", "dm-0"}
	if d := cmp.Diff(want, Host{Root: root}.partitions()); d != "" {
		t.Errorf("partitions (-want +got):\n%s", d)
	}
}
