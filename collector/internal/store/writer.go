// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// group is the calls of one commit.
type group struct {
	calls []*call
	done  chan struct{} // closed once for all, when the commit is decided
	err   error         // of the commit: every call's, whatever its function said
}

// call is one Update.
type call struct {
	fn    func(*Tx) error
	state atomic.Int32
	err   error // of fn
}

// A call is taken by the writer or given up by its caller, never both.
const (
	callWaits int32 = iota
	callTaken
	callGivenUp
)

// Update runs fn in the writer, alone, and returns when what it wrote is on the disk. If fn returns an error, nothing
// of it is kept and Update returns that error. Functions of one group see what those before them wrote, so an error
// that rests on it is returned only after the commit as well.
//
// The errors are fn's own, ErrBusy, ErrStorage, ErrClosed, ErrPanic, or ctx's. A ctx that ends before fn was begun is
// its end; after that Update waits for the disk.
func (s *Store) Update(ctx context.Context, fn func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &call{fn: fn}
	g, err := s.enqueue(c)
	if err != nil {
		return err
	}
	select {
	case <-g.done:
	case <-ctx.Done():
		if c.state.CompareAndSwap(callWaits, callGivenUp) {
			return ctx.Err()
		}
		<-g.done // bounded by one commit: the writer is in the middle of it
	}
	if g.err != nil {
		return g.err
	}
	return c.err
}

func (s *Store) enqueue(c *call) (*group, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, ErrClosed
	}
	if s.waiting >= s.opt.Queue {
		return nil, fmt.Errorf("%w: %d requests wait for the disk", ErrBusy, s.waiting)
	}
	n := len(s.groups)
	if n == 0 || len(s.groups[n-1].calls) >= s.opt.Group {
		s.groups = append(s.groups, &group{done: make(chan struct{}), calls: make([]*call, 0, s.usual)})
		n++
	}
	g := s.groups[n-1]
	g.calls = append(g.calls, c)
	if s.waiting++; s.waiting == 1 { // the writer sees to the others itself
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return g, nil
}

// gather lets callers that are about to call join the group: those that the last commit released come back one after the
// other, and each commit costs two flushes, for however many. It ends when a turn of the other goroutines brings nobody.
func (s *Store) gather() {
	const turns = 8 // some microseconds each
	before := -1
	for range turns {
		s.mu.Lock()
		n := s.waiting
		s.mu.Unlock()
		if n == before || n >= s.opt.Group {
			return
		}
		before = n
		runtime.Gosched()
	}
}

// take removes the oldest group that waits.
func (s *Store) take() *group {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.groups) == 0 {
		return nil
	}
	g := s.groups[0]
	s.groups = s.groups[1:]
	s.waiting -= len(g.calls)
	s.usual = min(len(g.calls)+len(g.calls)/8+1, s.opt.Group)
	return g
}

// bufMost bounds the bytes that stay for pieces between two commits.
const bufMost = 8 << 20

// write is the writer: the only goroutine that runs calls and commits.
func (s *Store) write() {
	defer close(s.stopped)
	var again retry
	for ending := false; ; {
		if !ending {
			select {
			case <-s.wake:
			case <-again.at:
				again.at = nil
				s.tryAgain()
			case <-s.quit:
				ending = true
			}
		}
		s.gather()
		for g := s.take(); g != nil; g = s.take() {
			s.commit(g)
			close(g.done)
			s.opt.Point(pointReleased)
			s.gather()
		}
		again.plan(s)
		if ending {
			return
		}
	}
}

var (
	errNothing = errors.New("nothing to commit")
	errMerge   = errors.New("filling the transaction")
	errEngine  = errors.New("the database engine panicked")
)

// commit runs the calls of a group and writes what those wrote that returned nil.
func (s *Store) commit(g *group) {
	if err := s.Err(); err != nil {
		g.err = err
		return
	}
	log := &events{before: s.feed.revision(), entries: make([]Entry, 0, s.entries)}
	first := uint64(0) // the oldest event after the last trim; 0 without one
	good := false      // a function returned nil: memory may have been changed
	var commit uint64  // bbolt's number of this one
	begin := time.Now()
	err := s.transaction(func(btx *bolt.Tx) error {
		commit = uint64(btx.ID())
		wrote, size := false, 0
		tx := new(Tx) // for one call after the other: it dies with its function
		for _, c := range g.calls {
			if !c.state.CompareAndSwap(callWaits, callTaken) {
				continue
			}
			*tx = Tx{Reader: Reader{tx: btx}, log: log, mark: len(log.entries)}
			if c.err = s.run(c.fn, tx); c.err != nil {
				log.entries = log.entries[:tx.mark]
				continue
			}
			good = true
			if !tx.wrote() {
				continue
			}
			wrote = true
			s.opt.Point(pointRun)
			if err := tx.merge(s.opt.Point); err != nil {
				return fmt.Errorf("%w: %w", errMerge, err)
			}
			if s.full {
				size += tx.size()
			}
			s.copied.note(tx)
			first = max(first, tx.first)
		}
		if !wrote {
			return errNothing
		}
		if s.full {
			if err := roomFor(s.path, size); err != nil {
				return err
			}
		}
		s.opt.Point(pointMerged)
		var err error
		if s.buf, err = putEvents(btx.Bucket(eventsBucket), log.entries, s.buf); err != nil {
			return fmt.Errorf("%w: %w", errMerge, err)
		}
		s.opt.Point(pointFilled)
		return nil
	})
	entries := log.entries
	s.entries = len(entries) + len(entries)/8
	if cap(s.buf) > bufMost {
		s.buf = nil
	}
	if errors.Is(err, errNothing) {
		return
	}
	if err != nil {
		s.stats.failed.Add(1)
		s.full = couldNotGrow(err)
		g.err = fmt.Errorf("%w: writing %s: %w", ErrStorage, s.path, err)
		if s.full {
			g.err = fmt.Errorf("%w: %w", ErrFull, g.err)
		}
		s.refused.Store(&g.err)
		s.lose(err, good)
		return
	}
	s.opt.Point(pointCommitted)
	s.tx, s.full = commit, false
	s.refused.Store(nil)
	s.stats.committed(time.Since(begin), len(entries), begin)
	s.feed.trimmed(first)
	if s.hooks.Committed != nil { // before the watchers, who look at what it makes of the events
		s.hooks.Committed(entries)
	}
	s.feed.publish(entries)
	s.opt.Point(pointTold)
}

// transaction is bbolt's Update with its panics as errors.
func (s *Store) transaction(fn func(*bolt.Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.opt.Log.Error("the database engine panicked", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", errEngine, p)
		}
	}()
	return s.db.Load().Update(fn)
}

// run calls fn. What it panics with is its caller's error and touches nobody else.
func (s *Store) run(fn func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.opt.Log.Error("a function panicked in the store", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", ErrPanic, p)
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if tx.err != nil {
		return tx.err
	}
	return tx.plan()
}

// lose deals with a commit that did not happen.
//
// When there was no room for it (no space, quota, limit) the file is as it was, and the next commit may work. So it is after an
// error of our own before the engine's commit. After anything else, above all a failing fdatasync, the kernel may have dropped
// pages that it still shows us: nothing that is built on them can be trusted, and the store takes nothing more until it is
// opened again (recover.go).
func (s *Store) lose(cause error, changed bool) {
	if !couldNotGrow(cause) && !errors.Is(cause, errMerge) {
		err := fmt.Errorf("%w: %s: %w: look at the disk; the database is opened again by itself, within 30 s of its recovery", ErrStorage, s.path, cause)
		s.broken.Store(&err)
		s.opt.Log.Error("database takes nothing until it could be opened again", "path", s.path, "cause", cause)
	}
	if changed && s.hooks.Lost != nil {
		s.hooks.Lost()
	}
}

// couldNotGrow reports whether a commit failed for want of room, before anything of it counted. bbolt gives a write's error as
// it is, that of fdatasync as a bare errno. The file is made longer by the writes alone (boltOptions).
func couldNotGrow(err error) bool {
	if errors.Is(err, errNoRoom) {
		return true
	}
	var pe *fs.PathError
	if !errors.As(err, &pe) || pe.Op != "write" {
		return false
	}
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// errNoRoom: it is known before the commit that it cannot succeed.
var errNoRoom = errors.New("no room")

// roomFor looks for room on a disk that was full, for a commit of size bytes with the pages that it changes. bbolt looks at the
// whole file after a commit that failed; this spares it that, again and again, on a disk that is still full.
func roomFor(path string, size int) error {
	free, _, err := Space(filepath.Dir(path))
	if err != nil {
		return nil // the commit will tell
	}
	if want := uint64(2*size) + 64<<10; free < want {
		return fmt.Errorf("%w: %d bytes are free, %d are needed", errNoRoom, free, want)
	}
	return nil
}
