// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGlob(t *testing.T) {
	h := root(t, map[string]string{"/tmp/anaconda-tb-1": "x", "/tmp/anaconda-tb-2": "", "/tmp/other": "", "/usr/lib/YaST2/": ""})
	for pattern, want := range map[string][]string{
		"/tmp/anaconda-tb-*": {"/tmp/anaconda-tb-1", "/tmp/anaconda-tb-2"}, "/usr/lib/YaST2": {"/usr/lib/YaST2"}, "/none": nil, "[": nil,
	} {
		if got := h.Glob(pattern); !slices.Equal(got, want) {
			t.Errorf("Glob(%q) = %q, want %q", pattern, got, want)
		}
	}
}

func TestReadAt(t *testing.T) {
	h := root(t, map[string]string{"/log": "0123456789", "/dir/": ""})
	for _, c := range []struct {
		offset int64
		max    int
		want   string
	}{{0, 4, "0123"}, {8, 4, "89"}, {10, 4, ""}, {99, 4, ""}, {0, 0, ""}} {
		_, size, b, err := h.ReadAt("/log", c.offset, c.max)
		if err != nil || size != 10 || string(b) != c.want {
			t.Errorf("ReadAt(%d, %d) = %d, %q, %v, want 10, %q", c.offset, c.max, size, b, err, c.want)
		}
	}
	before, _, _, _ := h.ReadAt("/log", 0, 1)
	if err := os.Rename(filepath.Join(h.Root, "log"), filepath.Join(h.Root, "log.0")); err != nil {
		t.Fatal(err)
	}
	if after, _, _, _ := h.ReadAt("/log.0", 0, 1); after != before || after == "" {
		t.Errorf("id = %q under a new name, was %q", after, before)
	}
	if err := unix.Mkfifo(filepath.Join(h.Root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/dir", "/fifo", "/none"} {
		if _, _, _, err := h.ReadAt(p, 0, 1); err == nil {
			t.Errorf("ReadAt(%q) gave no error", p)
		}
	}
}

func TestMountsAndPorts(t *testing.T) {
	h := root(t, map[string]string{
		"/proc/self/mountinfo": "30 29 0:26 / /target rw - ext4 /dev/vda1 rw\n31 29 0:27 / /my\\040disk rw - ext4 /dev/vda rw\nbroken\n",
		"/proc/net/tcp":        "  sl  local_address rem_address   st\n   0: 00000000:0016 00000000:0000 0A 0\n   1: 0100007F:0898 00000000:0000 01 0\nx\n",
		"/proc/net/tcp6":       "  sl  local_address\n   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0\n",
	})
	if got, want := h.Mounts(), []string{"/target", "/my disk"}; !slices.Equal(got, want) {
		t.Errorf("Mounts() = %q, want %q", got, want)
	}
	for port, want := range map[int]bool{22: true, 8080: true, 2200: false, 80: false} {
		if got := h.Listening(port); got != want {
			t.Errorf("Listening(%d) = %v, want %v", port, got, want)
		}
	}
}
