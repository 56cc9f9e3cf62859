// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestPartitions: what is small or no disk is not looked at.
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
	want := []string{"sda", "sda1", "sda2", "cciss/c0d0", "dm-0"}
	if d := cmp.Diff(want, Host{Root: root}.partitions()); d != "" {
		t.Errorf("partitions (-want +got):\n%s", d)
	}
}

// loopDisk gives a loop device with a file system that has these files, and the file behind it. what is how it is made:
// a program and its arguments, which get the file's name; and a script that fills it, with its root as the first argument.
func loopDisk(t *testing.T, size int64, fill string, mkfs ...string) (device, image string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a loop device needs root")
	}
	if _, err := exec.LookPath(mkfs[0]); err != nil {
		t.Skipf("there is no %s", mkfs[0])
	}
	dir := t.TempDir()
	image = filepath.Join(dir, "image")
	root := filepath.Join(dir, "root")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size), os.Mkdir(root, 0o755)); err != nil {
		t.Fatal(err)
	}
	command := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q = %v: %s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	command(mkfs[0], append(mkfs[1:], image)...)
	device = command("losetup", "--find", "--show", image)
	t.Cleanup(func() { command("losetup", "--detach", device) })
	// In a mount namespace of its own: whoever makes one meanwhile, as other tests do, would keep a copy of the mount, and with it the device.
	command("unshare", "--mount", "sh", "-e", "-c", "mount \"$2\" \"$1\"\n"+fill+"\numount \"$1\"", "sh", root, device)
	return device, image
}

// digest is that of a file's blocks that are not all zero, and their places. Most of an image is a hole, which is not read.
func digest(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	block, zero := make([]byte, 4096), make([]byte, 4096)
	for at, end := int64(0), int64(0); ; at += int64(len(block)) {
		if at >= end {
			if at, err = f.Seek(at, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
				return fmt.Sprintf("%x", h.Sum(nil))
			} else if err == nil {
				end, err = f.Seek(at, unix.SEEK_HOLE)
			}
			if err != nil {
				t.Fatal(err)
			}
			at -= at % int64(len(block))
		}
		n, err := f.ReadAt(block, at)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if !bytes.Equal(block[:n], zero[:n]) {
			fmt.Fprintf(h, "%d %d\n", at, n)
			h.Write(block[:n])
		}
	}
}

// lookFor looks at one device for a file, and holds that it stays as it is.
func lookFor(t *testing.T, device, image, file string) bool {
	t.Helper()
	before, dir := digest(t, image), t.TempDir()
	found := lookAt(device, dir, func(root string) bool {
		_, err := os.Stat(filepath.Join(root, file))
		return err == nil
	})
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fsync(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	if digest(t, image) != before {
		t.Errorf("the look has changed %s", device)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the look left %v behind, %v", left, err)
	}
	if ro, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET); err != nil || ro != 0 {
		t.Errorf("after the look %s is read-only: %d, %v", device, ro, err)
	}
	return found
}

// TestEachFileSystem: a journal is found wherever an installer puts it, and not one bit of the disk changes.
func TestEachFileSystem(t *testing.T) {
	const journal = "lib/provost/journal" // below var, or the root of a /var of its own
	for _, c := range []struct {
		name string
		size int64
		fill string
		file string
		mkfs []string
	}{
		{"ext4", 80 << 20, `mkdir -p "$1/var/lib/provost/journal"`, "var/" + journal, []string{"mkfs.ext4", "-q"}},
		{"ext4 that is /var", 80 << 20, `mkdir -p "$1/lib/provost/journal"`, journal, []string{"mkfs.ext4", "-q"}},
		{"ext3", 80 << 20, `mkdir -p "$1/var/lib/provost/journal"`, "var/" + journal, []string{"mkfs.ext3", "-q"}},
		{"ext2", 80 << 20, `mkdir -p "$1/var/lib/provost/journal"`, "var/" + journal, []string{"mkfs.ext2", "-q"}},
		{"xfs", 310 << 20, `mkdir -p "$1/var/lib/provost/journal"`, "var/" + journal, []string{"mkfs.xfs", "-q"}},
		{"btrfs", 200 << 20, `mkdir -p "$1/var/lib/provost/journal"`, "var/" + journal, []string{"mkfs.btrfs", "-q"}},
		{"btrfs of SLES", 200 << 20, `
btrfs -q subvolume create "$1/@"
btrfs -q subvolume create "$1/@/var"
mkdir -p "$1/@/var/lib/provost/journal" "$1/@/.snapshots/1"
btrfs -q subvolume create "$1/@/.snapshots/1/snapshot"
mkdir "$1/@/.snapshots/1/snapshot/var"
btrfs subvolume set-default "$1/@/.snapshots/1/snapshot"`, "var/" + journal, []string{"mkfs.btrfs", "-q"}},
		{"btrfs of Fedora", 200 << 20, `
btrfs -q subvolume create "$1/root"
btrfs -q subvolume create "$1/var"
mkdir -p "$1/var/lib/provost/journal" "$1/root/var"`, journal, []string{"mkfs.btrfs", "-q"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			device, image := loopDisk(t, c.size, c.fill, c.mkfs...)
			if !lookFor(t, device, image, c.file) {
				t.Errorf("the journal is not found")
			}
			if lookFor(t, device, image, "nothing") {
				t.Errorf("what is not there is found")
			}
		})
	}
}

// TestOrphans: a file of which the power went before it was removed is what a mount of ext4 writes for, read-only or not.
func TestOrphans(t *testing.T) {
	device, image := loopDisk(t, 80<<20, `echo x >"$1/orphan"; mkdir "$1/here"`, "mkfs.ext4", "-q")
	// as after a crash: the file has no name and no links, and the superblock's list begins with it
	for _, request := range []string{"unlink /orphan", "set_inode_field <12> links_count 0", "set_super_value last_orphan 12"} {
		if out, err := exec.Command("debugfs", "-w", "-R", request, image).CombinedOutput(); err != nil {
			t.Fatalf("debugfs %s = %v: %s", request, err, out)
		}
	}
	if !lookFor(t, device, image, "here") {
		t.Error("the file system is not looked at")
	}
}

// TestInUse: what somebody has mounted is left alone, whatever it is called there.
func TestInUse(t *testing.T) {
	device, image := loopDisk(t, 80<<20, `mkdir "$1/here"`, "mkfs.ext4", "-q")
	root := t.TempDir()
	if err := unix.Mount(device, root, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(root, 0)
	if lookFor(t, device, image, "here") {
		t.Error("a device that is mounted is looked at")
	}
	if err := os.WriteFile(filepath.Join(root, "new"), []byte("x"), 0o600); err != nil {
		t.Errorf("it cannot be written to any more: %v", err)
	}
}

// TestVolumes: plain logical volumes that are not active are activated for a look, and no others; nothing is left active.
func TestVolumes(t *testing.T) {
	dir := t.TempDir()
	script := `#!/bin/sh
echo "${0##*/} $*" >>"` + dir + `/asked"
[ "$1" = lvs ] || exit 1
cat <<'EOF'
  rhel/root/-wi-------
  rhel/var/-wi-------
  rhel/home/-wi-a-----
  rhel/thin/Vwi---tz--
  rhel/raid/rwi---r---
  rhel/kept/owi---s---
  WARNING: rubbish
EOF
exit 5
`
	h, out := Host{Root: dir}, filepath.Join(dir, "out")
	h.activateVolumes(out)() // without an lvm
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "sbin"), 0o755), os.WriteFile(filepath.Join(dir, "sbin/lvm"), []byte(script), 0o755), os.Symlink("lvm", filepath.Join(dir, "sbin/modprobe"))); err != nil {
		t.Fatal(err)
	}
	h.activateVolumes(out)()
	b, err := os.ReadFile(filepath.Join(dir, "asked"))
	if err != nil {
		t.Fatal(err)
	}
	const config = " --config " + lvmConfig + " "
	want := "modprobe dm_mod\nlvm lvs" + config + "--noheadings --separator / -o vg_name,lv_name,lv_attr\n" +
		"lvm lvchange" + config + "-ay rhel/root rhel/var\nlvm lvchange" + config + "-an rhel/root rhel/var\n"
	if d := cmp.Diff(want, string(b)); d != "" {
		t.Errorf("lvm was called (-want +got):\n%s", d)
	}
}
