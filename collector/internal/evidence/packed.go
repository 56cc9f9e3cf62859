// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// ErrNoXZ says that a file is xz-compressed and the program that unpacks it is missing.
var ErrNoXZ = errors.New("it is xz-compressed and there is no program xz: install it (Debian: xz-utils, Red Hat: xz)")

// maxZstdWindow bounds the memory that a zstd file can ask for: 128 MiB is the greatest window of zstd's own tool without
// --ultra and --long.
const maxZstdWindow = 128 << 20

// unpack looks at the first bytes of a file and gives a reader of what is packed in it; nil if it is plain. The reader's
// position in f is its start, or stays there.
func unpack(f *os.File, path string) (io.Reader, io.Closer, error) {
	var magic [6]byte
	n, err := f.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	switch head := magic[:n]; {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		r, err := gzip.NewReader(f)
		if err != nil {
			return nil, nil, fmt.Errorf("unpacking %s: %w", path, err)
		}
		return r, r, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		r, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("unpacking %s: %w", path, err)
		}
		c := r.IOReadCloser()
		return c, c, nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return unxz(f, path)
	}
	return nil, nil, nil
}

// xzProcess is a running xz whose output is read.
type xzProcess struct {
	cmd  *exec.Cmd
	out  io.ReadCloser
	err  bytes.Buffer
	path string
	over bool
}

// unxz runs the xz tool, at most 512 MiB of memory: bounded, and above the 65 MiB of the preset -9.
func unxz(f *os.File, path string) (io.Reader, io.Closer, error) {
	tool, err := exec.LookPath("xz")
	if err != nil {
		return nil, nil, fmt.Errorf("unpacking %s: %w", path, ErrNoXZ)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, nil, fmt.Errorf("seeking in %s: %w", path, err)
	}
	p := &xzProcess{path: path}
	p.cmd = exec.Command(tool, "-dc", "--memlimit-decompress=512MiB")
	p.cmd.Stdin = f
	p.cmd.Stderr = &limited{b: &p.err, left: 1 << 10}
	p.cmd.WaitDelay = 5 * time.Second // for its pipes, after it has ended
	if p.out, err = p.cmd.StdoutPipe(); err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("starting xz for %s: %w", path, err)
	}
	return p, p, nil
}

func (p *xzProcess) Read(b []byte) (int, error) {
	n, err := p.out.Read(b)
	if errors.Is(err, io.EOF) && !p.over {
		p.over = true
		if werr := p.cmd.Wait(); werr != nil {
			return n, fmt.Errorf("unpacking %s with xz: %w: %s", p.path, werr, bytes.TrimSpace(p.err.Bytes()))
		}
	}
	return n, err
}

// Close ends xz, if it still runs: SIGKILL, so the wait for it is short.
func (p *xzProcess) Close() error {
	if p.over {
		return nil
	}
	p.over = true
	p.cmd.Process.Kill()
	p.cmd.Wait()
	return nil
}

// limited keeps the first bytes and drops the rest.
type limited struct {
	b    *bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.b.Write(p[:n])
	l.left -= n
	return len(p), nil
}
