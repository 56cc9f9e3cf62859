// SPDX-License-Identifier: Apache-2.0

// Package eventjson reads and writes events as package encoding/json does, without reflection: ten thousand agents send
// little else, and there JSON costs more than the disk.
//
// It takes what an agent and the collector really write, and leaves everything else (unknown or doubled fields, null, odd escapes, what is
// no JSON at all) to encoding/json, whose result it must never differ from.
package eventjson

import (
	"encoding/json"

	"provost/proto"
)

// Decode is json.Unmarshal into an event that is zero.
func Decode(raw []byte, e *proto.Event) error {
	s := scanner{b: raw}
	if s.event(e) && s.end() {
		return nil
	}
	*e = proto.Event{}
	return json.Unmarshal(raw, e)
}

// DecodeRequest reads an agent's request. It gives false for whatever encoding/json has to be asked about; then q is as it
// was. The events' bytes are those of body.
func DecodeRequest(body []byte, q *proto.EventsRequest) bool {
	var r proto.EventsRequest
	s := scanner{b: body}
	if !s.request(&r) || !s.end() {
		return false
	}
	*q = r
	return true
}

// The fields of a request and of a clock, and those of an event, each a bit: a field that comes twice is not for us.
const (
	hasSchema = 1 << iota
	hasInstall
	hasJournal
	hasClock
	hasEvents
)

func (s *scanner) request(q *proto.EventsRequest) bool {
	seen := 0
	return s.object(func(key []byte) bool {
		bit, ok := 0, false
		switch string(key) {
		case "schema":
			bit, ok = hasSchema, s.integer(&q.Schema)
		case "install":
			bit, ok = hasInstall, text(s, &q.Install)
		case "journal":
			bit, ok = hasJournal, text(s, &q.Journal)
		case "clock":
			bit, ok = hasClock, s.clock(&q.Clock)
		case "events":
			bit, ok = hasEvents, s.raws(&q.Events)
		}
		ok = ok && seen&bit == 0
		seen |= bit
		return ok
	})
}

func (s *scanner) clock(c *proto.Clock) bool {
	seen := 0
	return s.object(func(key []byte) bool {
		bit, ok := 0, false
		switch string(key) {
		case "boot":
			bit, ok = 1, text(s, &c.Boot)
		case "offset_ms":
			bit, ok = 2, s.int64(&c.OffsetMS)
		case "time":
			bit, ok = 4, s.time(&c.Time)
		}
		ok = ok && seen&bit == 0
		seen |= bit
		return ok
	})
}

// raws reads a list of values without looking into them, but for whether they are JSON.
func (s *scanner) raws(list *[]json.RawMessage) bool {
	out := []json.RawMessage{}
	ok := s.array(func() bool {
		from := s.i
		if !s.skip(maxDepth) {
			return false
		}
		out = append(out, s.b[from:s.i:s.i])
		return true
	})
	*list = out
	return ok
}

func (s *scanner) event(e *proto.Event) bool {
	seen := uint64(0)
	return s.object(func(key []byte) bool {
		bit, ok := 0, false
		switch string(key) {
		case "kind":
			bit, ok = 0, word(s, &e.Kind, kinds)
		case "source":
			bit, ok = 1, word(s, &e.Source, sources)
		case "install":
			bit, ok = 2, text(s, &e.Install)
		case "journal":
			bit, ok = 3, text(s, &e.Journal)
		case "seq":
			bit, ok = 4, s.uint64(&e.Seq)
		case "time":
			bit, ok = 5, s.time(&e.Time)
		case "boot":
			bit, ok = 6, text(s, &e.Boot)
		case "offset_ms":
			bit, ok = 7, s.int64(&e.OffsetMS)
		case "phase":
			bit, ok = 8, word(s, &e.Phase, phases)
		case "step":
			bit, ok = 9, text(s, &e.Step)
		case "try":
			bit, ok = 10, s.integer(&e.Try)
		case "stage":
			bit, ok = 11, word(s, &e.Stage, stages)
		case "failed":
			bit, ok = 12, s.bool(&e.Failed)
		case "outcome":
			bit, ok = 13, word(s, &e.Outcome, outcomes)
		case "exit":
			bit, ok = 14, s.integer(&e.Exit)
		case "signal":
			bit, ok = 15, text(s, &e.Signal)
		case "duration_ms":
			bit, ok = 16, s.int64(&e.DurationMS)
		case "message":
			bit, ok = 17, text(s, &e.Message)
		case "tail":
			bit, ok = 18, s.texts(&e.Tail)
		case "log":
			bit, ok = 19, text(s, &e.Log)
		case "cause":
			bit, ok = 20, word(s, &e.Cause, causes)
		case "warning":
			bit, ok = 21, s.bool(&e.Warning)
		case "again":
			bit, ok = 22, s.bool(&e.Again)
		case "order":
			bit, ok = 23, text(s, &e.Order)
		case "order_id":
			bit, ok = 24, text(s, &e.OrderID)
		case "plan":
			bit, ok = 25, text(s, &e.Plan)
		case "actor":
			bit, ok = 26, text(s, &e.Actor)
		case "change":
			bit, ok = 27, text(s, &e.Change)
		case "topic":
			bit, ok = 28, text(s, &e.Topic)
		case "revision":
			bit, ok = 29, s.uint64(&e.Revision)
		case "node":
			bit, ok = 30, text(s, &e.Node)
		case "attempt":
			bit, ok = 31, s.integer(&e.Attempt)
		case "then":
			bit, ok = 33, text(s, &e.Then)
		case "at":
			bit, ok = 32, s.time(&e.At)
		}
		ok = ok && seen&(1<<bit) == 0
		seen |= 1 << bit
		return ok
	})
}

// The words of which there are few: of each there is one copy.
var (
	kinds    = wordsOf(proto.Kinds)
	sources  = wordsOf([]proto.Source{proto.SourceAgent, proto.SourceBoot, proto.SourceOperator, proto.SourceDeadline, proto.SourceAuth})
	phases   = wordsOf(proto.Phases)
	stages   = wordsOf(proto.Stages)
	outcomes = wordsOf(proto.Outcomes)
	causes   = wordsOf(proto.CauseKinds)
)

func wordsOf[S ~string](all []S) map[string]S {
	m := make(map[string]S, len(all))
	for _, w := range all {
		m[string(w)] = w
	}
	return m
}
