// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// minPartition is the size in KiB of the smallest partition that is looked at: no system fits into less than 64 MiB.
const minPartition = 64 << 10

// readOnly are the file systems that can be mounted without a single write, and the option by which each leaves its
// journal alone (ext4(5), xfs(5), btrfs(5)). What was in such a journal only is not seen.
var readOnly = []struct{ fstype, option string }{
	{"ext4", "noload"},
	{"xfs", "norecovery"},
	{"btrfs", "rescue=nologreplay"},
	{"ext3", "noload"},
	{"ext2", ""},
}

// EachDisk mounts one after the other the file systems on this machine's disks, read-only, on a directory below dir,
// until look says that it has found what it looks for. It writes nothing to any disk. What is mounted already, or cannot
// be mounted, is passed over; mounting one takes as long as the disk takes. It gives the name of the device of
// which look said true, "" if there is none.
func (h Host) EachDisk(dir string, look func(root string) bool) (device string, err error) {
	point, err := os.MkdirTemp(dir, "look-")
	if err != nil {
		return "", fmt.Errorf("looking at the disks: %w", err)
	}
	defer os.Remove(point)
	for _, name := range h.partitions() {
		found, err := h.lookAt("/dev/"+name, point, look)
		if err != nil {
			return "", err
		}
		if found {
			return "/dev/" + name, nil
		}
	}
	return "", nil
}

// lookAt mounts one device. Its only error is a mount that cannot be undone.
func (h Host) lookAt(device, point string, look func(string) bool) (found bool, err error) {
	known := h.text("/proc/filesystems")
	for _, fs := range readOnly {
		if !slices.Contains(strings.Fields(known), fs.fstype) {
			continue
		}
		if unix.Mount(device, point, fs.fstype, unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, fs.option) != nil {
			continue
		}
		found = look(point)
		if err := unix.Unmount(point, 0); err != nil {
			err = errors.Join(err, unix.Unmount(point, unix.MNT_DETACH))
			return found, fmt.Errorf("unmounting %s after a look at it: %w", device, err)
		}
		return found, nil
	}
	return false, nil
}

// partitions lists block devices that may hold a system (/proc/partitions, proc(5)), and leaves out what is mounted.
func (h Host) partitions() []string {
	var out []string
	for _, line := range strings.Split(h.text("/proc/partitions"), "\n") {
		f := strings.Fields(line)
		if len(f) != 4 {
			continue
		}
		kib, err := strconv.ParseInt(f[2], 10, 64)
		name := strings.ReplaceAll(f[3], "!", "/")
		if err != nil || kib < minPartition || strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") || strings.HasPrefix(name, "zram") {
			continue
		}
		if !h.mounted("/dev/" + name) {
			out = append(out, name)
		}
	}
	return out
}

func (h Host) mounted(device string) bool {
	for _, line := range strings.Split(h.text("/proc/mounts"), "\n") {
		if source, _, _ := strings.Cut(line, " "); source == device || filepath.Clean(source) == device {
			return true
		}
	}
	return false
}
