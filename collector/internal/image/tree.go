// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/kdomanski/iso9660"
	"golang.org/x/sys/unix"
)

// maxDepth and maxFiles bound what an image may make of a disk; a distribution's DVD has some 10,000 files in 8 levels.
const (
	maxDepth = 32
	maxFiles = 500_000
)

// The modes of what is imported, whatever the umask of who imports: the service, which is another user, serves it.
const (
	dirMode  = 0o755
	fileMode = 0o644
)

// tree is a source of files.
type tree interface {
	// walk calls fn for every directory and file, directories before what is in them. Paths have slashes and no dots.
	walk(fn func(path string, e entry) error) error
	close() error
}

type entry struct {
	dir, link bool
	size      int64
	time      time.Time
	open      func() (io.ReadCloser, error)
}

// openTree opens a directory or an ISO image.
func openTree(source string) (tree, error) {
	info, err := os.Stat(source)
	if err != nil {
		return nil, fmt.Errorf("opening the image: %w", err)
	}
	if info.IsDir() {
		root, err := os.OpenRoot(source)
		if err != nil {
			return nil, fmt.Errorf("opening the image: %w", err)
		}
		return &dirTree{root}, nil
	}
	f, err := os.Open(source)
	if err != nil {
		return nil, fmt.Errorf("opening the image: %w", err)
	}
	err = wholeISO(f, info.Size())
	var image *iso9660.Image
	if err == nil {
		image, err = iso9660.OpenImage(f)
	}
	if err == nil {
		_, err = image.RootDir()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("reading %s as an ISO 9660 image: %w", source, err)
	}
	return &isoTree{f, image, info.Size()}, nil
}

type dirTree struct{ root *os.Root }

func (t *dirTree) close() error { return t.root.Close() }

func (t *dirTree) walk(fn func(string, entry) error) error {
	return fs.WalkDir(t.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || p == "." {
			return err
		}
		e := entry{dir: d.IsDir(), link: !d.IsDir() && !d.Type().IsRegular(), size: info.Size(), time: info.ModTime()}
		e.open = func() (io.ReadCloser, error) { return t.root.Open(p) }
		return fn(p, e)
	})
}

type isoTree struct {
	f     *os.File
	image *iso9660.Image
	size  int64
}

func (t *isoTree) close() error { return t.f.Close() }

func (t *isoTree) walk(fn func(string, entry) error) error {
	root, err := t.image.RootDir()
	if err != nil {
		return err
	}
	return t.children(root, "", 0, fn)
}

// children calls fn for what is below a directory. What the image says of itself is not believed: its tree may be a loop,
// its names paths, and its sizes wrong.
func (t *isoTree) children(dir *iso9660.File, prefix string, depth int, fn func(string, entry) error) error {
	if depth > maxDepth {
		return fmt.Errorf("directory %q is %d levels deep: the image is damaged", prefix, depth)
	}
	list, err := t.list(dir)
	if err != nil {
		return fmt.Errorf("reading directory %q of the image: %w", prefix, err)
	}
	for _, c := range list {
		if c.name == "" || c.name == "." || c.name == ".." || strings.ContainsAny(c.name, "/\x00") {
			return fmt.Errorf("the name %q in directory %q cannot be: the image is damaged", c.name, prefix)
		}
		p := path.Join(prefix, c.name)
		if !c.dir && !c.link && (c.size < 0 || c.size > t.size) {
			return fmt.Errorf("file %q has %d bytes, more than the image: it is damaged", p, c.size)
		}
		if err := fn(p, c.entry); err != nil {
			return err
		}
		if c.dir && !c.link {
			if err := t.children(c.file, p, depth+1, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

type isoEntry struct {
	entry
	name string
	file *iso9660.File
}

// list reads a directory's table. A panic becomes an error: the library trusts such tables.
func (t *isoTree) list(dir *iso9660.File) (out []isoEntry, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("its table makes no sense: %v", p)
		}
	}()
	files, err := dir.GetChildren()
	for _, f := range files {
		e := entry{dir: f.IsDir(), link: f.Mode()&fs.ModeSymlink != 0, size: f.Size(), time: f.ModTime()}
		e.open = func() (io.ReadCloser, error) { return io.NopCloser(f.Reader()), nil }
		out = append(out, isoEntry{e, strings.TrimSuffix(f.Name(), "."), f})
	}
	return out, err
}

// wholeISO compares the size that the primary volume descriptor tells with the file's (ECMA-119, 8.4.8 and 8.4.12).
func wholeISO(f *os.File, size int64) error {
	var pvd [2048]byte
	if _, err := f.ReadAt(pvd[:], 16*2048); err != nil || string(pvd[:6]) != "\x01CD001" {
		return errors.New("it has no volume descriptor")
	}
	blocks, block := int64(binary.LittleEndian.Uint32(pvd[80:])), int64(binary.LittleEndian.Uint16(pvd[128:]))
	if want := blocks * block; size < want {
		return fmt.Errorf("it has %d of its %d bytes: it was cut off", size, want)
	}
	return nil
}

// copy brings a tree below the new directory work.
func (o *Options) copy(ctx context.Context, t tree, work string, r *Result) error {
	var total int64
	count := 0
	err := t.walk(func(p string, e entry) error {
		if count++; count > maxFiles {
			return fmt.Errorf("the image has more than %d files", maxFiles)
		}
		if !e.dir && !e.link {
			total += e.size
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	var space unix.Statfs_t
	if err := unix.Statfs(o.Dir, &space); err == nil && int64(space.Bavail)*space.Bsize < total {
		return fmt.Errorf("the image has %d MB, and %s has %d MB free", total/1e6, o.Dir, int64(space.Bavail)*space.Bsize/1e6)
	}
	if err := errors.Join(os.Mkdir(work, dirMode), os.Chmod(work, dirMode)); err != nil {
		return fmt.Errorf("copying the image: %w", err)
	}
	root, err := os.OpenRoot(work)
	if err != nil {
		return fmt.Errorf("copying the image: %w", err)
	}
	defer root.Close()
	return t.walk(func(p string, e entry) error {
		switch {
		case e.link:
			r.Links++
			return nil
		case e.dir:
			return errors.Join(root.Mkdir(p, dirMode), root.Chmod(p, dirMode))
		}
		n, err := copyFile(ctx, root, p, e, func(n int64) { o.Progress("copying", r.Bytes+n, total) })
		r.Files, r.Bytes = r.Files+1, r.Bytes+n
		if err != nil {
			return fmt.Errorf("copying %s: %w", p, err)
		}
		return nil
	})
}

func copyFile(ctx context.Context, root *os.Root, p string, e entry, progress func(int64)) (n int64, err error) {
	from, err := e.open()
	if err != nil {
		return 0, err
	}
	defer from.Close()
	to, err := root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return 0, err
	}
	err = to.Chmod(fileMode)
	for err == nil && n < e.size {
		if err = ctx.Err(); err != nil {
			break
		}
		var m int64
		m, err = io.CopyN(to, from, min(1<<20, e.size-n))
		n += m
		progress(n)
	}
	if err == io.EOF {
		err = fmt.Errorf("it ends after %d of %d bytes: the image was cut off", n, e.size)
	}
	err = errors.Join(err, to.Close())
	if err == nil && !e.time.IsZero() {
		err = root.Chtimes(p, e.time, e.time)
	}
	return n, err
}
