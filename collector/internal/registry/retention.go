// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"provost/collector/internal/store"
	"provost/proto"
)

// Retention says how much is kept. A zero field is its default.
type Retention struct {
	Feed     time.Duration // how far back watchers may resume; DefaultFeed
	Installs int           // of a node, with their events and logs; DefaultInstalls
	Events   int           // of one install, before only those that decide are taken, and twice as many before none; MaxInstallEvents
	Bytes    int64         // of one install's events, the same; MaxInstallBytes
}

// The defaults of Retention.
const (
	DefaultFeed      = 7 * 24 * time.Hour
	DefaultInstalls  = 10
	MaxInstallEvents = 100_000
	MaxInstallBytes  = 24 << 20 // twice that is packed in memory, and fits into one value even if nothing can be compressed
)

func (t Retention) withDefaults() Retention {
	if t.Feed == 0 {
		t.Feed = DefaultFeed
	}
	if t.Installs <= 0 {
		t.Installs = DefaultInstalls
	}
	if t.Events == 0 {
		t.Events = MaxInstallEvents
	}
	if t.Bytes == 0 {
		t.Bytes = MaxInstallBytes
	}
	return t
}

// The pace of the background work, none of which holds the writer for longer than some milliseconds.
const (
	retainEvery  = time.Minute
	measureEvery = time.Hour // the logs' directory is walked
	trimStep     = 2000      // events of one commit
	removeStep   = 64        // nodes of one commit
	stepPause    = 20 * time.Millisecond
	// marksOfFeed is how finely the age of the feed is known: a hundredth of its window.
	marksOfFeed = 100
	orphanAge   = time.Hour // of logs without an install: younger ones may be of an order that is just being committed
)

// feedMarksKey holds which revision was the newest when: a JSON list of feedMark, the oldest first.
const feedMarksKey = "feed-marks"

type feedMark struct {
	Revision uint64    `json:"revision"`
	At       time.Time `json:"at"`
}

// RunRetention keeps the database and the logs within their bounds until ctx ends. What fails is logged and tried again in
// the next minute.
func (r *Registry) RunRetention(ctx context.Context) {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	var measured time.Time
	for {
		if now := time.Now(); now.Sub(measured) >= measureEvery {
			measured = now
			if err := r.SweepLogs(ctx); err != nil && ctx.Err() == nil {
				r.opt.Log.Warn("looking through the logs", "error", err)
			}
		}
		if err := r.Retain(ctx); err != nil && ctx.Err() == nil {
			r.opt.Log.Warn("keeping the database within its bounds", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Retain does one round: installs beyond those that are kept go, ended ones lose their secrets and are packed, scripts that
// nobody names go, and the feed loses its old end. It
// must not run twice at the same time.
func (r *Registry) Retain(ctx context.Context) error {
	if err := r.removeOld(ctx); err != nil {
		return err
	}
	if err := r.eraseEnded(ctx); err != nil {
		return err
	}
	if err := r.sweepFiles(ctx); err != nil {
		return err
	}
	if err := r.packEnded(ctx); err != nil {
		return err
	}
	if err := r.restEnded(ctx); err != nil {
		return err
	}
	upTo, err := r.feedEnd(ctx)
	if err != nil || upTo < r.st.First() {
		return err
	}
	return r.trim(ctx, upTo)
}

// packEnded packs the installs that have ended and of which nothing new came since the last round.
func (r *Registry) packEnded(ctx context.Context) error {
	return r.packSome(ctx, func(in *install) bool {
		ended := in.look().Ended
		in.mu.Lock()
		defer in.mu.Unlock()
		quiet := in.quiet == in.newest()
		in.quiet = in.newest()
		return ended && quiet
	})
}

// packSome packs the installs that have events in the feed only and that are chosen.
func (r *Registry) packSome(ctx context.Context, choose func(*install) bool) error {
	r.pub.RLock()
	all := make([]*install, 0, 256)
	for _, in := range r.pub.installs {
		in.mu.Lock()
		if len(in.revisions) > 0 {
			all = append(all, in)
		}
		in.mu.Unlock()
	}
	r.pub.RUnlock()
	for _, in := range all {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !choose(in) {
			continue
		}
		if err := r.pack(ctx, in); err != nil {
			return err
		}
	}
	return nil
}

// feedEnd gives the newest revision that is older than the window and in the checkpoints of all installs, 0 if there is
// none, and notes the present one.
func (r *Registry) feedEnd(ctx context.Context) (upTo uint64, err error) {
	now := stamp(r.now())
	window := r.opt.Retention.Feed
	err = r.st.Update(ctx, func(tx *store.Tx) error {
		upTo = 0
		var marks []feedMark
		if b := tx.Get(store.Settings, feedMarksKey); b != nil {
			if err := json.Unmarshal(b, &marks); err != nil {
				return fmt.Errorf("reading the marks of the feed: %w", err)
			}
		}
		before := len(marks)
		for len(marks) > 0 && now.Sub(marks[0].At) >= window {
			upTo = marks[0].Revision
			if len(marks) == 1 || now.Sub(marks[1].At) < window {
				break // it is needed until the next one is old enough: this trim may be cut off
			}
			marks = marks[1:]
		}
		if n := len(marks); n == 0 || now.Sub(marks[n-1].At) >= window/marksOfFeed && tx.NextRevision()-1 > marks[n-1].Revision {
			marks = append(marks, feedMark{tx.NextRevision() - 1, now})
		} else if n == before {
			marks = nil // nothing changed
		}
		if marks != nil {
			b, err := encode("marks of the feed", marks)
			if err != nil {
				return err
			}
			tx.Put(store.Settings, feedMarksKey, b)
		}
		floor, err := strconv.ParseUint(string(tx.Get(store.Settings, checkpointKey)), 10, 64)
		if err != nil {
			floor = 0 // no checkpoint yet
		}
		upTo = min(upTo, floor)
		return nil
	})
	return upTo, err
}

// trim packs whatever would be lost, then deletes in small steps.
func (r *Registry) trim(ctx context.Context, upTo uint64) error {
	err := r.packSome(ctx, func(in *install) bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		return len(in.revisions) > 0 && in.revisions[0] <= upTo
	})
	if err != nil {
		return err
	}
	for {
		n, err := r.st.Trim(ctx, upTo, trimStep)
		if err != nil || n < trimStep {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// pause lets others write between two steps.
func pause(ctx context.Context) error {
	select {
	case <-time.After(stepPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// removeOld removes the installs of each node beyond the newest that are kept, with their logs.
func (r *Registry) removeOld(ctx context.Context) error {
	keep := r.opt.Retention.Installs
	r.pub.RLock()
	var names []string
	for name, n := range r.pub.nodes {
		if len(n.installs) > keep {
			names = append(names, name)
		}
	}
	r.pub.RUnlock()
	slices.Sort(names)
	for piece := range slices.Chunk(names, removeStep) {
		var gone []string
		err := r.update(ctx, func(c *change) error {
			gone = nil
			for _, name := range piece {
				gone = append(gone, c.removeOldInstalls(name, keep)...)
			}
			return nil
		})
		if err != nil {
			return err
		}
		r.removeLogs(gone)
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// removeOldInstalls never removes the node's present install, which is its last.
func (c *change) removeOldInstalls(name string, keep int) (gone []string) {
	n := c.node(name)
	if n == nil || len(n.installs) <= keep {
		return nil
	}
	v := *n
	v.installs = nil
	for i, id := range n.installs {
		if i < len(n.installs)-keep && id != n.Install {
			c.dropInstall(id)
			gone = append(gone, id)
		} else {
			v.installs = append(v.installs, id)
		}
	}
	set(&c.nodes, name, &v) // what is on the disk of it does not change
	return gone
}

// dropInstall removes an install. Its events in the feed belong to nobody from then on.
func (c *change) dropInstall(id string) {
	for _, b := range []store.Bucket{store.Installs, store.Plans, store.States, store.Packed} {
		c.tx.Delete(b, id)
	}
	c.tx.Delete(store.Plans, runKey(id))
	set(&c.removed, id, true)
	c.r.unused.Store(true)
}

// removeLogs removes what nobody can reach any more; a crash in the middle leaves files for SweepLogs.
func (r *Registry) removeLogs(ids []string) {
	for _, id := range ids {
		if err := r.opt.Logs.Remove(id); err != nil {
			r.opt.Log.Warn("removing the logs of a removed install", "install", id, "error", err)
		}
	}
}

// SweepLogs counts the logs, and removes those whose install is gone.
func (r *Registry) SweepLogs(ctx context.Context) error {
	if r.opt.Logs == nil {
		return nil
	}
	var orphans []string
	err := r.opt.Logs.Each(ctx, func(id string, changed time.Time) error {
		r.pub.RLock()
		_, known := r.pub.installs[id]
		r.pub.RUnlock()
		if !known && proto.ValidID(id) && time.Since(changed) > orphanAge {
			orphans = append(orphans, id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.removeLogs(orphans)
	return r.opt.Logs.Measure(ctx)
}
