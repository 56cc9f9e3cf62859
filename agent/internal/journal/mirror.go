// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"provost/proto"
)

const (
	// mirrorWait bounds what an Append waits for the mirror. A target that does not answer for that long is not waited
	// for again until it has answered.
	mirrorWait = 5 * time.Second
	// mirrorChunk is what is read and written at once.
	mirrorChunk = 256 << 10
)

// target says where the mirror is; it is the file <state>/target.
type target struct {
	Root    string `json:"root"`
	Install string `json:"install"`
}

const (
	targetState = "var/lib/provost"
	targetLogs  = "var/log/provost"
)

func (t target) logs() string { return filepath.Join(targetLogs, t.Install) }

// mirror copies journal and logs to the target, in a goroutine of its own, since a dying disk may hold a write for
// ever. It opens, appends, syncs and closes, and holds nothing of the target between two passes, so that the installer can
// unmount it. What is missing there is found by comparing sizes: whatever went wrong before, the next pass heals it.
type mirror struct {
	j    *Journal
	kick chan struct{}
	quit chan struct{}

	mu      sync.Mutex
	started bool
	closed  bool
	done    chan struct{} // the goroutine has ended
	asked   uint64        // passes asked for
	passed  uint64        // the last asked-for pass that is over
	over    chan struct{} // closed and replaced when a pass is over
	slow    bool          // a pass took longer than mirrorWait and is not over
	broken  error         // how the last pass failed
}

func newMirror(j *Journal) *mirror {
	return &mirror{j: j, kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}), over: make(chan struct{})}
}

// SetMirror makes root, a mounted file system that will be the installed system's, the place of the mirror: journal and
// logs are copied to root/var/lib/provost/journal and root/var/log/provost/INSTALL, now and with each further record, by
// this and by every other process that has the journal open, also later ones. An empty root ends it.
//
// Only SetMirror makes directories: when the target is unmounted later, nothing is written into its mount point. The
// error says why the target cannot be written now; the mirror stays set, and is tried again with each record.
func (j *Journal) SetMirror(root, install string) error {
	path := filepath.Join(j.dir, "target")
	if root == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("ending the mirror: %w", err)
		}
		return nil
	}
	if !filepath.IsAbs(root) || proto.CheckName("install", install) != nil {
		return fmt.Errorf("setting the mirror: root %q is no absolute path, or install %q no id", root, install)
	}
	t := target{filepath.Clean(root), install}
	if t.Root == "/" || filepath.Join(t.Root, targetState) == filepath.Clean(j.dir) {
		return fmt.Errorf("setting the mirror: root %s is the running system, whose own journal is there", root)
	}
	b, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("setting the mirror: %w", err)
	}
	if err := attempt(j, nil, func() error { return writeFile(path, append(b, '\n'), 0o600) }); err != nil {
		return fmt.Errorf("setting the mirror: %w", err)
	}
	// The two calls below may hang with the target's disk, so they have the goroutine's bound.
	result := make(chan error, 1)
	go func() { result <- t.prepare(j.id) }()
	select {
	case err = <-result:
	case <-time.After(mirrorWait):
		err = fmt.Errorf("%s does not answer", root)
	}
	if err == nil {
		err = j.mirror.push(mirrorWait)
	}
	if err != nil {
		return fmt.Errorf("mirroring to %s: %w", root, err)
	}
	return nil
}

// Mirror is the root of the mirror, "" while there is none.
func (j *Journal) Mirror() string {
	t, err := j.readTarget()
	if err != nil {
		return ""
	}
	return t.Root
}

// prepare makes the target's directories. A journal of another id in the place of the mirror, of an earlier attempt on a
// disk that was not formatted, is put aside.
func (t target) prepare(id string) error {
	logs, err := OpenBelow(t.Root, t.logs(), true)
	if err != nil {
		return err
	}
	logs.Close()
	state, err := OpenBelow(t.Root, targetState, true)
	if err != nil {
		return err
	}
	defer state.Close()
	return Named(prepareJournal(Through(state), id), state)
}

func prepareJournal(state, id string) error {
	if err := os.Chmod(state, 0o700); err != nil {
		return err
	}
	dir := filepath.Join(state, "journal")
	if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
		return fmt.Errorf("%s is no directory: remove it", dir)
	}
	segs, err := segments(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if was, err := identity(segs); err != nil || was != id && len(segs) > 0 {
		if err := os.Rename(dir, filepath.Join(state, fmt.Sprintf("journal.old-%s-%d", was, time.Now().Unix()))); err != nil {
			return err
		}
	}
	// Past journals are those of a system that was here before: the one that is installed now must not deliver them as its own.
	past, err := filepath.Glob(filepath.Join(state, "journal.*"))
	if err != nil {
		return err
	}
	for _, p := range past {
		if was := strings.TrimPrefix(filepath.Base(p), "journal."); proto.ValidJournal(was) {
			if err := os.Rename(p, filepath.Join(state, fmt.Sprintf("journal.old-%s-%d", was, time.Now().Unix()))); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, replicaName), []byte("These are copies of journal "+id+". It may have more records.\n"), 0o600); err != nil {
		return err
	}
	return syncDir(state)
}

// readTarget gives the mirror's place, or an empty Root.
func (j *Journal) readTarget() (target, error) {
	var t target
	b, err := os.ReadFile(filepath.Join(j.dir, "target"))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return target{}, fmt.Errorf("reading the mirror's place: %w", err)
	}
	return t, nil
}

// push asks for a pass and waits for its end at most wait; 0 does not wait. It gives that pass's error.
func (m *mirror) push(wait time.Duration) error {
	if t, err := m.j.readTarget(); err != nil || t.Root == "" {
		return err
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	if !m.started {
		m.started = true
		go m.loop()
	}
	m.asked++
	mine := m.asked
	slow := m.slow
	m.mu.Unlock()
	select {
	case m.kick <- struct{}{}:
	default:
	}
	if wait == 0 || slow {
		return nil
	}
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		m.mu.Lock()
		over, passed, err := m.over, m.passed, m.broken
		m.mu.Unlock()
		if passed >= mine {
			return err
		}
		select {
		case <-over:
		case <-timeout.C:
			err := fmt.Errorf("the target has not answered for %s", wait)
			m.mu.Lock()
			was := m.broken
			m.slow, m.broken = true, err
			m.mu.Unlock()
			m.tell(was, err)
			return err
		}
	}
}

// loop makes the passes. Passes asked for during one are made in one.
func (m *mirror) loop() {
	defer close(m.done)
	for {
		quit := false
		select {
		case <-m.quit:
			quit = true
		case <-m.kick:
		}
		m.mu.Lock()
		asked, due := m.asked, m.asked > m.passed
		m.mu.Unlock()
		if due {
			err := m.pass()
			m.mu.Lock()
			was := m.broken
			m.passed, m.slow, m.broken = asked, false, err
			close(m.over)
			m.over = make(chan struct{})
			m.mu.Unlock()
			m.tell(was, err)
		}
		if quit {
			return
		}
	}
}

// tell says the first of a row of failures, and their end.
func (m *mirror) tell(was, err error) {
	switch {
	case err != nil && was == nil:
		m.j.opts.Warn("the mirror on the target cannot be written: " + err.Error() + "; the install goes on")
		// An installer that is done unmounts the target: that is no reason for a warning.
		m.j.append(proto.Event{Kind: proto.KindNote, Warning: !errors.Is(err, fs.ErrNotExist), Message: "the mirror on the target cannot be written: " + err.Error()})
	case err == nil && was != nil:
		m.j.opts.Warn("the mirror on the target is complete again")
		m.j.append(proto.Event{Kind: proto.KindNote, Message: "the mirror on the target is complete again"})
		m.push(0)
	}
}

// pass copies what is missing. One process at a time does it.
func (m *mirror) pass() error {
	t, err := m.j.readTarget()
	if err != nil || t.Root == "" {
		return err
	}
	unlock, err := lock(m.j.path("mirror.lock"), mirrorWait)
	if err != nil {
		return err
	}
	defer unlock()
	segs, err := segments(m.j.path())
	if err != nil {
		return err
	}
	var names []string
	for _, s := range segs {
		names = append(names, filepath.Base(s.path))
	}
	if err := m.copyTo(t.Root, filepath.Join(targetState, "journal"), m.j.path(), names, true); err != nil {
		return err
	}
	names = nil
	for _, l := range m.j.Logs() {
		names = append(names, l.Name)
	}
	return m.copyTo(t.Root, t.logs(), m.j.opts.LogDir, names, false)
}

// copyTo brings the directory to of the target up to date with files of the directory from.
func (m *mirror) copyTo(root, to, from string, names []string, whole bool) error {
	dir, err := OpenBelow(root, to, false)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, n := range names {
		if err := catchUp(filepath.Join(from, n), filepath.Join(Through(dir), n), whole); err != nil {
			return Named(err, dir)
		}
	}
	return nil
}

// catchUp appends to the file dst what src has more. Of a segment only whole lines are copied: what a killed writer left
// half written is cut off in src later. A dst that is no copy of src, left by an earlier attempt, is put aside.
func catchUp(src, dst string, whole bool) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	var have int64
	if was, err := os.Lstat(dst); err == nil && !was.Mode().IsRegular() { // a link would lead who knows where
		if err := putAsideFile(dst); err != nil {
			return err
		}
	} else if err == nil {
		have = was.Size()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if have > 0 {
		same, err := sameStart(in, dst, min(have, 64))
		if err != nil {
			return err
		}
		if !same || have > info.Size() {
			if err := putAsideFile(dst); err != nil {
				return err
			}
			have = 0
		}
	}
	if have == info.Size() {
		return nil
	}
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = appendFrom(out, in, have, info.Size(), whole)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if have == 0 {
		return syncDir(filepath.Dir(dst))
	}
	return nil
}

func putAsideFile(path string) error {
	return os.Rename(path, fmt.Sprintf("%s.old-%d", path, time.Now().UnixNano()))
}

func appendFrom(out io.Writer, in io.ReaderAt, from, to int64, whole bool) error {
	buf := make([]byte, mirrorChunk)
	for from < to {
		n, err := in.ReadAt(buf[:min(int64(len(buf)), to-from)], from)
		if err != nil && !(errors.Is(err, io.EOF) && n > 0) {
			if errors.Is(err, io.EOF) {
				return nil // a torn tail was cut off under us
			}
			return err
		}
		b := buf[:n]
		if whole && from+int64(n) == to {
			b = b[:bytes.LastIndexByte(b, '\n')+1]
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
		if len(b) < n {
			return nil
		}
		from += int64(n)
	}
	return nil
}

func sameStart(in io.ReaderAt, path string, n int64) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	a, b := make([]byte, n), make([]byte, n)
	if _, err := in.ReadAt(a, 0); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if _, err := io.ReadFull(f, b); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	return bytes.Equal(a, b), nil
}

// close lets a running pass end, at most for mirrorWait.
func (m *mirror) close() {
	m.mu.Lock()
	if m.closed || !m.started {
		m.closed = true
		m.mu.Unlock()
		return
	}
	m.closed = true
	m.mu.Unlock()
	close(m.quit)
	select {
	case <-m.done:
	case <-time.After(mirrorWait):
	}
}
