// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"provost/proto"
)

// errWaits is what becomes of a record that finds the disk hung.
var errWaits = fmt.Errorf("%w; the record waits in memory", ErrHung)

// attempt does f, which uses the journal's disk and locks Journal.mu if it needs that, and waits for it at most diskWait. Then, and
// at once while an earlier f is still at it, it gives ErrHung, and what f changes must be read by nobody; the record e, if f is to
// write one, is not forgotten.
func attempt(j *Journal, e *proto.Event, f func() error) error {
	if err := j.late.enter(e); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		err := f()
		j.drain()
		done <- err
	}()
	limit := time.NewTimer(diskWait)
	defer limit.Stop()
	select {
	case err := <-done:
		return err
	case <-limit.C: // the goroutine has the record, and writes it if the disk ever answers
	}
	fresh, running := j.late.hang()
	if !running { // it has just done so
		return <-done
	}
	if fresh {
		j.opts.Warn("the disk of " + j.dir + " does not answer: steps go on, records wait in memory")
	}
	if e == nil {
		return ErrHung
	}
	return errWaits
}

// drain writes the records that came while the disk did not answer.
func (j *Journal) drain() {
	for {
		records := j.late.take()
		if len(records) == 0 {
			return
		}
		j.mu.Lock()
		for _, e := range records {
			if _, err := j.commitLocked(&e); err != nil && !errors.Is(err, ErrBudget) {
				j.opts.Warn(err.Error())
			}
		}
		j.mu.Unlock()
	}
}

// late is what came while the disk did not answer. It has a lock of its own, since Journal.mu is held by whoever waits for
// the disk.
type late struct {
	mu      sync.Mutex
	running int // attempts that have begun and are not over
	hung    bool
	records []proto.Event
	dropped int // of them and of Journal.pending
}

// enter counts an attempt that begins. While the disk does not answer it keeps the record instead, if there is one, at most
// maxPending of them, and says so.
func (l *late) enter(e *proto.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.hung:
		l.running++
		return nil
	case e == nil:
		return ErrHung
	case len(l.records) < maxPending:
		l.records = append(l.records, *e)
		return errWaits
	}
	l.dropped++
	return fmt.Errorf("%w; %d records wait in memory already: this one is lost", ErrHung, maxPending)
}

// drop counts a record that is lost; forgive gives their number, of which a note is about to tell.
func (l *late) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped++
}

func (l *late) forgive() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.dropped
	l.dropped = 0
	return n
}

// hang says that an attempt takes too long. It reports whether that is new, and whether one is still running.
func (l *late) hang() (fresh, running bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running == 0 {
		return false, false
	}
	fresh = !l.hung
	l.hung = true
	return fresh, true
}

// take gives what has come meanwhile. When that is nothing, the attempt is over and the disk answers.
func (l *late) take() []proto.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.records
	l.records = nil
	if len(out) == 0 {
		l.hung = false
		l.running--
	}
	return out
}

func (l *late) hanging() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hung
}

// lost gives how many records are in memory only, or nowhere.
func (l *late) lost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.records) + l.dropped
}
