// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
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
		s.groups = append(s.groups, &group{done: make(chan struct{})})
		n++
	}
	g := s.groups[n-1]
	g.calls = append(g.calls, c)
	s.waiting++
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return g, nil
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
	return g
}

// write is the writer: the only goroutine that runs calls and commits.
func (s *Store) write() {
	defer close(s.stopped)
	for ending := false; ; {
		if !ending {
			select {
			case <-s.wake:
			case <-s.quit:
				ending = true
			}
		}
		runtime.Gosched() // let those that are about to call join this group
		g := s.take()
		for ; g != nil; g = s.take() {
			s.commit(g)
			close(g.done)
		}
		if ending {
			return
		}
	}
}

var (
	errNothing = errors.New("nothing to commit")
	errEngine  = errors.New("the database engine panicked")
)

// commit runs the calls of a group and writes what those wrote that returned nil.
func (s *Store) commit(g *group) {
	if err := s.Err(); err != nil {
		g.err = err
		return
	}
	before := s.feed.revision()
	var entries []Entry
	var written []*Tx
	good := false // a function returned nil: memory may have been changed
	begin := time.Now()
	err := s.transaction(func(btx *bolt.Tx) error {
		revision, wrote := before, false
		for _, c := range g.calls {
			if !c.state.CompareAndSwap(callWaits, callTaken) {
				continue
			}
			tx := &Tx{Reader: Reader{tx: btx}, base: revision}
			if c.err = s.run(c.fn, tx); c.err != nil {
				continue
			}
			good = true
			if !tx.wrote() {
				continue
			}
			wrote = true
			if err := tx.merge(); err != nil {
				return err
			}
			s.copied.note(tx)
			written = append(written, tx)
			for i, v := range tx.events {
				entries = append(entries, Entry{revision + uint64(i) + 1, v})
			}
			revision += uint64(len(tx.events))
		}
		if !wrote {
			return errNothing
		}
		return nil
	})
	if errors.Is(err, errNothing) {
		return
	}
	if err != nil {
		s.stats.failed.Add(1)
		g.err = fmt.Errorf("%w: writing %s: %w", ErrStorage, s.path, err)
		if couldNotGrow(err) {
			g.err = fmt.Errorf("%w: %w", ErrFull, g.err)
		}
		s.refused.Store(&g.err)
		s.lose(err, good)
		return
	}
	s.refused.Store(nil)
	s.stats.committed(time.Since(begin), len(entries), begin)
	for _, tx := range written {
		s.feed.trimmed(tx.first)
	}
	s.feed.publish(entries)
	if s.hooks.Committed != nil {
		s.hooks.Committed(entries)
	}
}

// transaction is bbolt's Update with its panics as errors.
func (s *Store) transaction(fn func(*bolt.Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.opt.Log.Error("the database engine panicked", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", errEngine, p)
		}
	}()
	return s.db.Update(fn)
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
	return tx.err
}

// lose deals with a commit that did not happen.
//
// When the file could not grow (no space, quota, limit) it is as it was, and the next commit may work. After anything
// else, above all a failing fdatasync, the kernel may have dropped pages that it still shows us: nothing that is built
// on them can be trusted, and the store takes nothing more until it is opened again.
func (s *Store) lose(cause error, changed bool) {
	if !couldNotGrow(cause) {
		err := fmt.Errorf("%w: %s: %w: look at the disk, then restart provostd", ErrStorage, s.path, cause)
		s.broken.Store(&err)
		s.opt.Log.Error("database takes nothing more", "path", s.path, "cause", cause)
	}
	if _, last, err := s.revisions(); err == nil {
		s.feed.reset(last)
	}
	if changed && s.hooks.Lost != nil {
		s.hooks.Lost()
	}
}

// couldNotGrow reports whether a commit failed before anything of it counted. bbolt gives a write's error as it is, that
// of fdatasync as a bare errno, and what fails while the file is made longer, which is before any write, as text.
func couldNotGrow(err error) bool {
	var pe *fs.PathError
	if errors.As(err, &pe) && pe.Op == "write" {
		return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
	}
	var errno syscall.Errno
	return !errors.Is(err, errEngine) && !errors.As(err, &errno)
}
