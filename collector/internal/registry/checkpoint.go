// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"provost/collector/internal/lifecycle"
	"provost/collector/internal/store"
)

// A checkpoint is the fold of an install's events up to a revision, so that a start need not read them all.
type checkpoint struct {
	Revision  uint64          `json:"revision"`
	State     lifecycle.State `json:"state"`
	Journals  map[string]mark `json:"journals,omitempty"`
	Packed    packed          `json:"packed,omitzero"`
	Revisions []uint64        `json:"revisions,omitempty"` // of its other events, each as the distance to the one before
	Bytes     int64           `json:"bytes,omitempty"`     // of all its events
}

// checkpointKey holds the revision up to which every install's events are in its checkpoint.
const checkpointKey = "checkpoint"

const (
	checkpointEvery = 2 * time.Second
	checkpointStep  = 64 // installs per commit, some 10 KB each
)

// checkpoints knows which installs have events that are in no checkpoint yet, and since which revision.
type checkpoints struct {
	mu      sync.Mutex
	since   map[string]uint64
	writing sync.Mutex // one Checkpoint at a time
}

func (c *checkpoints) touch(id string, revision uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since == nil {
		c.since = map[string]uint64{}
	}
	if was, ok := c.since[id]; !ok || revision < was {
		c.since[id] = revision
	}
}

// waits is an install with the first of its events that is in no checkpoint.
type waits struct {
	id    string
	since uint64
}

// take gives all that wait, the longest waiting first.
func (c *checkpoints) take() []waits {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]waits, 0, len(c.since))
	for id, since := range c.since {
		all = append(all, waits{id, since})
	}
	c.since = nil
	slices.SortFunc(all, func(a, b waits) int { return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(a.id, b.id)) })
	return all
}

// floor is the revision, at most last, up to which nothing waits, neither here nor among the rest.
func (c *checkpoints) floor(last uint64, rest []waits) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, since := range c.since {
		last = min(last, since-1)
	}
	if len(rest) > 0 {
		last = min(last, rest[0].since-1)
	}
	return last
}

// Run writes checkpoints until ctx ends, then the ones that wait, for at most 3 s. Without them a start takes longer,
// nothing else.
func (r *Registry) Run(ctx context.Context) {
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.Checkpoint(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			defer cancel()
			r.Checkpoint(last)
			return
		}
	}
}

// Checkpoint writes a checkpoint of every install that waits for one.
func (r *Registry) Checkpoint(ctx context.Context) {
	r.checkpoints.writing.Lock()
	defer r.checkpoints.writing.Unlock()
	all := r.checkpoints.take()
	for len(all) > 0 {
		n := min(len(all), checkpointStep)
		err := r.st.Update(ctx, func(tx *store.Tx) error {
			// In the writer: every event up to the revision is applied, and whoever had one since waits again.
			last := r.st.Revision()
			for _, w := range all[:n] {
				in := r.m.installs[w.id]
				if in == nil {
					continue
				}
				b, err := in.checkpoint(last, packed{})
				if err != nil {
					return fmt.Errorf("encoding the checkpoint of install %s: %w", w.id, err)
				}
				tx.Put(store.States, w.id, b)
			}
			tx.Put(store.Settings, checkpointKey, strconv.AppendUint(nil, r.checkpoints.floor(last, all[n:]), 10))
			return nil
		})
		if err != nil {
			for _, w := range all {
				r.checkpoints.touch(w.id, w.since)
			}
			if ctx.Err() == nil {
				r.opt.Log.Warn("writing checkpoints", "error", err)
			}
			return
		}
		all = all[n:]
	}
}

// checkpoint gives it as it is, or, with a pack that is in the same commit, as it will be then.
func (in *install) checkpoint(revision uint64, to packed) ([]byte, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if to.Count == 0 {
		to = in.packed
	}
	revisions := after(in.revisions, to.Revision)
	c := checkpoint{Revision: revision, State: in.state, Journals: in.journals, Packed: to, Revisions: make([]uint64, len(revisions)), Bytes: in.bytes}
	before := uint64(0)
	for i, rev := range revisions {
		c.Revisions[i] = rev - before
		before = rev
	}
	return json.Marshal(&c)
}

// loadCheckpoints sets the folds and gives the revision after which events have to be read.
func (r *Registry) loadCheckpoints() (uint64, error) {
	err := r.st.Scan(store.States, func(id string, v []byte) error {
		in := r.m.installs[id]
		if in == nil {
			return nil
		}
		var c checkpoint
		if err := json.Unmarshal(v, &c); err != nil {
			return fmt.Errorf("reading the checkpoint of install %s: %w", id, err)
		}
		in.state, in.packed, in.bytes = c.State, c.Packed, c.Bytes
		if c.Journals != nil {
			in.journals = c.Journals
		}
		before := uint64(0)
		for _, d := range c.Revisions {
			before += d
			in.revisions = append(in.revisions, before)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	var b []byte
	if err := r.st.View(func(s *store.Reader) error { b = s.Get(store.Settings, checkpointKey); return nil }); err != nil {
		return 0, err
	}
	if b == nil {
		return 0, nil
	}
	after, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the checkpoint's revision: %w", err)
	}
	return after, nil
}
