// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"provost/collector/internal/lifecycle"
	"provost/collector/internal/store"
	"provost/proto"
)

// An install at rest has its fold in its checkpoint alone: in memory there is what it comes to, the View. Most installs have
// ended long ago, and nobody asks for more of them. It wakes with its next event.

// wake reads the fold of an install at rest. The writer calls it, before it decides on an event; readers never do.
func (in *install) wake(s *store.Reader) error { return in.wakeFrom(s.Get) }

func (in *install) wakeFrom(get func(store.Bucket, string) []byte) error {
	in.mu.Lock()
	resting, body := in.resting, in.fetched
	in.mu.Unlock()
	if !resting {
		return nil
	}
	if body == nil {
		body = &checkpointBody{}
		if err := body.read(get(store.States, in.id)); err != nil {
			return fmt.Errorf("reading the checkpoint of install %s: %w", in.id, err)
		}
	}
	in.mu.Lock()
	in.state, in.journals, in.resting, in.fetched = body.State, body.Journals, false, nil
	in.mu.Unlock()
	in.passed(in.next)
	in.takeMarks()
	return nil
}

// fetch reads what wake will need, so that the writer, for whom all wait, need not: after a start every install is at rest.
// What goes wrong is left for wake to say.
func (r *Registry) fetch(id string) {
	r.pub.RLock()
	in := r.pub.installs[id]
	r.pub.RUnlock()
	if in == nil {
		return
	}
	in.mu.Lock()
	wanted, rests := in.resting && in.fetched == nil, in.rests
	in.mu.Unlock()
	if !wanted {
		return
	}
	var b []byte
	body := &checkpointBody{}
	if r.st.View(func(s *store.Reader) error { b = s.Get(store.States, id); return nil }) != nil || body.read(b) != nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.resting && in.rests == rests { // else it has been awake since, and this may be too old
		in.fetched = body
	}
}

// takeMarks makes the committed marks those that the writer goes on from.
func (in *install) takeMarks() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.marks = maps.Clone(in.journals)
}

// wake is for a decision that is about to add to an install, or to look how far its journals are.
func (c *change) wake(id string) error {
	if in := c.install(id); in != nil {
		return in.wakeFrom(c.tx.Get)
	}
	return nil
}

// restEnded lays installs to rest that have ended, of which nothing new came since the last round, and whose checkpoints
// are complete.
func (r *Registry) restEnded(ctx context.Context) error {
	r.pub.RLock()
	var ids []string
	for id, in := range r.pub.installs {
		if in.isQuiet() && in.look().Ended {
			ids = append(ids, id)
		}
	}
	r.pub.RUnlock()
	slices.Sort(ids)
	for piece := range slices.Chunk(ids, 1024) {
		r.checkpoints.writing.Lock() // none is on its way
		err := r.st.Update(ctx, func(*store.Tx) error {
			for _, id := range piece {
				if in := r.m.installs[id]; in != nil && !r.m.dirtyInstalls[id] && !r.m.dirtyMarks[id] && !r.checkpoints.waits(id) {
					in.rest()
				}
			}
			return nil
		})
		r.checkpoints.writing.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (in *install) isQuiet() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	quiet := !in.resting && in.idle == in.newest()
	in.idle = in.newest()
	return quiet
}

func (in *install) isResting() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.resting
}

func (in *install) rest() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.view == nil || !in.view.Ended {
		return
	}
	in.state, in.journals, in.marks, in.resting, in.fetched = lifecycle.State{}, nil, nil, true, nil
	in.rests++
	in.revisions = slices.Clip(in.revisions)
}

// stepInfos gives the steps of an install that have begun.
func (r *Registry) stepInfos(in *install) ([]proto.StepInfo, error) {
	in.mu.Lock()
	if !in.resting {
		defer in.mu.Unlock()
		return in.state.StepInfos(), nil
	}
	in.mu.Unlock()
	var b []byte
	if err := r.st.View(func(s *store.Reader) error { b = s.Get(store.States, in.id); return nil }); err != nil {
		return nil, err
	}
	var body checkpointBody
	if err := body.read(b); err != nil {
		return nil, fmt.Errorf("reading the checkpoint of install %s: %w", in.id, err)
	}
	return body.State.StepInfos(), nil
}

// read takes the second line of a checkpoint, or the only one, as before schema 3.
func (b *checkpointBody) read(value []byte) error {
	if _, second, ok := bytes.Cut(value, []byte("\n")); ok {
		value = second
	}
	if err := json.Unmarshal(value, b); err != nil {
		return err
	}
	b.State.Words(unifyWord)
	journals := make(map[string]mark, len(b.Journals))
	for j, m := range b.Journals {
		oneWord(&j)
		journals[j] = m
	}
	b.Journals = journals
	return nil
}

func unifyWord(s string) string {
	oneWord(&s)
	return s
}

// head is the first line of a value, for readAll.
func head(value []byte) []byte {
	line, _, _ := bytes.Cut(value, []byte("\n"))
	return line
}
