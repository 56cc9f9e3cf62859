// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// retryMost is the longest pause between two attempts to open a database again that failed.
const retryMost = 30 * time.Second

// retry is when the writer opens a broken database again. The zero value waits for nothing.
type retry struct {
	pause time.Duration
	at    <-chan time.Time
}

// plan sets the next attempt while the store is broken, each after twice the time of the one before.
func (r *retry) plan(s *Store) {
	err := s.Err()
	switch {
	case err == nil:
		*r = retry{}
	case r.at == nil && !errors.Is(err, ErrDamaged):
		r.pause = min(max(2*r.pause, s.opt.Retry), max(retryMost, s.opt.Retry))
		r.at = time.After(r.pause)
	}
}

// reopen opens a broken database again, as it was after the last commit that was confirmed: that is what memory has. It is
// left broken if the disk takes nothing yet, which a file of its own finds out while readers still have the old one.
func (s *Store) reopen() error {
	err := s.probe()
	if err != nil {
		return err
	}
	if err := closeWithin(s.db.Load(), s.opt.Timeout+MaxView); err != nil {
		return fmt.Errorf("closing it: %w", err)
	}
	if err := s.undo(); err != nil {
		return err
	}
	if err := inspect(s.path, s.opt.Timeout); err != nil {
		return err
	}
	db, err := openBolt(s.path, s.opt)
	if err != nil {
		return err
	}
	_, last, commit, err := revisions(db)
	if err == nil && (commit != s.tx || last != s.Revision()) {
		err = fmt.Errorf("it has commit %d and revision %d, not %d and %d: another process changed it", commit, last, s.tx, s.Revision())
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	s.db.Store(db)
	return nil
}

// closeWithin bounds Close, which waits for readers, and for ever if the engine panicked while it had its own lock.
func closeWithin(db *bolt.DB, limit time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- db.Close() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("the engine did not let go of it within %v: if that stays so, restart provostd", limit)
	}
}

// probe writes a page beside the database, and flushes it.
func (s *Store) probe() error {
	name := fmt.Sprintf("%s.new-%d", s.path, os.Getpid())
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Sync(), f.Close())
}

// undo takes back the commit that failed, if its meta page came to the disk all the same: it was refused. All that the commit
// before refers to was flushed, and the failed one wrote only where that has free pages. What the kernel remembers of the file
// is forgotten: after a failed flush it may not be what is on the disk.
func (s *Store) undo() error {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lock(f, s.path, unix.LOCK_EX, s.opt.Timeout); err != nil {
		return err
	}
	m, reason := metaDamage(f)
	if reason == "" && m.tx == s.tx+1 {
		// bbolt writes the meta page of a commit by its number, alternately to page 0 and 1.
		if _, err := f.WriteAt(make([]byte, metaHead+metaSize), int64(m.tx%2*m.pageSize)); err != nil {
			return err
		}
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return fmt.Errorf("flushing: %w", err)
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// tryAgain is the writer's: it opens a broken database again and says how that ended.
func (s *Store) tryAgain() {
	err := s.reopen()
	if err == nil {
		s.broken.Store(nil)
		s.refused.Store(nil)
		s.opt.Log.Info("database takes commits again", "path", s.path)
		return
	}
	s.opt.Log.Warn("opening the database again", "path", s.path, "error", err)
	if errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrStorage, err)
		s.broken.Store(&err)
	}
}
