// SPDX-License-Identifier: Apache-2.0

package run

import (
	"encoding/json"
	"errors"
	"fmt"
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

// ReadState gives the state of the run that goes on, or of the last one; fs.ErrNotExist if there never was one.
func ReadState(stateDir string) (State, error) {
	var s State
	b, err := os.ReadFile(filepath.Join(stateDir, "run.json"))
	if err != nil {
		return s, fmt.Errorf("reading state of the run: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
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

// stateFile writes State for other processes to read.
type stateFile struct {
	path  string
	mu    sync.Mutex
	now   State
	write chan struct{} // has a token while the file is written
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
}

// stateWait bounds the wait for the disk of the state directory, as the journal's is.
const stateWait = 30 * time.Second

// set changes the state. A disk that takes it not, or does not answer, is no reason to stop: others then see an older state.
func (f *stateFile) set(change func(*State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.now)
	b, err := json.Marshal(f.now)
	if err != nil {
		return
	}
	select {
	case f.write <- struct{}{}:
	default: // the last write hangs
		return
	}
	proc.Within(stateWait, func() {
		replaceFile(f.path, b, 0o600)
		<-f.write
	})
}

func (f *stateFile) done() { f.set(func(s *State) { s.Done, s.Waiting = true, false }) }
