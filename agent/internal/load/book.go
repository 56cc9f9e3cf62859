// SPDX-License-Identifier: Apache-2.0

package load

import (
	"encoding/json"
	"fmt"
	"sort"
	"sync/atomic"
	"time"

	"provost/agent/internal/journal"
	"provost/proto"
)

// book is one simulated journal: a list of events that come about at times fixed beforehand. Nothing of it is kept but
// the times: an event is made anew each time it is read, always the same. Its methods but due and acked are for the
// sender's goroutine.
type book struct {
	n      *node
	id     string
	boot   boot
	events []proto.Event
	times  []time.Time   // when each of them comes about; they only grow
	acked  atomic.Uint64 // last record that the collector acknowledged

	pending struct { // the batch that is on its way
		last  uint64 // 0 if there is none
		since time.Time
	}
	met bool // the present sender has heard from the collector how far this journal is there
}

// boot is one boot of the simulated machine.
type boot struct {
	id    string
	since time.Time
}

func (b boot) clock() proto.Clock {
	now := time.Now()
	return proto.Clock{Boot: b.id, OffsetMS: now.Sub(b.since).Milliseconds(), Time: now}
}

// due is the number of records that exist at a time.
func (b *book) due(now time.Time) int {
	return sort.Search(len(b.times), func(i int) bool { return b.times[i].After(now) })
}

func (b *book) ID() string { return b.id }

// Last is asked by the sender in every pass, so that this is also where its last request is known to have been answered.
func (b *book) Last() (uint64, error) {
	b.n.settle()
	return uint64(b.due(time.Now())), nil
}

// Read implements report.Records. A sender that goes back behind what was acknowledged was sent there by the collector,
// which has lost it. Only one that was just started does not know any better.
func (b *book) Read(from uint64, maxEvents, maxBytes int) ([]journal.Record, error) {
	if acked := b.acked.Load(); b.met && from <= acked {
		b.n.f.fault("%s: the collector wants record %d of journal %s, and has acknowledged all up to %d", b.n.name, from, b.id, acked)
	}
	var out []journal.Record
	size := 0
	for seq := from; seq <= uint64(b.due(time.Now())) && len(out) < maxEvents; seq++ {
		raw, err := b.record(seq)
		if err != nil {
			return nil, err
		}
		if size += len(raw); size > maxBytes && len(out) > 0 {
			break
		}
		out = append(out, journal.Record{Seq: seq, Raw: raw})
	}
	if len(out) > 0 {
		b.pending.last, b.pending.since = out[len(out)-1].Seq, time.Now()
		b.n.waits = true
	}
	return out, nil
}

func (b *book) record(seq uint64) (json.RawMessage, error) {
	e, at := b.events[seq-1], b.times[seq-1]
	e.Source, e.Install, e.Journal, e.Seq = proto.SourceAgent, b.n.install, b.id, seq
	e.Time, e.Boot, e.OffsetMS = at, b.boot.id, at.Sub(b.boot.since).Milliseconds()
	e.Message = message(b.id, seq)
	raw, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding record %d: %w", seq, err)
	}
	return raw, nil
}

// settle takes what the sender knows: the first record that the collector lacks, and when it learned that.
func (b *book) settle(next uint64, at time.Time) {
	last := b.pending.last
	b.pending.last = 0
	if last == 0 || next <= last { // it was refused, or did not get through
		return
	}
	b.met = true
	before := b.acked.Load()
	b.acked.Store(max(before, next-1))
	b.n.f.acknowledged(at.Sub(b.pending.since))
	for seq := before; seq < next-1 && seq < uint64(len(b.times)); seq++ {
		b.n.f.aged(at.Sub(b.times[seq]))
	}
}
