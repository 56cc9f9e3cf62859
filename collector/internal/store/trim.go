// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
)

// First is the revision of the oldest event that is kept, 1 before the first event. A watcher can begin after First()-1.
func (s *Store) First() uint64 {
	s.feed.mu.RLock()
	defer s.feed.mu.RUnlock()
	return s.feed.first
}

// Trim deletes events from the old end of the log: at most max of those with a revision of at most upTo, in one commit,
// and never the newest one, by which the next revision is known. It gives how many. While a backup is made it deletes
// nothing.
func (s *Store) Trim(ctx context.Context, upTo uint64, max int) (int, error) {
	n := 0
	err := s.Update(ctx, func(t *Tx) error {
		if !s.copied.under() {
			t.trimTo, t.trimMax, t.trimmed = min(upTo, t.log.before-min(t.log.before, 1)), max, &n
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// cut is what a trim takes away.
type cut struct {
	keys [][]byte // collected first: bbolt loses its place when it deletes under a cursor
	rest []Entry  // of the last one's piece, which stay
}

// plan reads what Trim asked for. Its error is of the one call: nothing was changed.
func (t *Tx) plan() error {
	if t.trimTo == 0 {
		return nil
	}
	l := readRuns(t.tx)
	r, err := l.first()
	for ; err == nil && r.n > 0 && r.first <= t.trimTo && *t.trimmed < t.trimMax; r, err = l.next() {
		n := min(r.n, t.trimMax-*t.trimmed)
		if r.last() > t.trimTo {
			n = min(n, int(t.trimTo-r.first+1))
		}
		if n < r.n {
			t.cut.rest = r.copyTo(nil, n, r.n)
		}
		t.cut.keys = append(t.cut.keys, eventKey(r.first))
		*t.trimmed, t.first = *t.trimmed+n, r.first+uint64(n)
	}
	if err != nil {
		return fmt.Errorf("trimming the feed: %w", err)
	}
	return nil
}

// cutOff deletes that; a piece of which events stay is written anew.
func (t *Tx) cutOff(point func(string)) error {
	if t.trimTo == 0 {
		return nil
	}
	bucket := t.tx.Bucket(eventsBucket)
	for _, k := range t.cut.keys {
		if err := bucket.Delete(k); err != nil {
			return fmt.Errorf("trimming the feed: %w", err)
		}
	}
	if len(t.cut.keys) > 0 {
		point(pointTrim)
	}
	rest := t.cut.rest
	if len(rest) == 0 {
		return nil
	}
	value := rest[0].Value
	if len(rest) > 1 {
		value = appendPiece(nil, rest)
	}
	if err := bucket.Put(eventKey(rest[0].Revision), value); err != nil {
		return fmt.Errorf("trimming the feed: %w", err)
	}
	return nil
}

// trimmed notes the oldest event after a trim; 0 is none.
func (f *feed) trimmed(first uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.first = max(f.first, first)
}
