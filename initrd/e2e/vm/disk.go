// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"
)

// toolLimit bounds each run of an e2fsprogs tool: they take well under a second on these disks.
const toolLimit = 5 * time.Minute

// NewDisk makes a blank raw disk of size bytes, sparse; what was at path is gone.
func NewDisk(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("making the disk: %w", err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return fmt.Errorf("making the disk: %w", err)
	}
	return nil
}

// NewExt4 makes a raw disk of size bytes that is one ext4 file system, without partitions, with a copy of the directory
// from in it.
func NewExt4(path string, size int64, from string) error {
	if err := NewDisk(path, size); err != nil {
		return err
	}
	_, err := tool("/sbin/mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-d", from, path)
	return err
}

// Root is the file system of a stopped machine, as a mount would show it: a copy, with the ext4 journal replayed. The
// disk itself is only read, and root is not needed.
type Root struct{ image string }

// OpenRoot copies the first partition of the disk to image, which Close removes.
func OpenRoot(disk, image string) (*Root, error) {
	start, size, err := firstPartition(disk)
	if err != nil {
		return nil, fmt.Errorf("reading the partition table of %s: %w", disk, err)
	}
	// dd, for it leaves holes where cp of a range cannot be asked to
	if _, err := tool("dd", "if="+disk, "of="+image, "bs=1M", "conv=sparse", "iflag=skip_bytes,count_bytes",
		fmt.Sprintf("skip=%d", start), fmt.Sprintf("count=%d", size), "status=none"); err != nil {
		return nil, err
	}
	return OpenExt4(image)
}

// OpenExt4 opens a copy of a disk that is one ext4 file system. The journal is replayed in it, and Close removes it.
func OpenExt4(image string) (*Root, error) {
	r := &Root{image}
	if _, err := tool("/sbin/e2fsck", "-p", "-E", "journal_only", image); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Check looks whether the file system is sound.
func (r *Root) Check() error {
	_, err := tool("/sbin/e2fsck", "-f", "-n", r.image)
	return err
}

// CopyDir copies a directory with everything below it into an existing directory of this machine, under its own name.
func (r *Root) CopyDir(path, into string) error {
	_, err := r.debugfs("rdump", path, into)
	return err
}

// Close removes the copy.
func (r *Root) Close() error { return os.Remove(r.image) }

// ReadFile returns a file's content, or an error that is fs.ErrNotExist.
func (r *Root) ReadFile(path string) ([]byte, error) { return r.debugfs("cat", path) }

// ReadDir returns the names in a directory, or an error that is fs.ErrNotExist.
func (r *Root) ReadDir(path string) ([]string, error) {
	out, err := r.debugfs("ls -p", path)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		// /inode/mode/uid/gid/name/size/
		field := strings.Split(line, "/")
		if len(field) > 5 && field[5] != "." && field[5] != ".." {
			names = append(names, field[5])
		}
	}
	return names, nil
}

// debugfs runs one request on a path, and perhaps one of this machine. It exits 0 whatever happens and complains on
// stderr, after one line that tells its version.
func (r *Root) debugfs(request, path string, own ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), toolLimit)
	defer cancel()
	var stderr bytes.Buffer
	request = fmt.Sprintf("%s %q", request, path)
	for _, p := range own {
		request += fmt.Sprintf(" %q", p)
	}
	cmd := exec.CommandContext(ctx, "/sbin/debugfs", "-R", request, r.image)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("running debugfs: %w", err)
	}
	_, complaint, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
	switch {
	case strings.Contains(complaint, "File not found"):
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	case complaint != "":
		return nil, fmt.Errorf("reading %s from the disk: %s", path, complaint)
	}
	return out, nil
}

func tool(name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), toolLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("running %s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return out, nil
}

// firstPartition reads the MBR and returns the place of the first partition in bytes.
func firstPartition(disk string) (start, size int64, err error) {
	f, err := os.Open(disk)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var mbr [512]byte
	if _, err := io.ReadFull(f, mbr[:]); err != nil {
		return 0, 0, err
	}
	entry := mbr[446:]
	if mbr[510] != 0x55 || mbr[511] != 0xaa || entry[4] == 0 {
		return 0, 0, errors.New("no partition")
	}
	return int64(binary.LittleEndian.Uint32(entry[8:])) * 512, int64(binary.LittleEndian.Uint32(entry[12:])) * 512, nil
}
