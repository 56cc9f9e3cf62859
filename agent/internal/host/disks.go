// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// minPartition is the size in KiB of the smallest partition that is looked at: no system fits into less than 64 MiB.
const minPartition = 64 << 10

// How long a look may take. A disk that does not answer keeps the kernel busy for minutes: it is passed over.
const (
	oneDiskLimit  = time.Minute
	allDisksLimit = 5 * time.Minute
)

// maxSubvolumes bounds the directories of a btrfs that are looked at: installers make some ten.
const maxSubvolumes = 64

// readOnly are the file systems that can be mounted without a single write, and the option by which each leaves its
// journal alone (ext4(5), xfs(5), btrfs(5)). What was in such a journal only is not seen. The kernel loads the module of one
// that it does not know yet. btrfs has the first of its options since Linux 5.9.
var readOnly = []struct{ fstype, option string }{
	{"ext4", "noload"},
	{"xfs", "norecovery"},
	{btrfs, "rescue=nologreplay"},
	{btrfs, "nologreplay"},
	{"ext3", "noload"},
	{"ext2", ""},
}

const btrfs = "btrfs"

// EachDisk mounts one after the other the file systems on this machine's disks, read-only, below the directory dir, and
// calls look with the roots that may be in them: a system's, or that of its /var alone. It ends when look says that it has
// found what it looks for, and gives the name of the device, "" if there is none. Plain logical volumes that nobody uses are
// activated for that time.
//
// It writes nothing to any disk. What is in use already, or cannot be mounted, is passed over. It lasts some 7 minutes at
// most, and its error names the disks that gave no answer in their time: they may go on calling look.
func (h Host) EachDisk(dir string, look func(root string) bool) (device string, err error) {
	left, _ := filepath.Glob(filepath.Join(dir, "look-*")) // of a process that was killed in the middle of a look
	for _, point := range left {
		unmount(point)
	}
	end, silent := time.Now().Add(allDisksLimit), ""
	defer h.activateVolumes(filepath.Join(dir, "lvm.out"))()
	for _, name := range h.partitions() {
		device, found := "/dev/"+name, make(chan bool, 1)
		limit := min(oneDiskLimit, time.Until(end))
		if limit > 0 {
			go func() { found <- lookAt(device, dir, look) }()
		}
		select {
		case ok := <-found:
			if ok {
				return device, nil
			}
		case <-time.After(limit):
			silent += " " + device
		}
	}
	if silent != "" {
		err = fmt.Errorf("looking at the disks: no answer in time from%s", silent)
	}
	return "", err
}

// lookAt mounts one device.
func lookAt(device, dir string, look func(string) bool) (found bool) {
	release := forbidWrites(device)
	if release == nil {
		return false
	}
	defer release()
	point, err := os.MkdirTemp(dir, "look-")
	if err != nil {
		return false
	}
	defer unmount(point)
	// Silent: a disk that has another file system, or none, is no error that the consoles need to show.
	const flags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_SILENT
	mount := func(fstype, option string) bool {
		return unix.Mount(device, point, fstype, flags, option) == nil
	}
	for _, fs := range readOnly {
		if !mount(fs.fstype, fs.option) {
			continue
		}
		found = look(point)
		// The rest of a btrfs is below its top, which only this number mounts: /var is another subvolume on many systems.
		if found || fs.fstype != btrfs || unix.Unmount(point, 0) != nil || !mount(btrfs, fs.option+",subvolid=5") {
			break
		}
		entries, _ := os.ReadDir(point) // as far as it can be read
		for _, e := range entries[:min(len(entries), maxSubvolumes)] {
			found = found || e.IsDir() && look(filepath.Join(point, e.Name()))
		}
		found = found || look(point)
		break
	}
	return found
}

// unmount removes a mount point with all that may be mounted there, now or, if somebody uses it, when he is done.
func unmount(point string) {
	if unix.Unmount(point, 0) != nil {
		unix.Unmount(point, unix.MNT_DETACH) // an error: there is nothing mounted
	}
	os.Remove(point)
}

// forbidWrites makes the kernel refuse every write to a block device until release: ext4 that is mounted read-only still
// removes the files that nobody has a name of, unless the device itself is read-only. It is nil of a device that is in use, also
// as a part of another one (O_EXCL, open(2)), and of one that is none, such as an empty drive.
func forbidWrites(device string) (release func()) {
	for _, flag := range []int{unix.O_EXCL, 0} { // the second one stays: a mount needs the device free
		fd, err := unix.Open(device, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|flag, 0)
		if err != nil {
			return nil
		}
		if flag != 0 {
			defer unix.Close(fd)
			continue
		}
		was, err := unix.IoctlGetInt(fd, unix.BLKROGET)
		if err != nil || unix.IoctlSetPointerInt(fd, unix.BLKROSET, 1) != nil {
			unix.Close(fd)
			return nil
		}
		return func() {
			unix.IoctlSetPointerInt(fd, unix.BLKROSET, was)
			unix.Close(fd)
		}
	}
	return nil
}

// Disks is what the kernel tells of its block devices: a text that is another one when there are others.
func (h Host) Disks() string { return h.text("/proc/partitions") }

// partitions lists block devices that may hold a system (/proc/partitions, proc(5)).
func (h Host) partitions() []string {
	var out []string
	for _, line := range strings.Split(h.Disks(), "\n") {
		f := strings.Fields(line)
		if len(f) != 4 {
			continue
		}
		kib, err := strconv.ParseInt(f[2], 10, 64)
		name := strings.ReplaceAll(f[3], "!", "/")
		if err != nil || kib < minPartition || strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") || strings.HasPrefix(name, "zram") {
			continue
		}
		out = append(out, name)
	}
	return out
}
