// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/binary"
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
	var tx *Tx
	err := s.Update(ctx, func(t *Tx) error {
		tx = t
		if !s.copied.under() {
			t.trimTo, t.trimMax = min(upTo, t.base-min(t.base, 1)), max
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return tx.trimmed, nil
}

// cutOff deletes what Trim asked for. The keys are collected first: bbolt loses its place when it deletes under a cursor.
func (t *Tx) cutOff() error {
	if t.trimTo == 0 {
		return nil
	}
	bucket := t.tx.Bucket(eventsBucket)
	var keys [][]byte
	c := bucket.Cursor()
	for k, _ := c.First(); k != nil && len(keys) < t.trimMax; k, _ = c.Next() {
		if binary.BigEndian.Uint64(k) > t.trimTo {
			break
		}
		keys = append(keys, append([]byte(nil), k...))
	}
	for _, k := range keys {
		if err := bucket.Delete(k); err != nil {
			return fmt.Errorf("trimming the feed: %w", err)
		}
	}
	if n := len(keys); n > 0 {
		t.trimmed, t.first = n, binary.BigEndian.Uint64(keys[n-1])+1
	}
	return nil
}

// trimmed notes the oldest event after a trim; 0 is none.
func (f *feed) trimmed(first uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.first = max(f.first, first)
}
