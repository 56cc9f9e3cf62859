// SPDX-License-Identifier: Apache-2.0

package store

import (
	"sync"
	"sync/atomic"
	"time"
)

// CommitBounds are the upper bounds, in seconds, of the histogram of commits; a last one without a bound follows.
var CommitBounds = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// SlowCommit is the time that a commit may take: agents wait for it.
const SlowCommit = 250 * time.Millisecond

// slots are the pieces of the last minute, slot seconds each.
const (
	slots = 6
	slot  = 10 * time.Second
)

// Stats is what the store did since it was opened.
type Stats struct {
	Commits [len(CommitBounds) + 1]uint64 // by duration: CommitBounds
	Seconds float64                       // all commits together
	Failed  uint64                        // commits that the disk did not take
	Events  uint64                        // committed
	Waiting int                           // callers of Update in the queue now
	Queue   int                           // how many there may be
	Slow    bool                          // more than one commit in a hundred of the last minute took longer than SlowCommit
}

// stats counts. A commit is some 100 µs at least: a mutex does not show.
type stats struct {
	failed atomic.Uint64

	mu      sync.Mutex
	commits [len(CommitBounds) + 1]uint64
	total   time.Duration
	events  uint64
	recent  [slots]struct {
		began     time.Time
		all, slow int
	}
}

func (s *stats) committed(took time.Duration, events int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := 0
	for i < len(CommitBounds) && took.Seconds() > CommitBounds[i] {
		i++
	}
	s.commits[i]++
	s.total += took
	s.events += uint64(events)
	at := now.Truncate(slot)
	r := &s.recent[at.Unix()/int64(slot/time.Second)%slots]
	if !r.began.Equal(at) {
		r.began, r.all, r.slow = at, 0, 0
	}
	r.all++
	if took > SlowCommit {
		r.slow++
	}
}

// slow reports whether the 99th percentile of the last minute's commits is over SlowCommit.
func (s *stats) slow(now time.Time) bool {
	all, slow := 0, 0
	for _, r := range s.recent {
		if now.Sub(r.began) < slots*slot {
			all += r.all
			slow += r.slow
		}
	}
	return slow*100 > all
}

// Stats gives the counters.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	waiting := s.waiting
	s.mu.Unlock()
	c := &s.stats
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{Commits: c.commits, Seconds: c.total.Seconds(), Failed: c.failed.Load(), Events: c.events, Waiting: waiting, Queue: s.opt.Queue,
		Slow: c.slow(time.Now())}
}
