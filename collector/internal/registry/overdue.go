// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"provost/collector/internal/deadline"
	"provost/collector/internal/lifecycle"
	"provost/collector/internal/store"
	"provost/proto"
)

const (
	aliveKey    = "alive"    // when the collector last said that it works, RFC 3339
	downtimeKey = "downtime" // JSON list of deadline.Interval
	// gap is the silence that counts as downtime: three missed notes.
	gap = 3 * deadline.AliveTick
	// grace is added to a downtime, for agents to deliver what happened in it: twice their longest backoff.
	grace        = time.Minute
	keepDowntime = 30 * 24 * time.Hour
)

// downtime is when the collector did not work.
type downtime struct {
	mu        sync.RWMutex
	last      time.Time // when it last worked
	intervals []deadline.Interval
	current   atomic.Pointer[[]deadline.Interval] // the same, for readers
}

// list gives the intervals, which are never changed, only replaced. It is good once openDowntime has returned.
func (d *downtime) list() *[]deadline.Interval { return d.current.Load() }

// openDowntime reads what is known, and counts the time since the last note.
func (r *Registry) openDowntime(ctx context.Context) error {
	var alive, list []byte
	err := r.st.View(func(s *store.Reader) error {
		alive, list = s.Get(store.Settings, aliveKey), s.Get(store.Settings, downtimeKey)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the downtimes: %w", err)
	}
	if list != nil {
		if err := json.Unmarshal(list, &r.downtime.intervals); err != nil {
			return fmt.Errorf("reading the downtimes: %w", err)
		}
	}
	if alive != nil {
		if r.downtime.last, err = time.Parse(time.RFC3339Nano, string(alive)); err != nil {
			return fmt.Errorf("reading when the collector last worked: %w", err)
		}
	}
	return r.Alive(ctx)
}

// Alive notes that the collector works now. A long silence before it, whether it was off, hung, or its disk took nothing,
// is a downtime.
func (r *Registry) Alive(ctx context.Context) error {
	now := stamp(r.now())
	d := &r.downtime
	d.mu.RLock()
	last, intervals := d.last, d.intervals
	d.mu.RUnlock()
	down := !last.IsZero() && now.Sub(last) > gap
	if down {
		intervals = extend(intervals, deadline.Interval{From: last, To: now.Add(grace)})
		intervals = slices.DeleteFunc(intervals, func(i deadline.Interval) bool { return now.Sub(i.To) > keepDowntime })
		r.opt.Log.Info("deadlines move by the collector's downtime", "from", last, "to", now, "grace", grace)
	}
	list, err := encode("downtimes", intervals)
	if err != nil {
		return err
	}
	learnt, err := r.usual.unsaved()
	if err != nil {
		return err
	}
	err = r.st.Update(ctx, func(tx *store.Tx) error {
		for key, v := range learnt {
			tx.Put(store.Settings, key, v)
		}
		tx.Put(store.Settings, aliveKey, now.AppendFormat(nil, time.RFC3339Nano))
		if down {
			tx.Put(store.Settings, downtimeKey, list)
		}
		return nil
	})
	if err != nil {
		r.usual.notSaved(learnt)
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last, d.intervals = now, intervals
	if down || d.list() == nil {
		d.current.Store(&intervals)
	}
	return nil
}

// extend adds an interval at the end of a copy; two that touch become one.
func extend(list []deadline.Interval, i deadline.Interval) []deadline.Interval {
	list = slices.Clone(list)
	if n := len(list); n > 0 && !i.From.After(list[n-1].To) {
		list[n-1].To = i.To
		return list
	}
	return append(list, i)
}

// due is what is due next of an install.
func (s sources) due() (deadline.Due, bool) {
	v := s.view
	d, ok := deadline.Next(deadlines(s.in, s.rec, v, heardAt(s.heard), *s.down))
	if ok && v.Status == proto.StatusStalled {
		d.Stall, d.Moved = d.Fail, d.MovedFail // the next thing to happen
	}
	return d, ok
}

func (r *Registry) deadlines(in *install, rec *installRecord, v *lifecycle.View) deadline.Install {
	return deadlines(in, rec, v, in.heard(), *r.downtime.list())
}

func deadlines(in *install, rec *installRecord, v *lifecycle.View, heard time.Time, down []deadline.Interval) deadline.Install {
	return deadline.Install{View: v, Ordered: rec.Ordered, Within: rec.Within.D(), Began: rec.Began, Whole: in.recipe.Deadline.D(), Heard: heard, Down: down}
}

// calm is until when no deadline of an install can pass: heartbeats only put them off.
type calm struct {
	until   time.Time
	changed uint64               // the install's counter, by which it holds
	down    *[]deadline.Interval // the downtimes, the same
}

// calmMost is for an install of which nothing is due.
const calmMost = time.Hour

// overdue reports whether an install's deadline has passed. Expire asks it of every node each second, with all readers and
// commits that change a node behind it: it looks closely only where something can have come of it.
func (r *Registry) overdue(in *install, now time.Time) bool {
	changed, down := in.changed.Load(), r.downtime.list() // before what they count is read
	if c := &in.calm; c.changed == changed && c.down == down && now.Before(c.until) && c.until.Sub(now) <= calmMost {
		return false
	}
	v := in.look()
	verdict, due := deadline.Decide(r.deadlines(in, in.rec.Load(), v), now)
	if verdict != deadline.Nothing || r.waitsNoMore(in, now) {
		return true
	}
	until := now.Add(calmMost)
	for _, t := range []time.Time{due.Stall, due.Fail, r.waitEnds(in)} {
		if now.Before(t) && t.Before(until) {
			until = t
		}
	}
	in.calm = calm{until, changed, down}
	return false
}

// Expire implements deadline.Installs.
func (r *Registry) Expire(ctx context.Context) (int, error) {
	r.expiring.Lock()
	defer r.expiring.Unlock()
	now := r.now()
	var over []string
	r.pub.RLock()
	for _, n := range r.pub.nodes {
		if in := r.pub.installs[n.Install]; in != nil && r.overdue(in, now) {
			over = append(over, in.id)
		}
	}
	r.pub.RUnlock()
	if len(over) == 0 {
		return 0, nil
	}
	slices.Sort(over)
	all := 0
	for piece := range slices.Chunk(over, expireStep) {
		written := 0
		err := r.update(ctx, func(c *change) error {
			written = 0
			for _, id := range piece {
				ok, err := c.expire(id)
				if err != nil {
					return err
				}
				if ok {
					written++
				}
			}
			return nil
		})
		if err != nil {
			return all, err
		}
		all += written
		r.expired.Add(uint64(written))
	}
	return all, nil
}

// expireStep is how many installs are looked at in one call of the writer, some 10 ms, so that what agents send need not wait
// for all whose time is over at once. Each is judged for itself, by what is known when its turn comes; what a crash leaves is
// found in the next round.
const expireStep = 512

// expire looks again, now that nothing can come in between, and writes the verdict.
func (c *change) expire(id string) (bool, error) {
	rec := c.record(id)
	if rec == nil || rec.Superseded {
		return false, nil
	}
	if ended, err := c.endWait(id); ended || err != nil {
		return ended, err
	}
	in := c.install(id)
	verdict, due := deadline.Decide(c.r.deadlines(in, rec, in.look()), c.now)
	e := proto.Event{Source: proto.SourceDeadline, Install: id, Node: rec.Node, Attempt: rec.Attempt, Stage: due.Stage}
	limit := proto.Duration(due.Limit)
	switch verdict {
	case deadline.Stalled:
		e.Kind, e.Message = proto.KindStalled, fmt.Sprintf("%s did not come within %s", due.Stage, limit)
	case deadline.Failed:
		e.Kind, e.Message = proto.KindDeadline, fmt.Sprintf("%s did not come within twice %s", due.Stage, limit)
	default:
		return false, nil
	}
	return true, c.append(e)
}
