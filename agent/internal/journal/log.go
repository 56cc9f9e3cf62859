// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"provost/proto"
)

const (
	// logHead is how long a log grows while it is written, logTail what is kept of the rest: a step that prints in a loop
	// has its beginning and its end on record.
	logHead = 16 << 20
	logTail = 1 << 20
	// logFloor is what a log may have even when the budget is used up.
	logFloor = 64 << 10
	// logPush is the least time between two passes of the mirror that a log asks for.
	logPush = 500 * time.Millisecond
	// logSync is how soon the log of a step that is over is synced.
	logSync = time.Second
	// usedFor is how long the size of all logs is believed. In that time other processes can write some MB more than their share.
	usedFor = 10 * time.Second
)

// LogWriter appends to one log. Its file only ever grows, so that it can be shipped by offset. When it reaches its cap,
// the following bytes go to a ring in memory; Close appends a line that says how many are missing, and the ring. A kill -9
// loses the ring, and only that.
//
// Write never fails and never waits for the mirror: bytes that no disk takes are counted, and the next line that can be
// written says how many are missing.
type LogWriter struct {
	j    *Journal
	name string

	mu     sync.Mutex
	f      *os.File
	room   int64 // until the cap
	wrote  int64 // bytes
	lost   int64 // bytes that could not be written since the last that could
	broken bool
	ring   []byte
	cut    int64 // bytes beyond the cap
	pushed time.Time
	closed bool
}

// Log opens the log name for appending, and makes it. The name is a file's name as proto.CheckName takes it and ends in
// ".log". One process at a time writes a log.
func (j *Journal) Log(name string) (*LogWriter, error) {
	f, err := j.LogFile(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening log: %w", err)
	}
	room := min(logHead-info.Size(), j.opts.MaxBytes*3/4-j.logsUsed())
	return &LogWriter{j: j, name: name, f: f, room: max(room, logFloor), pushed: time.Now()}, nil
}

// logsUsed gives the size of all logs, at most usedFor old: to look at each takes longer with every step.
func (j *Journal) logsUsed() int64 {
	j.logs.mu.Lock()
	defer j.logs.mu.Unlock()
	if time.Since(j.logs.looked) >= usedFor {
		j.logs.looked, j.logs.used = time.Now(), 0
		for _, l := range j.Logs() {
			j.logs.used += l.Size
		}
	}
	return j.logs.used
}

// logs is what is known of the logs together.
type logs struct {
	mu      sync.Mutex
	used    int64 // bytes
	looked  time.Time
	unsaved map[string]bool // closed, and maybe not yet on disk
	timer   *time.Timer
}

// saveSoon has a closed log synced within logSync.
func (j *Journal) saveSoon(name string) {
	j.logs.mu.Lock()
	defer j.logs.mu.Unlock()
	if j.logs.unsaved == nil {
		j.logs.unsaved = map[string]bool{}
	}
	if len(j.logs.unsaved) == 0 {
		j.logs.timer = time.AfterFunc(logSync, j.syncLogs)
	}
	j.logs.unsaved[name] = true
}

// syncLogs syncs the logs that were closed since the last time. It may hang with the disk.
func (j *Journal) syncLogs() {
	j.logs.mu.Lock()
	names := j.logs.unsaved
	j.logs.unsaved = nil
	if j.logs.timer != nil {
		j.logs.timer.Stop()
	}
	j.logs.mu.Unlock()
	for name := range names {
		f, err := os.Open(filepath.Join(j.opts.LogDir, name))
		if err != nil {
			continue // removed: nothing is left to be saved
		}
		if err := f.Sync(); err != nil {
			j.opts.Warn("syncing log " + name + ": " + err.Error())
		}
		f.Close()
	}
}

// LogFile opens the log name for a writer that outlives this process. Nothing bounds what that one writes.
func (j *Journal) LogFile(name string) (*os.File, error) {
	if err := checkLog(name); err != nil {
		return nil, err
	}
	f, err := OpenPlain(filepath.Join(j.opts.LogDir, name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening log: %w", err)
	}
	return f, nil
}

// OpenPlain is os.OpenFile for what is a regular file. That one asks the kernel whether the file can be polled, with five system
// calls, for each of the files of each step.
func OpenPlain(path string, flags int, mode fs.FileMode) (*os.File, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, uint32(mode.Perm()))
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case !errors.Is(err, unix.EINTR):
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

func checkLog(name string) error {
	if !strings.HasSuffix(name, ".log") {
		return fmt.Errorf("log %q: its name must end in .log", name)
	}
	return proto.CheckName("log", name)
}

// Write appends p. It always says that it wrote all of it.
func (w *LogWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return len(p), nil
	}
	head := p[:min(int64(len(p)), max(w.room, 0))]
	w.put(head)
	w.room -= int64(len(head))
	if rest := p[len(head):]; len(rest) > 0 {
		if w.cut == 0 {
			w.put([]byte("\n[provost: this log has reached its size; of what follows the end is kept]\n"))
		}
		w.cut += int64(len(rest))
		w.ring = append(w.ring, rest...)
		if len(w.ring) > 2*logTail {
			w.ring = append(w.ring[:0], w.ring[len(w.ring)-logTail:]...)
		}
	}
	if now := time.Now(); now.Sub(w.pushed) >= logPush {
		w.pushed = now
		w.j.mirror.push(0)
	}
	return len(p), nil
}

// put writes to the file, with a word on what could not be written before.
func (w *LogWriter) put(p []byte) {
	if len(p) == 0 {
		return
	}
	if w.lost > 0 {
		gap := fmt.Sprintf("\n[provost: %d bytes are missing here: the disk took none]\n", w.lost)
		if _, err := w.f.WriteString(gap); err != nil { // part of it may stand there: a log is never shortened
			w.lost += int64(len(p))
			return
		}
		w.lost, w.broken = 0, false
	}
	n, err := w.f.Write(p)
	w.wrote += int64(n)
	if err == nil {
		return
	}
	w.lost += int64(len(p) - n)
	if !w.broken {
		w.broken = true
		w.j.opts.Warn("writing log " + w.name + ": " + err.Error() + "; the step goes on")
		w.j.append(proto.Event{Kind: proto.KindNote, Warning: true, Log: w.name, Message: "the log " + w.name + " cannot be written: " + err.Error()})
	}
}

// Close appends what the ring has. What it wrote is on disk within logSync, and at the latest when the journal is closed, or
// before ReadLog gives it to anybody: a step's start and end do not wait for that. It waits for no mirror.
func (w *LogWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	if w.cut > 0 {
		tail := w.ring[max(0, len(w.ring)-logTail):]
		w.put(fmt.Appendf(nil, "\n[provost: %d bytes are missing here; the end follows]\n", w.cut-int64(len(tail))))
		w.put(tail)
		w.ring = nil
	}
	err := w.f.Close()
	w.j.logs.mu.Lock()
	w.j.logs.used += w.wrote
	w.j.logs.mu.Unlock()
	w.j.saveSoon(w.name)
	w.j.mirror.push(0)
	if err != nil {
		return fmt.Errorf("closing log %s: %w", w.name, err)
	}
	return nil
}

// ReadLog gives at most max bytes of a log from offset on, none at its end. They are on disk. It waits for the disk at most diskWait.
func (j *Journal) ReadLog(name string, offset int64, max int) ([]byte, error) {
	var b []byte
	err := attempt(j, nil, func() (err error) {
		b, err = j.readLog(name, offset, max)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (j *Journal) readLog(name string, offset int64, max int) ([]byte, error) {
	if err := checkLog(name); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(j.opts.LogDir, name))
	if err != nil {
		return nil, fmt.Errorf("reading log: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, offset, int64(max)))
	if err == nil && len(b) > 0 {
		err = f.Sync()
	}
	if err != nil {
		return nil, fmt.Errorf("reading log %s: %w", name, err)
	}
	return b, nil
}

// Logs lists the logs with their sizes, by name. One that vanishes meanwhile is left out. It waits for the disk at most diskWait,
// and is empty while that does not answer.
func (j *Journal) Logs() []proto.LogInfo {
	var list []proto.LogInfo
	if attempt(j, nil, func() error { list = j.listLogs(); return nil }) != nil {
		return nil
	}
	return list
}

func (j *Journal) listLogs() []proto.LogInfo {
	entries, err := os.ReadDir(j.opts.LogDir)
	if err != nil {
		return nil
	}
	var out []proto.LogInfo
	for _, e := range entries {
		if !e.Type().IsRegular() || checkLog(e.Name()) != nil {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err != nil {
			continue
		}
		out = append(out, proto.LogInfo{Name: e.Name(), Size: info.Size()})
	}
	return out
}
