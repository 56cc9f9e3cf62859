// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"provost/collector/internal/lifecycle"
	"provost/collector/internal/store"
)

// A checkpoint is the fold of an install's events up to a revision, so that a start need not read them all. Its value is two
// lines of JSON: the head, which is all that a start reads of most, and the body. Before schema 3 both were one object.
type checkpointHead struct {
	Revision  uint64          `json:"revision"`
	By        string          `json:"by,omitempty"` // version of the collector whose rules gave View
	View      *lifecycle.View `json:"view,omitempty"`
	Packed    packed          `json:"packed,omitzero"`
	Revisions []uint64        `json:"revisions,omitempty"` // of its other events, each as the distance to the one before
	Bytes     int64           `json:"bytes,omitempty"`     // of all its events
}

type checkpointBody struct {
	State    lifecycle.State `json:"state"`
	Journals map[string]mark `json:"journals,omitempty"`
}

// checkpointKey holds the revision up to which every install's events are in its checkpoint.
const checkpointKey = "checkpoint"

const (
	checkpointEvery = 2 * time.Second
	// Installs per commit, some 10 KB each: every agent waits for it. More only if more than 64 commits would be needed.
	checkpointStep = 16
	// An install's checkpoint is written when its first event that is in none is this old, or this many events have come
	// since, of whatever installs: a checkpoint is as large as twenty events, an agent that installs writes one in 10 s, and a
	// start reads some 200,000 events a second.
	checkpointAge = 2 * time.Minute
	checkpointLag = 200_000
)

// checkpoints knows which installs have events that are in no checkpoint yet, and since when.
type checkpoints struct {
	mu      sync.Mutex
	since   map[string]unwritten
	writing sync.Mutex // one Checkpoint at a time
}

// unwritten is the first event of an install that is in no checkpoint.
type unwritten struct {
	revision uint64
	at       time.Time
}

func (c *checkpoints) touch(id string, revision uint64, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since == nil {
		c.since = map[string]unwritten{}
	}
	if was, ok := c.since[id]; !ok || revision < was.revision {
		c.since[id] = unwritten{revision, at}
	}
}

// waits reports whether an install has events that are in no checkpoint.
func (c *checkpoints) waits(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.since[id]
	return ok
}

// waits is an install with the first of its events that is in no checkpoint.
type waits struct {
	id string
	unwritten
}

// take gives those that wait and are chosen, the longest waiting first.
func (c *checkpoints) take(choose func(unwritten) bool) []waits {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []waits
	for id, u := range c.since {
		if choose(u) {
			all = append(all, waits{id, u})
			delete(c.since, id)
		}
	}
	slices.SortFunc(all, func(a, b waits) int { return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.id, b.id)) })
	return all
}

// floor is the revision, at most last, up to which nothing waits, neither here nor among the rest.
func (c *checkpoints) floor(last uint64, rest []waits) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range c.since {
		last = min(last, u.revision-1)
	}
	if len(rest) > 0 {
		last = min(last, rest[0].revision-1)
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
			now, last := r.now(), r.st.Revision()
			r.checkpoint(ctx, func(u unwritten) bool { return now.Sub(u.at) >= checkpointAge || last-u.revision >= checkpointLag })
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
	r.checkpoint(ctx, func(unwritten) bool { return true })
}

func (r *Registry) checkpoint(ctx context.Context, choose func(unwritten) bool) {
	r.checkpoints.writing.Lock()
	defer r.checkpoints.writing.Unlock()
	all := r.checkpoints.take(choose)
	for step := max(checkpointStep, len(all)/64); len(all) > 0; {
		n := min(len(all), step)
		err := r.writeCheckpoints(ctx, all[:n], all[n:])
		if err != nil {
			for _, w := range all {
				r.checkpoints.touch(w.id, w.revision, w.at)
			}
			if ctx.Err() == nil {
				r.opt.Log.Warn("writing checkpoints", "error", err)
			}
			return
		}
		all = all[n:]
	}
}

// writeCheckpoints writes some in one commit, while the rest waits. They are encoded before, so that nobody else waits for
// that: every event up to the last revision is applied, later ones that are in the fold by then do no harm when they come
// again, and their install waits again.
func (r *Registry) writeCheckpoints(ctx context.Context, some, rest []waits) error {
	last := r.st.Revision()
	values := make([][]byte, len(some))
	for i, w := range some {
		r.pub.RLock()
		in := r.pub.installs[w.id]
		r.pub.RUnlock()
		if in == nil {
			continue // removed
		}
		var err error
		if values[i], err = in.checkpoint(last, r.opt.Version, packed{}); err != nil && !errors.Is(err, errAtRest) {
			return fmt.Errorf("encoding the checkpoint of install %s: %w", w.id, err)
		}
	}
	return r.st.Update(ctx, func(tx *store.Tx) error {
		for i, w := range some {
			if values[i] != nil && r.m.installs[w.id] != nil {
				tx.Put(store.States, w.id, values[i])
			}
		}
		tx.Put(store.Settings, checkpointKey, strconv.AppendUint(nil, r.checkpoints.floor(last, rest), 10))
		return nil
	})
}

// errAtRest: the checkpoint of an install is all that there is.
var errAtRest = errors.New("it is at rest")

// checkpoint gives it as it is, or, with a pack that is in the same commit, as it will be then.
func (in *install) checkpoint(revision uint64, by string, to packed) ([]byte, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.resting {
		return nil, errAtRest
	}
	view := in.viewed()
	if to.Count == 0 {
		to = in.packed
	}
	revisions := after(in.revisions, to.Revision)
	h := checkpointHead{Revision: revision, By: by, View: view, Packed: to, Revisions: make([]uint64, len(revisions)), Bytes: in.bytes}
	before := uint64(0)
	for i, rev := range revisions {
		h.Revisions[i] = rev - before
		before = rev
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b) // a line each: JSON has no newline of its own
	err := errors.Join(enc.Encode(&h), enc.Encode(&checkpointBody{State: in.state, Journals: in.journals}))
	return b.Bytes(), err
}

// readCheckpoint is what a start makes of a checkpoint.
type readCheckpoint struct {
	checkpointHead
	body *checkpointBody // nil: it stays where it is
}

// loadCheckpoints sets the folds and gives the revision after which events have to be read, and of each install up to which
// they are in its checkpoint. What this version wrote stays at rest until something comes of it.
func (r *Registry) loadCheckpoints() (after uint64, upTo map[string]uint64, err error) {
	upTo = map[string]uint64{}
	err = readAll(r.st, store.States, head, func(id string, v []byte) (c readCheckpoint, err error) {
		if err = readJSON(v, &c.checkpointHead, "the checkpoint of install", id); err != nil || c.View != nil && c.By == r.opt.Version {
			return c, err
		}
		c.body = &checkpointBody{}
		err = r.st.View(func(s *store.Reader) error { return c.body.read(s.Get(store.States, id)) })
		if err != nil {
			err = fmt.Errorf("reading the checkpoint of install %s: %w", id, err)
		}
		return c, err
	}, func(id string, c readCheckpoint) error {
		in := r.m.installs[id]
		if in == nil {
			return nil
		}
		upTo[id] = c.Revision
		in.packed, in.bytes = c.Packed, c.Bytes
		if c.body != nil {
			in.state, in.journals = c.body.State, c.body.Journals
			r.checkpoints.touch(id, r.st.Revision()+1, time.Time{}) // it is written anew, for the next start; nothing is missing in it
		} else {
			in.view, in.resting = c.View, true
			oneWord(&in.view.Status)
			oneWord(&in.view.Rule)
			oneWord(&in.view.Summary)
			oneWord(&in.view.Stage)
		}
		before := uint64(0)
		for _, d := range c.Revisions {
			before += d
			in.revisions = append(in.revisions, before)
		}
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	var b []byte
	if err := r.st.View(func(s *store.Reader) error { b = s.Get(store.Settings, checkpointKey); return nil }); err != nil {
		return 0, nil, err
	}
	if b == nil {
		return 0, upTo, nil
	}
	after, err = strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		return 0, nil, fmt.Errorf("reading the checkpoint's revision: %w", err)
	}
	return after, upTo, nil
}
