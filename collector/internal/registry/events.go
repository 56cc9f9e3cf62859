// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"provost/collector/internal/eventjson"
	"provost/proto"
)

// record is one journal record of a request: an event, or why it is none.
type record struct {
	event   proto.Event
	encoded []byte // the event as JSON, without what the collector says of it and without its closing brace; nil if it is bad
	bad     error
}

// eventSize is room for most events with what the collector says of them.
const eventSize = 1024

// Events takes a run of an agent's journal records. id is the install of the request's token.
func (r *Registry) Events(ctx context.Context, id string, q *proto.EventsRequest) (*proto.EventsAnswer, error) {
	arrived := stamp(r.now())
	switch {
	case q.Schema > proto.Schema:
		return nil, problem(400, proto.CodeBadRequest, "upgrade provostd", "schema %d is newer than this collector, which knows %d", q.Schema, proto.Schema)
	case q.Install != id:
		return nil, badCredentials("the token is another install's")
	case !proto.ValidJournal(q.Journal):
		return nil, problem(400, proto.CodeBadRequest, "", "journal %q: use 16 hex digits", proto.Clip(q.Journal, 64))
	case !proto.ValidBoot(q.Clock.Boot) || q.Clock.OffsetMS < 0:
		return nil, problem(400, proto.CodeBadRequest, "", "clock.boot or clock.offset_ms is malformed")
	case len(q.Events) > proto.MaxEvents:
		return nil, problem(413, proto.CodeTooLarge, "send fewer at once", "%d events in one request, at most %d", len(q.Events), proto.MaxEvents)
	}
	oneWord(&q.Journal)
	oneWord(&q.Clock.Boot)
	records := make([]record, len(q.Events))
	for i, raw := range q.Events {
		records[i] = decodeRecord(raw, q)
		records[i].encode()
	}
	guessSeqs(records)
	r.fetch(id)
	var a *proto.EventsAnswer
	err := r.update(ctx, func(c *change) (err error) {
		a, err = c.take(id, q, records, arrived)
		return err
	})
	if err == nil {
		r.refusedEvents.Add(uint64(len(a.Refused)))
	}
	return a, err
}

// decodeRecord reads one record. Seq is set even of a bad one, if it can be told. The install that it names does not count:
// what an agent journals before its hello has an id of its own making, and the token says whose it is.
func decodeRecord(raw json.RawMessage, q *proto.EventsRequest) record {
	var rec record
	if err := eventjson.Decode(raw, &rec.event); err != nil {
		rec.bad = fmt.Errorf("it is no event: %w", err)
		return rec
	}
	e := &rec.event
	switch {
	case len(raw) > proto.MaxEventSize:
		rec.bad = fmt.Errorf("event of %d bytes, at most %d are allowed", len(raw), proto.MaxEventSize)
	case e.Journal != "" && e.Journal != q.Journal || e.Source != "" && e.Source != proto.SourceAgent:
		rec.bad = errors.New("it names another journal or source than its request")
	default:
		rec.bad = e.CheckAgent()
	}
	e.Revision, e.Node, e.Attempt, e.At = 0, "", 0, time.Time{} // these are the collector's to say
	e.Install, e.Source, e.Journal = q.Install, proto.SourceAgent, q.Journal
	if e.Boot == q.Clock.Boot {
		e.Boot = q.Clock.Boot // which is the one copy
	}
	oneWords(e)
	return rec
}

// encode does what can be done of the encoding before the writer does the rest.
func (r *record) encode() {
	if r.bad != nil || r.event.Seq == 0 || r.event.Time.IsZero() {
		return
	}
	if b, err := eventjson.Append(make([]byte, 0, eventSize), &r.event); err == nil { // an error comes again when the whole is encoded
		r.encoded = b[:len(b)-1]
	}
}

// guessSeqs tells the numbers of records that do not: they stand in a row. Without any number they stay 0.
func guessSeqs(records []record) {
	for i, r := range records {
		if r.event.Seq != 0 {
			for j := i - 1; j >= 0 && records[j].event.Seq == 0 && r.event.Seq > uint64(i-j); j-- {
				records[j].event.Seq = r.event.Seq - uint64(i-j)
			}
			for j := i + 1; j < len(records) && records[j].event.Seq == 0; j++ {
				records[j].event.Seq = r.event.Seq + uint64(j-i)
			}
		}
	}
}

// take adds the records that are wanted to the install, whatever has become of it meanwhile. Only the events of a node's
// newest install change the node.
func (c *change) take(id string, q *proto.EventsRequest, records []record, arrived time.Time) (*proto.EventsAnswer, error) {
	old := c.record(id)
	if old == nil {
		return nil, badCredentials("the token's install is gone")
	}
	if err := c.wake(id); err != nil {
		return nil, err
	}
	rec := old // until there is something to change
	own := func() {
		if rec == old {
			rec = old.clone()
		}
	}
	if err := c.mayBegin(id, q.Journal); err != nil {
		return nil, err
	}
	m := c.mark(id, q.Journal)
	if _, known := old.epoch(q.Clock.Boot); !known {
		own()
		rec.learnBoot(q.Clock.Boot, started(arrived, q.Clock))
	}
	clock := clock{rec: rec, arrived: arrived, sender: q.Clock}
	a := &proto.EventsAnswer{}
	sealed, nothing, why, reboots := false, false, "the installer is done", rec.Reboots
	memory := c.memory(rec)
	had := c.fill(id)
	for i := range records {
		r := &records[i]
		e := &r.event
		if e.Seq == 0 {
			e.Seq = m.Next // nobody can say better
		}
		if e.Seq < m.Next {
			continue
		}
		if e.Seq > m.Next {
			break
		}
		e.At = clock.at(e, m.At)
		refusal := func(text string) *proto.Event {
			return &proto.Event{Kind: proto.KindNote, Seq: e.Seq, At: e.At, Time: e.At, Source: proto.SourceAuth, Warning: true, Message: proto.Clip(text, proto.MaxMessage)}
		}
		if over := c.r.opt.Retention.refuse(had, e, r.bad != nil); over != nil {
			a.Refused = append(a.Refused, proto.Refusal{Seq: e.Seq, Code: proto.CodeTooLarge, Detail: over.Error()})
			first := rec.Refused == 0
			m = mark{e.Seq + 1, e.At}
			own()
			rec.pass(q.Journal, m)
			r.encoded = nil
			if !first {
				continue
			}
			e = refusal(over.Error())
		} else if r.bad != nil {
			a.Refused = append(a.Refused, proto.Refusal{Seq: e.Seq, Code: proto.CodeBadRequest, Detail: r.bad.Error()})
			e = refusal(fmt.Sprintf("record %d of the agent was refused: %v", e.Seq, r.bad))
		} else {
			e.Source = proto.SourceAgent
			if e.Kind == proto.KindReboot || e.Kind == proto.KindOrder || e.Kind == proto.KindHold {
				own()
				rec.follow(e)
			}
			memory.follow(e)
			if sealed = sealed || e.Kind == proto.KindSealed || e.Then == proto.BootDisk; e.Then != "" {
				why = "the steps failed, and on-failure is disk"
			}
			nothing = nothing || rec.looking() && looked(e)
		}
		e.Install, e.Journal, e.Node, e.Attempt = id, q.Journal, rec.Node, rec.Attempt
		if err := c.appendEncoded(e, r.encoded); err != nil {
			return nil, err
		}
		m = mark{e.Seq + 1, e.At}
		had.events++
		had.bytes += int64(len(q.Events[i]))
	}
	if m != c.mark(id, q.Journal) {
		c.setMark(id, q.Journal, m)
		set(&c.taken, id, had)
	}
	if rec.Reboots > reboots {
		c.keepRun(id, q.Run)
	}
	a.Next = m.Next
	if err := c.settle(rec, old); err != nil {
		return nil, err
	}
	if err := memory.settle(c); err != nil {
		return nil, err
	}
	n := c.node(rec.Node)
	if sealed && n.Install == id && (n.BootAction == proto.BootInstall || n.BootAction == proto.BootBlock) {
		if err := c.setBoot(n, proto.BootDisk, proto.SourceBoot, "bootaction-disk", "", why); err != nil {
			return nil, err
		}
		n = c.node(rec.Node)
	} else if nothing && n.Install == id && n.BootAction == proto.BootInstall {
		if err := c.setBoot(n, proto.BootBlock, proto.SourceBoot, "", "", "no disk has this install, sealed"); err != nil {
			return nil, err
		}
		n = c.node(rec.Node)
	}
	a.BootAction = n.BootAction
	return a, nil
}

// mayBegin refuses a journal that is one too many for its install: each is remembered for as long as the install is there.
func (c *change) mayBegin(id, journal string) error {
	marks := c.install(id).marks
	if _, known := marks[journal]; known || len(marks) < maxJournals {
		return nil
	}
	return problem(409, proto.CodeJournals, "a boot has one journal: does an agent begin another one again and again? A new order, provost install, starts at none",
		"the install has %d journals, which is as many as are taken: journal %s is refused", len(marks), journal)
}

// settle writes a record if it changed.
func (c *change) settle(rec, old *installRecord) error {
	if rec == old || len(rec.Boots) == len(old.Boots) && len(rec.Orders) == len(old.Orders) && rec.Began.Equal(old.Began) && rec.Progressed == old.Progressed &&
		rec.Reboots == old.Reboots && rec.Refused == old.Refused {
		return nil
	}
	return c.putInstall(rec)
}

// follow does what an agent's event means for its install's record.
func (rec *installRecord) follow(e *proto.Event) {
	switch e.Kind {
	case proto.KindReboot:
		rec.announced(e)
	case proto.KindHold:
		if e.Outcome.Good() {
			rec.Began, rec.Waited = e.At, true // the time that it waited is not counted
		}
	case proto.KindOrder:
		rec.Orders = slices.DeleteFunc(rec.Orders, func(o pendingOrder) bool { return o.ID == e.OrderID })
		switch v := proto.Verb(e.Order); {
		case e.Failed: // it was refused, and changed nothing
		case v == proto.VerbRetry, v == proto.VerbSkip, v == proto.VerbRelease:
			rec.Began, rec.Waited = e.At, true // the same
		}
	}
}

// clock tells when the events of one request really were.
type clock struct {
	rec     *installRecord
	arrived time.Time
	sender  proto.Clock
}

// at gives the time of an event, never before that of the journal's record before it, the order of the install, or after
// the arrival.
//
// In the boot in which it is sent, the time since that boot is exact. For an earlier boot whose start is known, the same.
// Otherwise there is only the wall clock, and how far off it is now.
func (c clock) at(e *proto.Event, before time.Time) time.Time {
	offset := sinceBoot(e.OffsetMS)
	var at time.Time
	if e.Boot == c.sender.Boot {
		at = started(c.arrived, c.sender).Add(offset)
	} else if begin, ok := c.rec.epoch(e.Boot); ok {
		at = begin.Add(offset)
	} else {
		at = e.Time.Add(c.arrived.Sub(c.sender.Time))
	}
	if at.Before(c.rec.Ordered) {
		at = c.rec.Ordered
	}
	if at.After(c.arrived) {
		at = c.arrived
	}
	if at.Before(before) {
		at = before
	}
	return stamp(at)
}
