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

// queueMax is how much output waits for a slow sink. More is dropped, and counted.
const queueMax = 4 << 20

// pipeSize is what an unprivileged pipe may have at most (pipe(7)), and what is read at once.
const pipeSize = 1 << 20

// stampLayout is in front of each line: UTC, milliseconds.
const stampLayout = "2006-01-02T15:04:05.000Z "

// output takes what the step prints through one pipe, so that stdout and stderr stay in order. One goroutine empties the
// pipe and never waits for anything else; another writes to the sink, and may hang there for ever without harm.
type output struct {
	w    *os.File // what the step writes to
	r    *os.File // nil with LeaveRunning
	from int64    // with LeaveRunning: the file's length before
	tail tail
	sink io.Writer
	hide filter

	mu     sync.Mutex
	more   *sync.Cond
	queue  []byte
	spare  []byte // the queue before, its memory to be used again
	gap    int64  // bytes dropped since the last that were queued
	lost   int64
	closed bool

	read    chan struct{} // the pipe is at its end
	written chan struct{} // the queue is empty and closed
}

func newOutput(s Spec) (*output, error) {
	o := &output{sink: s.Output, hide: filter{r: NewRedactor(s.Secrets)}, read: make(chan struct{}), written: make(chan struct{})}
	o.more = sync.NewCond(&o.mu)
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
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.r, o.w = r, w
	if c, err := w.SyscallConn(); err == nil { // best effort: a larger pipe only spares wake-ups
		c.Control(func(fd uintptr) { unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
	return o, nil
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
	buf := make([]byte, pipeSize)
	var stamped []byte
	fresh := true // at a line's start
	take := func(b []byte) {
		if len(b) == 0 {
			return
		}
		o.tail.add(b)
		stamped, fresh = stampLines(stamped[:0], b, fresh, time.Now())
		o.put(stamped)
	}
	for {
		n, err := o.r.Read(buf)
		take(o.hide.write(buf[:n]))
		if err != nil {
			take(o.hide.end())
			return
		}
	}
}

// stampLines appends b to out, with the time in front of each line that begins in it.
func stampLines(out, b []byte, fresh bool, now time.Time) ([]byte, bool) {
	stamp := now.UTC().AppendFormat(nil, stampLayout)
	for len(b) > 0 {
		if fresh {
			out = append(out, stamp...)
		}
		i := bytes.IndexByte(b, '\n')
		fresh = i >= 0
		if !fresh {
			i = len(b) - 1
		}
		out = append(out, b[:i+1]...)
		b = b[i+1:]
	}
	return out, fresh
}

// put queues output for the sink, or drops it when that is too slow.
func (o *output) put(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue)+len(b) > queueMax {
		o.gap += int64(len(b))
		o.lost += int64(len(b))
		return
	}
	if o.gap > 0 {
		o.queue = fmt.Appendf(o.queue, "\n[provost: %d bytes are missing here: the log was too slow]\n", o.gap)
		o.gap = 0
	}
	o.queue = append(o.queue, b...)
	o.more.Signal()
}

// deliver writes the queue to the sink until it is closed.
func (o *output) deliver() {
	defer close(o.written)
	for {
		o.mu.Lock()
		for len(o.queue) == 0 && !o.closed {
			o.more.Wait()
		}
		b := o.queue
		o.queue, o.spare = o.spare[:0], nil
		done := len(b) == 0 && o.closed
		o.mu.Unlock()
		if done {
			return
		}
		o.sink.Write(b) // its troubles are its own: Spec.Output
		o.mu.Lock()
		o.spare = b
		o.mu.Unlock()
	}
}

// end waits a bounded time for the rest of the output and gives the last lines.
func (o *output) end() ([]string, int64) {
	if o.r == nil {
		return o.fileTail(), 0
	}
	select {
	case <-o.read:
	case <-time.After(drainWait): // a process that escaped has the pipe
	}
	o.r.Close() // ends the Read, as a pipe is a file that the runtime polls
	<-o.read
	o.mu.Lock()
	if o.gap > 0 {
		o.queue = fmt.Appendf(o.queue, "\n[provost: %d bytes are missing here: the log was too slow]\n", o.gap)
	}
	o.closed = true
	o.more.Signal()
	o.mu.Unlock()
	select {
	case <-o.written:
	case <-time.After(2 * drainWait): // the sink hangs; its goroutine ends with it
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tail.lines(), o.lost + int64(len(o.queue))
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
