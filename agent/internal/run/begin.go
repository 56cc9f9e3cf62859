// SPDX-License-Identifier: Apache-2.0

package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"provost/agent/internal/proc"
)

// found is what a run finds in its state directory.
type found struct {
	unlock  func()
	history *history
	was     *State // of the run before; nil if that says nothing
	err     error
}

// begin takes the run's lock and reads what was before, and waits for the state directory's disk at most d.diskWait. If that answers
// later, the lock is let go.
func begin(d Deps) (found, error) {
	got := make(chan found, 1)
	go func() { got <- look(d) }()
	late := time.NewTimer(d.diskWait)
	defer late.Stop()
	select {
	case f := <-got:
		return f, f.err
	case <-late.C:
	}
	go func() {
		if f := <-got; f.err == nil {
			f.unlock()
		}
	}()
	return found{}, fmt.Errorf("beginning the run: the disk of %s does not answer within %s: see the kernel's log, dmesg", d.StateDir, d.diskWait)
}

// look is begin without a bound.
func look(d Deps) (f found) {
	if f.unlock, f.err = lockRun(d.StateDir); f.err != nil {
		return f
	}
	if f.history, f.err = readHistory(d.Journal, d.Plan.Install, d.Boot, d.Progress); f.err != nil {
		f.unlock()
		f.err = fmt.Errorf("reading what ran before: %w", f.err)
		return f
	}
	if was, err := ReadState(d.StateDir); err == nil {
		f.was = &was
	}
	if orders := filepath.Join(d.StateDir, "orders"); os.MkdirAll(orders, 0o700) == nil {
		keepSlot(orders)
	}
	return f
}

// lockTries and lockPause: ReadState holds the lock for an instant, so it is asked for again for half a second.
const (
	lockTries = 50
	lockPause = 10 * time.Millisecond
)

// lockRun takes the lock of the one run that may go on. It ends with the process.
func lockRun(stateDir string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(stateDir, "run.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the run: %w", err)
	}
	for range lockTries {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return func() { f.Close() }, nil
		}
		time.Sleep(lockPause)
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrBusy
	}
	return nil, fmt.Errorf("locking the run: %w", err)
}

// endLeftover ends what a run that died left running: a step may not run twice at once.
func (r *runner) endLeftover(was *State) {
	if was == nil || was.Done || was.StepPID == 0 || was.Boot != r.d.Boot {
		return
	}
	if left := proc.EndLeftover(was.StepCgroup, was.StepPID, was.StepStart, r.d.Processes, r.d.ProcessArgs, r.secrets); len(left) > 0 {
		r.note(was.Step, fmt.Sprintf("step %s still ran though its agent had died; it was ended: %v", was.Step, left), true)
	}
}
