// SPDX-License-Identifier: Apache-2.0

package sftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	maxHandles = 64       // open at once; OpenSSH's clients open a few
	maxRead    = 64 << 10 // given at once; less than was asked for is no end of the file (section 6.4)
	maxNames   = 64       // of a directory, given at once
)

// Server serves the files below Root, "" being the machine's own, where a relative path is one of the process's directory.
// With a Root nothing outside of it is reached, unless a symbolic link leads there.
type Server struct {
	Root string
}

// Serve answers one request after the other, and returns when in ends (nil), has something that is no request, or out takes
// no more. All files are closed then.
func (s Server) Serve(in io.Reader, out io.Writer) error {
	c := &client{server: s, open: map[string]*os.File{}}
	defer func() {
		for _, f := range c.open {
			f.Close()
		}
	}()
	var buf []byte
	for {
		var err error
		buf, err = readPacket(in, buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		a := c.answer(buf[0], &request{b: buf[1:]})
		binary.BigEndian.PutUint32(a, uint32(len(a)-4))
		if _, err := out.Write(a); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
}

// client is what is known of one client.
type client struct {
	server Server
	open   map[string]*os.File
	last   uint32 // number of the last handle
}

func (c *client) path(r *request) string {
	p := r.string()
	if c.server.Root != "" {
		return filepath.Join(c.server.Root, filepath.Clean("/"+p))
	}
	if p == "" {
		return "."
	}
	return p
}

// file is the open file that a request names.
func (c *client) file(r *request) (*os.File, error) {
	if f := c.open[r.string()]; f != nil {
		return f, nil
	}
	return nil, errBadMessage
}

func (c *client) answer(typ byte, r *request) answer {
	if typ == typeInit { // it has a version in the place of an id; ours is in the id's place of the answer
		return newAnswer(typeVersion, 3)
	}
	id := r.uint32()
	a, err := c.do(typ, id, r)
	switch {
	case r.bad:
		return status(id, errBadMessage)
	case err != nil || a == nil:
		return status(id, err)
	}
	return a
}

// do carries out one request. Each case reads all of its request first and does nothing if that was too short.
func (c *client) do(typ byte, id uint32, r *request) (answer, error) {
	switch typ {
	case typeOpen:
		return c.openFile(id, r)
	case typeOpendir:
		return c.openDir(id, r)
	case typeClose:
		h := r.string()
		f := c.open[h]
		if f == nil {
			return nil, errBadMessage
		}
		delete(c.open, h)
		return nil, f.Close()
	case typeRead:
		return c.read(id, r)
	case typeWrite:
		return nil, c.write(r)
	case typeReaddir:
		return c.readDir(id, r)
	case typeStat, typeLstat:
		stat := os.Stat
		if typ == typeLstat {
			stat = os.Lstat
		}
		p := c.path(r)
		if r.bad {
			return nil, errBadMessage
		}
		info, err := stat(p)
		return attrs(id, info, err)
	case typeFstat:
		f, err := c.file(r)
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		return attrs(id, info, err)
	case typeSetstat:
		p, want := c.path(r), r.attributes()
		if r.bad {
			return nil, errBadMessage
		}
		return nil, want.set(p, nil)
	case typeFsetstat:
		f, err := c.file(r)
		want := r.attributes()
		if err != nil || r.bad {
			return nil, errBadMessage
		}
		return nil, want.set(f.Name(), f)
	case typeRealpath, typeReadlink:
		return c.where(typ, id, r)
	default:
		return nil, c.change(typ, r)
	}
}

// change carries out what changes a directory.
func (c *client) change(typ byte, r *request) error {
	p := c.path(r)
	var to string
	mode := uint32(0o777)
	switch typ {
	case typeRename:
		to = c.path(r)
	case typeMkdir:
		if want := r.attributes(); want.flags&attrMode != 0 {
			mode = want.mode
		}
	}
	if r.bad {
		return errBadMessage
	}
	switch typ {
	case typeRemove:
		return at("remove", p, unix.Unlink(p))
	case typeRmdir:
		return at("rmdir", p, unix.Rmdir(p))
	case typeMkdir:
		return at("mkdir", p, unix.Mkdir(p, mode&0o7777))
	case typeRename: // what is there already stays (section 6.5)
		err := unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system that does not know the flag
			if _, lerr := os.Lstat(to); lerr == nil {
				err = unix.EEXIST
			} else {
				err = unix.Rename(p, to)
			}
		}
		return at("rename", p, err)
	}
	return errUnsupported
}

func at(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

func attrs(id uint32, info os.FileInfo, err error) (answer, error) {
	if err != nil {
		return nil, err
	}
	a := newAnswer(typeAttrs, id)
	a.attributes(info)
	return a, nil
}

// Flags of typeOpen, section 6.3.
const (
	openRead   = 1
	openWrite  = 2
	openAppend = 4
	openCreate = 8
	openTrunc  = 16
	openExcl   = 32
)

func (c *client) openFile(id uint32, r *request) (answer, error) {
	p, flags, want := c.path(r), r.uint32(), r.attributes()
	if r.bad || flags&(openRead|openWrite) == 0 {
		return nil, errBadMessage
	}
	// never wait for a writer of a pipe, never get a terminal
	mode := unix.O_NONBLOCK | unix.O_NOCTTY
	switch flags & (openRead | openWrite) {
	case openRead | openWrite:
		mode |= os.O_RDWR
	case openWrite:
		mode |= os.O_WRONLY
	}
	for _, f := range []struct{ theirs, ours int }{{openCreate, os.O_CREATE}, {openTrunc, os.O_TRUNC}, {openExcl, os.O_EXCL}, {openAppend, os.O_APPEND}} {
		if int(flags)&f.theirs != 0 {
			mode |= f.ours
		}
	}
	perm := os.FileMode(0o666)
	if want.flags&attrMode != 0 {
		perm = os.FileMode(want.mode & 0o777)
	}
	f, err := os.OpenFile(p, mode, perm)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && info.Mode().Type() != os.ModeDevice { // a disk may be copied, a terminal not
		err = fmt.Errorf("%s is no regular file", p)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return c.keep(id, f)
}

func (c *client) openDir(id uint32, r *request) (answer, error) {
	p := c.path(r)
	if r.bad {
		return nil, errBadMessage
	}
	f, err := os.OpenFile(p, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return c.keep(id, f)
}

// keep gives an open file its handle.
func (c *client) keep(id uint32, f *os.File) (answer, error) {
	if len(c.open) >= maxHandles {
		f.Close()
		return nil, fmt.Errorf("%d files are open already", maxHandles)
	}
	for {
		c.last++
		h := string(binary.BigEndian.AppendUint32(nil, c.last))
		if c.open[h] != nil { // after 2^32 others
			continue
		}
		c.open[h] = f
		a := newAnswer(typeHandle, id)
		a.string(h)
		return a, nil
	}
}

func (c *client) read(id uint32, r *request) (answer, error) {
	f, err := c.file(r)
	offset, n := int64(r.uint64()), min(r.uint32(), maxRead)
	if err != nil || r.bad || offset < 0 {
		return nil, errBadMessage
	}
	a := newAnswer(typeData, id)
	a.uint32(0)
	head := len(a)
	a = append(a, make([]byte, n)...)
	got, err := f.ReadAt(a[head:], offset)
	if got == 0 && err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(a[head-4:], uint32(got))
	return a[:head+got], nil
}

func (c *client) write(r *request) error {
	f, err := c.file(r)
	offset, data := int64(r.uint64()), r.bytes()
	if err != nil || r.bad || offset < 0 {
		return errBadMessage
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_APPEND != 0 {
		_, err = f.Write(data)
		return err
	}
	_, err = f.WriteAt(data, offset)
	return err
}

func (c *client) readDir(id uint32, r *request) (answer, error) {
	f, err := c.file(r)
	if err != nil || r.bad {
		return nil, errBadMessage
	}
	entries, err := f.ReadDir(maxNames)
	if len(entries) == 0 {
		if err == nil {
			err = io.EOF
		}
		return nil, err
	}
	a := newAnswer(typeName, id)
	a.uint32(uint32(len(entries)))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil { // removed meanwhile
			info = nil
		}
		a.name(e.Name(), info)
	}
	return a, nil
}

// where gives the one name that a path, or a symbolic link, stands for.
func (c *client) where(typ byte, id uint32, r *request) (answer, error) {
	p := c.path(r)
	if r.bad {
		return nil, errBadMessage
	}
	var name string
	var err error
	if typ == typeReadlink {
		name, err = os.Readlink(p)
	} else if name, err = filepath.EvalSymlinks(p); err == nil {
		name, err = filepath.Abs(name)
	} else { // it is not there yet
		name, err = filepath.Abs(p)
	}
	if err != nil {
		return nil, err
	}
	a := newAnswer(typeName, id)
	a.uint32(1)
	a.name(name, nil)
	return a, nil
}

// set changes a file's attributes: of the open one if f is there, else of the one at p.
func (w attributes) set(p string, f *os.File) error {
	var errs []error
	if w.flags&attrSize != 0 {
		if int64(w.size) < 0 {
			return errBadMessage
		}
		if f != nil {
			errs = append(errs, f.Truncate(int64(w.size)))
		} else {
			errs = append(errs, os.Truncate(p, int64(w.size)))
		}
	}
	if w.flags&attrMode != 0 {
		if f != nil {
			errs = append(errs, at("chmod", p, unix.Fchmod(int(f.Fd()), w.mode&0o7777)))
		} else {
			errs = append(errs, at("chmod", p, unix.Chmod(p, w.mode&0o7777)))
		}
	}
	if w.flags&attrTimes != 0 {
		errs = append(errs, os.Chtimes(p, w.access, w.write))
	}
	if w.flags&attrOwner != 0 {
		if f != nil {
			errs = append(errs, f.Chown(int(w.uid), int(w.gid)))
		} else {
			errs = append(errs, os.Chown(p, int(w.uid), int(w.gid)))
		}
	}
	return errors.Join(errs...)
}
