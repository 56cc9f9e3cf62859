// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Preflight says why the step cannot start, and what to do. It changes nothing.
func Preflight(s Spec) error {
	if _, err := look(s); err != nil {
		return err
	}
	return executable(s, s.Path, 0)
}

// look is the part of Preflight that comes before each step: whether the script is the right one, and what of it is wrong. It gives
// the interpreter, "" if it has none. The rest costs as much as a short step: it comes where an interpreter is a new one, whose disk
// must not be met first by the kernel in the middle of a start, and where the kernel has refused to start the script.
func look(s Spec) (string, error) {
	if s.Timeout <= 0 {
		return "", errors.New("the step has no timeout: no step may run for ever")
	}
	if s.Root != "" {
		if info, err := os.Stat(s.Root); err != nil || !info.IsDir() {
			return "", fmt.Errorf("root %s is no directory: is the target mounted there?", s.Root)
		}
	}
	if s.Dir != "" {
		if info, err := stat(s.Root, s.Dir); err != nil || !info.IsDir() {
			return "", fmt.Errorf("working directory %s is not there%s", s.Dir, inRoot(s))
		}
	}
	f, head, err := open(s, s.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if s.Digest != "" {
		h := sha256.New()
		h.Write(head)
		if _, err := io.Copy(h, f); err != nil {
			return "", fmt.Errorf("reading %s: %w", s.Path, err)
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != s.Digest {
			return "", fmt.Errorf("%s is not what the plan says: its SHA-256 is %.12s…, the plan's %.12s…; order the install again", s.Path, got, s.Digest)
		}
	}
	words, err := interpreter(s.Path, head)
	if err != nil || words == nil {
		return "", err
	}
	return words[0], envFinds(s, s.Path, words)
}

func inRoot(s Spec) string {
	if s.Root == "" {
		return ""
	}
	return " in " + s.Root
}

func missing(s Spec, name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not there%s", name, inRoot(s))
	}
	return fmt.Errorf("looking at %s%s: %w", name, inRoot(s), err)
}

// maxInterpreters is how many interpreters of interpreters the kernel follows (BINPRM_MAX_RECURSION in older kernels).
const maxInterpreters = 4

// executable says why the kernel would not execute name.
func executable(s Spec, name string, depth int) error {
	f, head, err := open(s, name)
	if err != nil {
		return err
	}
	defer f.Close()
	var sf unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &sf); err == nil && sf.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("%s%s is on a file system that is mounted noexec: remount it with exec", name, inRoot(s))
	}
	words, err := interpreter(name, head)
	if err != nil {
		return err
	}
	if words == nil {
		return loader(s, name, f)
	}
	if depth >= maxInterpreters {
		return fmt.Errorf("%s: interpreters of interpreters, more than the kernel follows", name)
	}
	if err := executable(s, words[0], depth+1); err != nil {
		return fmt.Errorf("%s needs %s: %w", name, words[0], err)
	}
	return envFinds(s, name, words)
}

// headSize is what the kernel looks at, to see how it is to execute a file (BINPRM_BUF_SIZE).
const headSize = 256

// open opens what is to be executed, and reads its head.
func open(s Spec, name string) (f *os.File, head []byte, err error) {
	host, err := resolve(s.Root, name)
	if err != nil {
		return nil, nil, missing(s, name, err)
	}
	if f, err = os.OpenFile(host, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil { // a pipe in its place is not waited for
		return nil, nil, missing(s, name, err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, missing(s, name, err)
	case !info.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%s%s is no file", name, inRoot(s))
	case info.Mode()&0o111 == 0:
		return nil, nil, fmt.Errorf("%s%s is not executable: chmod +x it", name, inRoot(s))
	}
	head = make([]byte, headSize)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return f, head[:n], nil
}

// interpreter gives the words of a script's #! line; none for an ELF program.
func interpreter(name string, head []byte) ([]string, error) {
	switch {
	case len(head) == 0:
		return nil, fmt.Errorf("%s is empty", name)
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf#!")):
		return nil, fmt.Errorf("%s begins with a byte order mark, which hides its #! line: save it as UTF-8 without BOM", name)
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return nil, nil
	case !bytes.HasPrefix(head, []byte("#!")):
		return nil, fmt.Errorf("%s has no #! line: begin it with #!/bin/sh", name)
	}
	line, _, ended := bytes.Cut(head[2:], []byte{'\n'})
	if bytes.HasSuffix(line, []byte{'\r'}) {
		return nil, fmt.Errorf("%s has DOS line ends, so its interpreter is not found: convert it with sed -i 's/\\r$//'", name)
	}
	words := strings.Fields(string(line))
	if len(words) == 0 || !strings.HasPrefix(words[0], "/") {
		return nil, fmt.Errorf("%s: the #! line %q names no interpreter by its absolute path: write #!/bin/sh", name, line)
	}
	if !ended && len(head) == headSize && len(words) == 1 {
		return nil, fmt.Errorf("%s: the #! line is longer than the kernel reads", name)
	}
	return words, nil
}

// envFinds says whether the command is missing that the #! line of a script has env(1) look for: the kernel finds env.
func envFinds(s Spec, name string, words []string) error {
	if path.Base(words[0]) != "env" || len(words) < 2 {
		return nil
	}
	cmd := words[1]
	if cmd == "-S" && len(words) > 2 {
		cmd = words[2]
	}
	if strings.HasPrefix(cmd, "-") || strings.Contains(cmd, "=") || strings.Contains(cmd, "/") {
		return nil // env has options and assignments of its own: it will say what is wrong
	}
	for _, dir := range filepath.SplitList(pathOf(s.Env)) {
		if host, err := resolve(s.Root, path.Join(dir, cmd)); err == nil {
			if info, err := os.Stat(host); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return nil
			}
		}
	}
	return fmt.Errorf("%s needs %s, which is not in the PATH%s: install it, or give its absolute path", name, cmd, inRoot(s))
}

func pathOf(env []string) string {
	for _, e := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			return v
		}
	}
	return ""
}

// loader checks that the dynamic loader of an ELF program is there (System V ABI, program header PT_INTERP): without it
// the kernel says "no such file" of the program.
func loader(s Spec, name string, f io.ReaderAt) error {
	var h [64]byte
	if _, err := f.ReadAt(h[:], 0); err != nil {
		return fmt.Errorf("%s is cut off: it is no whole program", name)
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if h[5] == 2 {
		order = binary.BigEndian
	}
	var off uint64
	var size, num int
	wide := h[4] == 2
	if wide {
		off, size, num = order.Uint64(h[32:]), int(order.Uint16(h[54:])), int(order.Uint16(h[56:]))
	} else {
		off, size, num = uint64(order.Uint32(h[28:])), int(order.Uint16(h[42:])), int(order.Uint16(h[44:]))
	}
	for i := range num {
		ph := make([]byte, size)
		if _, err := f.ReadAt(ph, int64(off)+int64(i*size)); err != nil || size < 32 || wide && size < 56 {
			return fmt.Errorf("%s is cut off: it is no whole program", name)
		}
		if order.Uint32(ph) != 3 {
			continue
		}
		at, n := uint64(order.Uint32(ph[4:])), uint64(order.Uint32(ph[16:]))
		if wide {
			at, n = order.Uint64(ph[8:]), order.Uint64(ph[32:])
		}
		interp := make([]byte, min(n, 4096))
		if _, err := f.ReadAt(interp, int64(at)); err != nil {
			return fmt.Errorf("%s is cut off: it is no whole program", name)
		}
		ld := string(bytes.TrimRight(interp, "\x00"))
		if _, err := stat(s.Root, ld); err != nil {
			return fmt.Errorf("%s needs the loader %s, which is not there%s: install its C library, or link it statically", name, ld, inRoot(s))
		}
	}
	return nil
}

func stat(root, name string) (fs.FileInfo, error) {
	host, err := resolve(root, name)
	if err != nil {
		return nil, err
	}
	return os.Stat(host)
}

// maxLinks is the kernel's limit of symbolic links in one path (path_resolution(7)).
const maxLinks = 40

// resolve gives the path outside of root of what name is inside of it, with every symbolic link followed as if root
// were /.
func resolve(root, name string) (string, error) {
	if root == "" || root == "/" {
		return name, nil
	}
	todo := strings.Split(path.Clean("/"+name), "/")[1:]
	done := "/"
	for links := 0; len(todo) > 0; {
		head := todo[0]
		todo = todo[1:]
		switch head {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, head)
		host := filepath.Join(root, next)
		info, err := os.Lstat(host)
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: %w", name, unix.ELOOP)
		}
		to, err := os.Readlink(host)
		if err != nil {
			return "", err
		}
		if path.IsAbs(to) {
			done = "/"
		}
		todo = append(strings.Split(to, "/"), todo...)
	}
	return filepath.Join(root, done), nil
}
