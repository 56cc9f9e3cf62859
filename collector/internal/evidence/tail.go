// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// fingerprintSize is how much of a file's start tells it from others that got the same inode later.
const fingerprintSize = 1 << 10

// FilePosition is a place in one file, which is known again under another name.
type FilePosition struct {
	Device      uint64 `json:"device"`
	Inode       uint64 `json:"inode"`
	Fingerprint string `json:"fingerprint,omitempty"` // SHA-256 of the first Sample bytes
	Sample      int    `json:"sample,omitempty"`      // at most 1 KiB
	Offset      int64  `json:"offset"`                // of the first line that is not committed
	Skip        bool   `json:"skip,omitempty"`        // the offset is inside a line that was too long
}

func fileID(fi os.FileInfo) (dev, ino uint64) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev), st.Ino
	}
	return 0, 0
}

func fingerprint(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// TruncatedError says that a file became shorter or was written anew under the follower, as logrotate's copytruncate
// does it. Lines that were written between the copy and the cut cannot be had.
type TruncatedError struct {
	Path         string
	Offset, Size int64
}

func (e *TruncatedError) Error() string {
	return fmt.Sprintf("following %s: it was cut in place, from at least %d to %d bytes: this is not followed, since lines get lost", e.Path, e.Offset, e.Size)
}

// Hint says what to do about it.
func (e *TruncatedError) Hint() string {
	return "in /etc/logrotate.d, write `create` in the place of `copytruncate` for " + e.Path + ",\nand let the daemon reopen its log in `postrotate`"
}

// tail is one open file that is read as it grows.
type tail struct {
	path    string // the name that it was opened under
	f       *os.File
	r       io.Reader // f, or what unpacks it
	packed  bool      // ends at its end, and is never written to again
	closers []io.Closer

	pos      FilePosition
	rest     []byte // the begin of a line from pos.Offset on
	replaced bool   // the path names another file by now
	quiet    time.Time
	done     bool
}

// openTail opens a file at an offset. It never waits, whatever the path names; a pipe or a device is refused.
func openTail(path string) (*tail, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("opening %s: it is no regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	t := &tail{path: path, f: f, r: f, closers: []io.Closer{f}}
	t.pos.Device, t.pos.Inode = fileID(fi)
	return t, nil
}

func (t *tail) close() {
	for i := len(t.closers) - 1; i >= 0; i-- {
		t.closers[i].Close()
	}
	t.done = true
}

// seek goes to a position in a file that is not packed.
func (t *tail) seek(offset int64, skip bool) error {
	if _, err := t.f.Seek(offset, io.SeekStart); err != nil {
		return fmt.Errorf("seeking in %s: %w", t.path, err)
	}
	t.pos.Offset, t.pos.Skip, t.rest = offset, skip, t.rest[:0]
	return nil
}

// sample sets the fingerprint from the file's start as it is now, until it covers all of fingerprintSize.
func (t *tail) sample() error {
	if t.packed || t.pos.Sample == fingerprintSize {
		return nil
	}
	var b [fingerprintSize]byte
	n, err := t.f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading %s: %w", t.path, err)
	}
	if n > t.pos.Sample {
		t.pos.Sample, t.pos.Fingerprint = n, fingerprint(b[:n])
	}
	return nil
}

// cut reports whether the file became shorter or another one under the same inode.
func (t *tail) cut() error {
	if t.packed {
		return nil
	}
	fi, err := t.f.Stat()
	if err != nil {
		return fmt.Errorf("reading %s: %w", t.path, err)
	}
	read := t.pos.Offset + int64(len(t.rest))
	if fi.Size() < read {
		return &TruncatedError{Path: t.path, Offset: read, Size: fi.Size()}
	}
	if t.pos.Sample == 0 {
		return nil
	}
	b := make([]byte, t.pos.Sample)
	if n, err := t.f.ReadAt(b, 0); n < len(b) || fingerprint(b) != t.pos.Fingerprint {
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading %s: %w", t.path, err)
		}
		return &TruncatedError{Path: t.path, Offset: read, Size: fi.Size()}
	}
	return nil
}

// read takes in one buffer of what is there, and reports how many bytes that was. At the end of the file it is 0.
func (t *tail) read(buf []byte, in *intake) (int, error) {
	n, err := t.r.Read(buf)
	if n > 0 {
		t.take(buf[:n], in)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("reading %s: %w", t.path, err)
	}
	return n, nil
}

func (t *tail) take(b []byte, in *intake) {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break
		}
		line := b[:i]
		if len(t.rest) > 0 {
			t.rest = append(t.rest, line...)
			line = t.rest
		}
		if t.pos.Skip {
			t.pos.Skip = false
		} else {
			in.line(line, netip.Addr{})
		}
		t.pos.Offset += int64(len(line)) + 1
		t.rest = t.rest[:0]
		b = b[i+1:]
	}
	t.rest = append(t.rest, b...)
	if len(t.rest) > MaxLine { // so that an endless line costs no memory
		if !t.pos.Skip {
			in.count(Broken, len(t.rest))
			t.pos.Skip = true
		}
		t.pos.Offset += int64(len(t.rest))
		t.rest = t.rest[:0]
	}
}

// finish takes the last line of a file that will not grow any more, which may lack its newline.
func (t *tail) finish(in *intake) {
	if len(t.rest) > 0 && !t.pos.Skip {
		in.line(t.rest, netip.Addr{})
	}
	t.pos.Offset += int64(len(t.rest))
	t.rest = t.rest[:0]
	t.close()
}
