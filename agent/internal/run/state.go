// SPDX-License-Identifier: Apache-2.0

package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"provost/agent/internal/proc"
	"provost/proto"
)

// State is what a run does at this moment, for heartbeats and for whoever looks after it.
type State struct {
	PID        int         `json:"pid"`
	Phase      proto.Phase `json:"phase"`
	Step       string      `json:"step,omitempty"`
	Try        int         `json:"try,omitempty"`
	Waiting    bool        `json:"waiting,omitempty"`
	Progress   int         `json:"progress,omitempty"` // percent, as the step says
	Message    string      `json:"message,omitempty"`
	StepPID    int         `json:"step_pid,omitempty"`
	StepStart  uint64      `json:"step_start,omitempty"` // clock ticks after the boot
	StepCgroup string      `json:"step_cgroup,omitempty"`
	Boot       string      `json:"boot"`           // kernel boot id
	Done       bool        `json:"done,omitempty"` // the run has ended by itself

	// Alive: the process lives. Neither Done nor Alive: it died.
	Alive bool `json:"-"`
}

// A reader that comes into a write sees a checksum that does not match, and reads again. A write takes some microseconds.
const (
	readTries = 10
	readPause = time.Millisecond
)

var errTorn = errors.New("its checksum does not match")

// ReadState gives the state of the run that goes on, or of the last one; fs.ErrNotExist if there never was one.
func ReadState(stateDir string) (State, error) {
	var s State
	err := errTorn
	for i := 0; i < readTries && errors.Is(err, errTorn); i++ {
		if i > 0 {
			time.Sleep(readPause)
		}
		var b []byte
		if b, err = os.ReadFile(filepath.Join(stateDir, "run.json")); err == nil {
			s, err = decodeState(b)
		}
	}
	if err != nil {
		return s, fmt.Errorf("reading state of the run: %w", err)
	}
	f, err := os.Open(filepath.Join(stateDir, "run.lock"))
	if err != nil {
		return s, nil
	}
	defer f.Close()
	// A shared lock, so that two who look do not take each other for a run. A run that begins in this instant finds it
	// locked and says ErrBusy; so it is held for no longer than this.
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	s.Alive = errors.Is(err, unix.EWOULDBLOCK)
	return s, nil
}

// encodeState gives what the file of a state has: a line of JSON, and one with its checksum. What comes after these is left of a
// longer state before.
func encodeState(s State) ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(b, "\n%08x\n", crc32.ChecksumIEEE(b)), nil
}

func decodeState(b []byte) (s State, err error) {
	body, rest, _ := bytes.Cut(b, []byte{'\n'})
	sum, _, whole := bytes.Cut(rest, []byte{'\n'})
	if !whole || string(sum) != fmt.Sprintf("%08x", crc32.ChecksumIEEE(body)) {
		return s, errTorn
	}
	return s, json.Unmarshal(body, &s)
}

// stateFile writes State for other processes to read, over the one before and in one write: it comes twice in each step, and a
// file of its own for each would cost as much as all that the journal does.
type stateFile struct {
	path  string
	mu    sync.Mutex
	now   State
	dirty bool          // the file does not say now
	write chan struct{} // has a token while the file is written
	file  *os.File      // who has the token; nil before the first write
}

func newStateFile(stateDir string, phase proto.Phase, boot string) *stateFile {
	f := &stateFile{path: filepath.Join(stateDir, "run.json"), now: State{PID: os.Getpid(), Phase: phase, Boot: boot}, write: make(chan struct{}, 1)}
	f.set(func(*State) {})
	return f
}

// later changes the state for the next set: that a step is over need not be seen before the next one begins. Whoever ends what
// a dead agent left looks at more than this file (proc.EndLeftover).
func (f *stateFile) later(change func(*State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.now)
	f.dirty = true
}

// flush writes what later changed, and waits for the disk without a bound: it is for who has one.
func (f *stateFile) flush() {
	select {
	case f.write <- struct{}{}:
		defer func() { <-f.write }()
	default: // the last write hangs
		return
	}
	f.mu.Lock()
	b, err := encodeState(f.now)
	dirty := f.dirty
	f.dirty = false
	f.mu.Unlock()
	if dirty && err == nil {
		f.replace(b)
	}
}

// stateWait bounds the wait for the disk of the state directory, as the journal's is.
const stateWait = 30 * time.Second

// set changes the state.
func (f *stateFile) set(change func(*State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.now)
	f.put(f.now)
}

// put writes a state. A disk that takes it not, or does not answer, is no reason to stop: others then see an older state.
func (f *stateFile) put(s State) {
	f.dirty = false
	b, err := encodeState(s)
	if err != nil {
		return
	}
	select {
	case f.write <- struct{}{}:
	default: // the last write hangs
		return
	}
	proc.Within(stateWait, func() {
		f.replace(b)
		<-f.write
	})
}

// replace writes the file, which is another one when a process before had one here, or somebody has removed ours.
func (f *stateFile) replace(b []byte) {
	var st unix.Stat_t
	if f.file != nil && unix.Fstat(int(f.file.Fd()), &st) == nil && st.Nlink > 0 {
		if _, err := f.file.WriteAt(b, 0); err == nil {
			return
		}
	}
	f.close()
	if replaceFile(f.path, b, 0o600) == nil {
		f.file, _ = os.OpenFile(f.path, os.O_WRONLY, 0) // without it the next one is a new file, too
	}
}

func (f *stateFile) close() {
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
}

// done says that the run has ended by itself, and closes the file unless its disk does not answer.
func (f *stateFile) done() {
	f.set(func(s *State) { s.Done, s.Waiting = true, false })
	select {
	case f.write <- struct{}{}:
		f.close()
		<-f.write
	default:
	}
}
