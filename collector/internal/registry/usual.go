// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"provost/collector/internal/deadline"
	"provost/collector/internal/lifecycle"
	"provost/collector/internal/store"
	"provost/proto"
)

const (
	usualPrefix = "usual/" // and a profile's name → JSON of samples
	// maxSamples is how many installs of a profile are remembered, the latest.
	maxSamples = 50
	// minSamples is how many there must be before anybody is told what is usual.
	minSamples = 5
	// slowMore is by how much a wait must be longer than nine of ten to be called slow, which it also must be twice.
	slowMore = 2 * time.Minute
)

// samples are the waits after each stage in the last installs of a profile, in milliseconds, the oldest first.
type samples map[string][]int64

// usual is how long stages take, by profile. It is a hint: it never fails an install.
type usual struct {
	mu      sync.RWMutex
	samples map[string]samples
	times   map[string]map[string]*proto.Usual // by profile and stage; each is replaced, never changed
	dirty   map[string]bool
	changes atomic.Uint64 // of times
}

func (r *Registry) openUsual() error {
	u := &r.usual
	u.samples, u.times, u.dirty = map[string]samples{}, map[string]map[string]*proto.Usual{}, map[string]bool{}
	return r.st.Scan(store.Settings, func(key string, v []byte) error {
		profile, ok := strings.CutPrefix(key, usualPrefix)
		if !ok {
			return nil
		}
		var s samples
		if err := json.Unmarshal(v, &s); err != nil {
			return fmt.Errorf("reading how long installs of %s take: %w", profile, err)
		}
		u.samples[profile] = s
		for stage := range s {
			u.reckon(profile, stage)
		}
		return nil
	})
}

// learn takes the times of an install that has booted, once. One that waited for an operator, or came no further until
// somebody did something, says nothing of what is usual; nor does a wait in which the collector was down. The writer calls it.
func (r *Registry) learn(in *install) {
	if in.look().Status != proto.StatusBooted || in.learnt.Swap(true) || in.next.Waited {
		return
	}
	in.mu.Lock()
	waits, stalled := in.state.Waits(in.recipe.Sequence), in.state.Stall.Stage != ""
	in.mu.Unlock()
	if in.next.Within == 0 { // for its next boot: nobody hurries
		delete(waits, "ordered")
	}
	down := *r.downtime.list()
	maps.DeleteFunc(waits, func(_ string, w lifecycle.Span) bool {
		return slices.ContainsFunc(down, func(d deadline.Interval) bool { return d.From.Before(w.To) && d.To.After(w.From) })
	})
	if stalled || len(waits) == 0 {
		return
	}
	u, profile := &r.usual, in.recipe.Profile
	u.mu.Lock()
	defer u.mu.Unlock()
	s := maps.Clone(u.samples[profile])
	if s == nil {
		s = samples{}
	}
	for stage, w := range waits {
		list := append(slices.Clone(s[stage]), w.To.Sub(w.From).Milliseconds())
		s[stage] = list[max(0, len(list)-maxSamples):]
	}
	u.samples[profile], u.dirty[profile] = s, true
	for stage := range waits {
		u.reckon(profile, stage)
	}
}

// reckon computes what is usual after a stage. The lock is held.
func (u *usual) reckon(profile, stage string) {
	list := slices.Sorted(slices.Values(u.samples[profile][stage]))
	if len(list) < minSamples {
		return
	}
	if u.times[profile] == nil {
		u.times[profile] = map[string]*proto.Usual{}
	}
	now := proto.Usual{MedianMS: list[(len(list)-1)/2], P90MS: list[(len(list)*9+9)/10-1], Installs: len(list)}
	if was := u.times[profile][stage]; was == nil || *was != now {
		u.times[profile][stage] = &now
		u.changes.Add(1)
	}
}

// after gives what is usual after a stage, nil if that is not known.
func (u *usual) after(profile, stage string) *proto.Usual {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.times[profile][stage]
}

// unsaved gives what has to be written, and forgets that it has.
func (u *usual) unsaved() (map[string][]byte, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := map[string][]byte{}
	for profile := range u.dirty {
		b, err := encode("how long installs of "+profile+" take", u.samples[profile])
		if err != nil {
			return nil, err
		}
		out[usualPrefix+profile] = b
	}
	clear(u.dirty)
	return out, nil
}

// notSaved remembers what a commit that failed has not taken.
func (u *usual) notSaved(learnt map[string][]byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for key := range learnt {
		u.dirty[strings.TrimPrefix(key, usualPrefix)] = true
	}
}

// slowAt is when a wait that began at a time is longer than it should be.
func slowAt(u *proto.Usual, since time.Time) time.Time {
	p90 := time.Duration(u.P90MS) * time.Millisecond
	return since.Add(p90 + max(p90, slowMore))
}
