// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is the kernel's limit of symbolic links in one path (path_resolution(7)).
const maxLinks = 40

// OpenBelow opens the directory name of a target that is mounted at root, as a program sees it that has root for its /: an
// absolute link begins at root, and no ".." leads above it. Else a target whose /var/log is a link to /data/log would have
// the running installer written to. What is not there is made if wanted, also where a link leads to. It is what openat2(2) does
// with RESOLVE_IN_ROOT, for every kernel: each step is one openat that follows no link, so nobody can exchange one meanwhile.
func OpenBelow(root, name string, make bool) (_ *os.File, err error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	top, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	dirs := []int{top} // from root down to where the walk is
	defer func() {
		for _, fd := range dirs {
			unix.Close(fd)
		}
	}()
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		head := todo[0]
		todo = todo[1:]
		at := dirs[len(dirs)-1]
		switch head {
		case "", ".":
			continue
		case "..":
			if len(dirs) > 1 {
				unix.Close(at)
				dirs = dirs[:len(dirs)-1]
			}
			continue
		}
		fd, err := unix.Openat(at, head, flags, 0)
		if make && errors.Is(err, unix.ENOENT) {
			if err := unix.Mkdirat(at, head, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
				return nil, &fs.PathError{Op: "mkdir", Path: path.Join(root, name), Err: err}
			}
			fd, err = unix.Openat(at, head, flags, 0)
		}
		if err == nil {
			dirs = append(dirs, fd)
			continue
		}
		to, ok := readLink(at, head)
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: path.Join(root, name), Err: err}
		}
		if links++; links > maxLinks {
			return nil, &fs.PathError{Op: "open", Path: path.Join(root, name), Err: unix.ELOOP}
		}
		if path.IsAbs(to) {
			for _, fd := range dirs[1:] {
				unix.Close(fd)
			}
			dirs = dirs[:1]
		}
		todo = append(strings.Split(to, "/"), todo...)
	}
	fd, err := unix.Openat(dirs[len(dirs)-1], ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path.Join(root, name), Err: err}
	}
	return os.NewFile(uintptr(fd), path.Join(root, name)), nil
}

// readLink reads a symbolic link.
func readLink(at int, name string) (string, bool) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(at, name, b)
	return string(b[:max(n, 0)]), err == nil
}

// Through is a path to an open directory that no later change of links can lead elsewhere (proc_pid_fd(5)).
func Through(dir *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", dir.Fd()) }

// Named is an error with the name that dir was opened by, instead of the one that Through gave.
func Named(err error, dir *os.File) error {
	var p *fs.PathError
	var l *os.LinkError
	switch at := Through(dir); {
	case errors.As(err, &p):
		p.Path = strings.Replace(p.Path, at, dir.Name(), 1)
	case errors.As(err, &l):
		l.Old, l.New = strings.Replace(l.Old, at, dir.Name(), 1), strings.Replace(l.New, at, dir.Name(), 1)
	}
	return err
}
