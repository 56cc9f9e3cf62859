// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"sync"
)

const (
	ringSize  = 8192 // latest events kept in memory for all watchers together
	watchStep = 256  // events that one Next gives at most
)

// feed is the latest events and the news that there are more. A watcher has no buffer of its own that could fill up:
// it reads from the ring, or from the disk when it is too slow for that.
type feed struct {
	mu      sync.RWMutex
	first   uint64 // the oldest event that is kept
	last    uint64
	ring    []Entry // consecutive, ending with last
	changed chan struct{}
	closed  bool
}

func (f *feed) revision() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.last
}

func (f *feed) publish(entries []Entry) {
	if len(entries) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = entries[len(entries)-1].Revision
	f.ring = append(f.ring, entries...)
	if len(f.ring) > 2*ringSize { // copied only every ringSize events
		f.ring = append(make([]Entry, 0, 2*ringSize), f.ring[len(f.ring)-ringSize:]...)
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	close(f.changed)
	f.changed = make(chan struct{})
}

// Watcher hands out the events after a revision, in order, each once. It is for one goroutine and holds nothing open.
type Watcher struct {
	s   *Store
	pos uint64
}

// Watch gives a watcher of the events with a revision greater than after.
func (s *Store) Watch(after uint64) *Watcher { return &Watcher{s, after} }

// Next waits for events and gives some of them. Its errors are ctx's, ErrClosed, and ErrGone when the watcher's
// revision is greater than the newest, as after a restored backup, or what follows it was trimmed.
func (w *Watcher) Next(ctx context.Context) ([]Entry, error) {
	f := &w.s.feed
	for {
		f.mu.RLock()
		last, ring, changed, closed := f.last, f.ring, f.changed, f.closed
		f.mu.RUnlock()
		switch {
		case closed:
			return nil, ErrClosed
		case w.pos > last:
			return nil, fmt.Errorf("%w: %d, the newest is %d", ErrGone, w.pos, last)
		case w.pos < last:
			return w.read(last, ring)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (w *Watcher) read(last uint64, ring []Entry) ([]Entry, error) {
	var out []Entry
	if missing := last - w.pos; missing <= uint64(len(ring)) {
		out = ring[uint64(len(ring))-missing:]
		out = out[:min(len(out), watchStep):min(len(out), watchStep)]
	} else {
		var err error
		if out, err = w.s.Events(w.pos, watchStep); err != nil {
			return nil, err
		}
		if len(out) == 0 || out[0].Revision != w.pos+1 {
			return nil, fmt.Errorf("%w: nothing follows %d", ErrGone, w.pos)
		}
	}
	w.pos = out[len(out)-1].Revision
	return out, nil
}
