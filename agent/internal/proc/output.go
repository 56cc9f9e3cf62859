// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"provost/proto"
)

const (
	// pipeSize is what an unprivileged pipe may have at most (pipe(7)): a step that prints in bursts is not held up. It begins with
	// 64 KiB, and gets that when a read finds much.
	pipeSize = 1 << 20
	much     = 16 << 10
	// readSize is what is read at once, and chunkSize what is written at once: they stay in the processor's cache.
	readSize  = 256 << 10
	chunkSize = 256 << 10
	// chunksMax bounds the output that waits for a slow sink: 16 times 256 KiB are 4 MiB. More is dropped, and counted.
	chunksMax = 16
	// patience and patienceMax bound what a step that prints faster than the sink takes is held up, as by any pipe: patience
	// at a time, after which the sink counts as hung until it has taken something, and patienceMax in a step's whole life.
	patience    = 250 * time.Millisecond
	patienceMax = 5 * time.Second
	// minRoom is what a chunk must have left to be filled further: a stamp, or the word on a gap, and some text.
	minRoom = 256
)

// stampLayout is in front of each line: UTC, milliseconds.
const stampLayout = "2006-01-02T15:04:05.000Z "

// output takes what the step prints through one pipe, so that stdout and stderr stay in order. One goroutine empties the
// pipe, stamps the lines, and waits for the sink no longer than patience; another writes to the sink, and may hang there for
// ever without harm. Each byte is copied once between the two.
type output struct {
	w     *os.File // what the step writes to
	r     *os.File // nil with LeaveRunning
	from  int64    // with LeaveRunning: the file's length before
	tail  tail
	sink  io.Writer
	hide  filter
	bufs  *buffers
	fresh bool          // at a line's start
	held  time.Duration // so long the step was held up
	hung  bool          // the sink did not take anything for patience

	mu     sync.Mutex
	full   [][]byte // to be written, in order
	now    []byte   // is filled; comes after full; nil while the stamper has it
	gap    int64    // bytes dropped since the last that were queued
	lost   int64
	closed bool

	more  chan struct{} // there is something to be written, or no more will come
	space chan struct{} // a chunk is free again

	read    chan struct{} // the pipe is at its end
	written chan struct{} // all is written
}

// buffers is the memory of an output, which the next one can use again.
type buffers struct {
	in   []byte
	free [][]byte
	made int // chunks, free or not
}

func newOutput(s Spec, bufs *buffers) (*output, error) {
	o := &output{
		sink: s.Output, hide: filter{r: NewRedactor(s.Secrets)}, bufs: bufs, fresh: true, more: make(chan struct{}, 1), space: make(chan struct{}, 1),
		read: make(chan struct{}), written: make(chan struct{}),
	}
	if o.sink == nil {
		o.sink = io.Discard
	}
	if s.LeaveRunning && s.OutputFile != nil {
		info, err := s.OutputFile.Stat()
		if err != nil {
			return nil, err
		}
		o.w, o.from = s.OutputFile, info.Size()
		return o, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	if _, err := unix.FcntlInt(uintptr(fds[0]), unix.F_SETFL, unix.O_NONBLOCK); err != nil { // only this end: the step's is a plain one
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, os.NewSyscallError("fcntl", err)
	}
	o.r, o.w = os.NewFile(uintptr(fds[0]), "|0"), os.NewFile(uintptr(fds[1]), "|1")
	return o, nil
}

// widen makes the pipe as large as it may be: that spares wake-ups where much is printed. Where it cannot be, it stays as it is.
func (o *output) widen() {
	if c, err := o.r.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) { unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
}

// abandon closes what newOutput opened, where nothing was started.
func (o *output) abandon() {
	if o.r != nil {
		o.r.Close()
		o.w.Close()
	}
}

func (o *output) begin() {
	if o.r == nil {
		return
	}
	o.w.Close() // the step has it now
	go o.drain()
	go o.deliver()
}

// drain empties the pipe.
func (o *output) drain() {
	defer close(o.read)
	if o.bufs.in == nil {
		o.bufs.in = make([]byte, readSize)
	}
	for wide := false; ; {
		n, err := o.r.Read(o.bufs.in)
		if n >= much && !wide {
			o.widen()
			wide = true
		}
		o.take(o.hide.write(o.bufs.in[:n]))
		if err != nil {
			o.take(o.hide.end())
			return
		}
	}
}

// take queues a piece of output, with the time in front of each line that begins in it.
func (o *output) take(b []byte) {
	if len(b) == 0 {
		return
	}
	o.tail.add(b)
	stamp := time.Now().UTC().AppendFormat(make([]byte, 0, len(stampLayout)), stampLayout)
	chunk := o.chunk(nil)
	for len(b) > 0 {
		if cap(chunk)-len(chunk) < minRoom {
			chunk = o.chunk(chunk)
		}
		if chunk == nil {
			o.drop(b)
			return
		}
		chunk, b, o.fresh = stampLines(chunk, b, o.fresh, stamp)
	}
	o.mu.Lock()
	o.now = chunk
	o.mu.Unlock()
	wake(o.more)
}

// stampLines moves b to chunk as far as that has room, with the stamp in front of each line that begins in it.
func stampLines(chunk, b []byte, fresh bool, stamp []byte) (_, rest []byte, _ bool) {
	for len(b) > 0 {
		room := cap(chunk) - len(chunk)
		if fresh {
			if room -= len(stamp); room < 0 {
				break
			}
			chunk = append(chunk, stamp...)
		}
		n := bytes.IndexByte(b, '\n') + 1
		fresh = n > 0
		if !fresh {
			n = len(b)
		}
		if n > room {
			n, fresh = room, false
		}
		chunk = append(chunk, b[:n]...)
		b = b[n:]
		if n == room {
			break
		}
	}
	return chunk, b, fresh
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// chunk queues the chunk that is full, if one is given, and gives one with room; nil if the sink leaves none.
func (o *output) chunk(full []byte) []byte {
	for {
		o.mu.Lock()
		if full != nil {
			o.full = append(o.full, full)
			full = nil
			wake(o.more)
		}
		if o.now != nil {
			c := o.now
			o.now = nil
			o.mu.Unlock()
			return c
		}
		if n := len(o.bufs.free); n > 0 || o.bufs.made < chunksMax {
			var c []byte
			if n > 0 {
				c = o.bufs.free[n-1][:0]
				o.bufs.free = o.bufs.free[:n-1]
			} else {
				o.bufs.made++
				c = make([]byte, 0, chunkSize)
			}
			if o.gap > 0 {
				c = fmt.Appendf(c, gapText, o.gap)
				o.gap = 0
			}
			o.hung = false
			o.mu.Unlock()
			return c
		}
		o.mu.Unlock()
		if !o.wait() {
			return nil
		}
	}
}

// gapText stands where output is missing.
const gapText = "\n[provost: %d bytes are missing here: the log was too slow]\n"

// wait holds the step up until the sink has taken something, and reports whether it has.
func (o *output) wait() bool {
	limit := min(patience, patienceMax-o.held)
	if o.hung || limit <= 0 {
		return false
	}
	begin := time.Now()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-o.space:
	case <-timer.C:
		o.hung = true
	}
	o.held += time.Since(begin)
	return !o.hung
}

// drop counts what the sink leaves no room for.
func (o *output) drop(b []byte) {
	o.fresh = b[len(b)-1] == '\n'
	o.mu.Lock()
	o.gap += int64(len(b))
	o.lost += int64(len(b))
	o.mu.Unlock()
}

// deliver writes what is queued to the sink until no more comes.
func (o *output) deliver() {
	defer close(o.written)
	for {
		o.mu.Lock()
		var c []byte
		switch {
		case len(o.full) > 0:
			c = o.full[0]
			o.full = o.full[1:]
		case len(o.now) > 0:
			c, o.now = o.now, nil
		}
		done, gap := c == nil && o.closed, o.gap
		o.mu.Unlock()
		switch {
		case done && gap > 0:
			fmt.Fprintf(o.sink, gapText, gap)
			return
		case done:
			return
		case c == nil:
			<-o.more
			continue
		}
		o.sink.Write(c) // its troubles are its own: Spec.Output
		o.mu.Lock()
		o.bufs.free = append(o.bufs.free, c)
		o.mu.Unlock()
		wake(o.space)
	}
}

// end waits a bounded time for the rest of the output and gives the last lines. What was lost includes what still waits for
// the sink. The buffers are free again if reusable.
func (o *output) end() (tail []string, lost int64, reusable bool) {
	if o.r == nil {
		return o.fileTail(), 0, true
	}
	select {
	case <-o.read:
	case <-time.After(drainWait): // a process that escaped has the pipe
	}
	o.r.Close() // ends the Read, as a pipe is a file that the runtime polls
	<-o.read
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	wake(o.more)
	select {
	case <-o.written:
		reusable = true
	case <-time.After(2 * drainWait): // the sink hangs; its goroutine ends with it
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	lost = o.lost + int64(len(o.now))
	for _, c := range o.full {
		lost += int64(len(c))
	}
	return o.tail.lines(), lost, reusable
}

// fileTail gives the last lines of what was added to the file.
func (o *output) fileTail() []string {
	f, err := os.Open(o.w.Name())
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	from := max(o.from, info.Size()-tailBytes)
	b, err := io.ReadAll(io.NewSectionReader(f, from, tailBytes))
	if err != nil {
		return nil
	}
	o.tail.add(b)
	return o.tail.lines()
}

// tailBytes holds MaxTail lines of MaxTailLine bytes, and as many again for what is cut.
const tailBytes = 2 * proto.MaxTail * proto.MaxTailLine

// tail keeps the end of the output.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) add(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(b) >= tailBytes {
		t.buf = t.buf[:0]
	}
	t.buf = append(t.buf, b[max(0, len(b)-tailBytes):]...)
	if len(t.buf) > 4*tailBytes {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailBytes:]...)
	}
}

// lines gives the last lines, at most proto.MaxTail. A line that was overwritten on the screen by carriage returns, as
// progress bars do, counts as its last state.
func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := bytes.TrimRight(t.buf, "\r\n")
	if len(b) == 0 {
		return nil
	}
	var out []string
	for _, l := range bytes.Split(b, []byte{'\n'}) {
		l = bytes.TrimRight(l, "\r")
		if i := bytes.LastIndexByte(l, '\r'); i >= 0 {
			l = l[i+1:]
		}
		out = append(out, proto.Clip(string(l), proto.MaxTailLine))
	}
	return out[max(0, len(out)-proto.MaxTail):]
}
