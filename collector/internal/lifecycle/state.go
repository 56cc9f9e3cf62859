// SPDX-License-Identifier: Apache-2.0

// Package lifecycle turns the events of one install into its state. It is pure: no clock, no I/O, no goroutine.
//
// A State is a set of registers, each merged by a rule that does not care for order: the earliest, the latest, the
// union. Therefore the same set of events gives the same State in any order of arrival, with any repeats and any
// interleaving of sources. What an operator sees, the View, is computed from the registers by the rules in rules.go.
package lifecycle

import (
	"slices"
	"strings"
	"unique"

	"provost/proto"
)

// earlier reports whether what is at a place belongs to an attempt before the last one.
func (s *State) earlier(p Pos) bool { return s.Began.closes(p) }

// How much of what there may be many of is kept. Beyond, the oldest go: what decides is the first cause after the last
// order, and orders close what is older.
const (
	maxFailures = 64
	maxNotes    = 32
	maxBoots    = 64
)

// State is the fold of the events of one install. The zero value is of an install of which nothing is known. Its
// fields are exported for checkpoints only.
type State struct {
	Stages Registers[Seen]   `json:"stages,omitempty"`
	Steps  Registers[Step]   `json:"steps,omitempty"` // key: stepKey
	Boots  Registers[Booted] `json:"boots,omitempty"`
	// Told is by which ways without an agent the installed system said that it is booted.
	Told      Registers[Seen] `json:"told,omitempty"`
	Failures  []Failure       `json:"failures,omitempty"` // by place
	Notes     []Note          `json:"notes,omitempty"`    // by place; of warnings, and of what mended them
	Skips     []Note          `json:"skips,omitempty"`    // steps that an order skipped, by place
	Closed    Pos             `json:"closed,omitzero"`    // the last retry or skip: it closes the failures before it
	Wait      Wait            `json:"wait,omitzero"`      // the last word on whether the agent waits
	Answer    Note            `json:"answer,omitzero"`    // what became of the last order; with a text, it was refused
	Stall     Stall           `json:"stall,omitzero"`     // the last stall
	Attempt   int             `json:"attempt,omitempty"`  // the greatest
	Began     Pos             `json:"began,omitzero"`     // the last attempt's boot script
	LastSeen  Pos             `json:"last_seen,omitzero"` // the last word of the node itself
	Contested bool            `json:"contested,omitempty"`
	// Superseded by a newer install: what comes now is history.
	Superseded bool `json:"superseded,omitempty"`
}

// Seen is when a stage was reported.
type Seen struct {
	First Pos `json:"first"`
	Last  Pos `json:"last"`
}

// Step is the last word on one step.
type Step struct {
	Pos        Pos           `json:"pos"`
	Try        int           `json:"try,omitempty"`
	Outcome    proto.Outcome `json:"outcome,omitempty"` // empty while it runs
	Exit       int           `json:"exit,omitempty"`
	Signal     string        `json:"signal,omitempty"`
	DurationMS int64         `json:"duration_ms,omitempty"`
	Warning    bool          `json:"warning,omitempty"`
}

// Booted says what a kernel boot id was seen as. A boot that was an installer's is no proof of an installed system,
// whatever else is said in it.
type Booted struct {
	Installer bool `json:"installer,omitempty"`
	// Done is the first word that the first-boot steps are done.
	Done Pos `json:"done,omitzero"`
	// Steps is the first word that those of phase boot are done: the proof of a diskless node, whose boot is an installer's, too.
	Steps Pos `json:"steps,omitzero"`
}

// Failure is one reason for which the install may have failed.
type Failure struct {
	Pos   Pos         `json:"pos"`
	Cause proto.Cause `json:"cause"`
}

// Note is a text with its place. One with a topic and without a text ends the warnings of that topic before it.
type Note struct {
	Pos   Pos    `json:"pos"`
	Text  string `json:"text,omitempty"`
	Topic string `json:"topic,omitempty"`
}

// Wait says whether the agent waits for orders, and whether because of a failure.
type Wait struct {
	Pos     Pos    `json:"pos"`
	Waiting bool   `json:"waiting,omitempty"`
	Failed  bool   `json:"failed,omitempty"`
	Message string `json:"message,omitempty"`
}

// Stall is a stage that did not come in its time.
type Stall struct {
	Pos   Pos    `json:"pos"`
	Stage string `json:"stage"`
}

// Apply adds an event that the collector has committed: At and the identity are set. The order of calls does not
// matter, and a repeat changes nothing.
func (s *State) Apply(e *proto.Event) {
	pos := posOf(e)
	for i := range effects {
		if r := &effects[i]; r.when(e) {
			r.do(s, e, pos)
		}
	}
}

// causeOf is the cause that an event is, if it is one.
func causeOf(e *proto.Event) (proto.Cause, bool) {
	c := proto.Cause{Name: e.Step, Phase: e.Phase, Exit: e.Exit, Signal: e.Signal, DurationMS: e.DurationMS, Try: e.Try,
		Message: e.Message, Tail: e.Tail, Log: e.Log, Source: e.Source}
	switch e.Kind {
	case proto.KindStepEnd, proto.KindRunEnd:
		if e.Outcome.Good() || e.Warning {
			return c, false
		}
		if c.Kind = e.Cause; c.Kind == proto.CauseLoop {
			c.Count = e.Attempt // which only looked at the disk
		}
		if c.Kind == "" {
			c.Kind = e.Outcome.Cause()
		}
	case proto.KindStage:
		if !e.Failed {
			return c, false
		}
		c.Kind, c.Name = proto.CauseInstaller, e.Stage
		if e.Source != proto.SourceAgent {
			c.Kind = proto.CauseForeign
		}
	case proto.KindLoop:
		c.Kind, c.Count = proto.CauseLoop, e.Attempt+1 // with the one that was not allowed
	case proto.KindDeadline:
		c.Kind, c.Name = proto.CauseStageDeadline, e.Stage
	case proto.KindAborted:
		c.Kind = proto.CauseAbort
	default:
		return c, false
	}
	return c, true
}

// ownWord reports whether a source brings what a system without an agent says of itself. What the frontend saw or concluded
// never proves that a system runs.
func ownWord(src proto.Source) bool {
	return src == proto.SourceCallback || strings.HasPrefix(string(src), "compat:")
}

// see merges a place into those of a key.
func see(r *Registers[Seen], key string, pos Pos) {
	was, ok := r.Get(key)
	if !ok {
		was = Seen{pos, pos}
	}
	if was.First.after(pos) {
		was.First = pos
	}
	was.Last = later(was.Last, pos)
	r.Put(key, was)
}

// boot adds to what a kernel boot was.
func (s *State) boot(id string, learn func(*Booted)) {
	b, _ := s.Boots.Get(id)
	learn(&b)
	s.Boots.Put(id, b)
	s.Boots = s.Boots[:min(len(s.Boots), maxBoots)] // no honest install has so many; which one goes must not depend on order
}

// wait keeps the last word on whether the agent waits.
func (s *State) wait(w Wait) {
	if w.Pos.after(s.Wait.Pos) {
		s.Wait = w
	}
}

// answered keeps what became of the last order.
func (s *State) answered(e *proto.Event, pos Pos) {
	if !pos.after(s.Answer.Pos) {
		return
	}
	s.Answer = Note{Pos: pos}
	if e.Failed {
		s.Answer.Text = "order " + e.Order
		if e.Step != "" {
			s.Answer.Text += " of step " + e.Step
		}
		s.Answer.Text += ": " + e.Message
	}
}

func (s *State) step(e *proto.Event, pos Pos) {
	key := stepKey(e.Phase, e.Step)
	was, ok := s.Steps.Get(key)
	if ok && !pos.after(was.Pos) {
		return
	}
	if !ok {
		key = unique.Make(key).Value() // many installs have the same steps
	}
	s.Steps.Put(key, Step{Pos: pos, Try: e.Try, Outcome: e.Outcome, Exit: e.Exit, Signal: e.Signal,
		DurationMS: e.DurationMS, Warning: e.Warning})
}

func stepKey(phase proto.Phase, name string) string { return string(phase) + "/" + name }

// stepOf is a key's step. No phase has a slash in it.
func stepOf(key string) (proto.Phase, string) {
	phase, name, _ := strings.Cut(key, "/")
	return proto.Phase(phase), name
}

// first is the earlier of two places, of which a may be none.
func first(a, b Pos) Pos {
	if a.zero() || a.after(b) {
		return b
	}
	return a
}

func later(a, b Pos) Pos {
	if b.after(a) {
		return b
	}
	return a
}

// insert keeps a set ordered by place, without repeats, at most max of the latest.
func insert[T interface{ place() Pos }](set []T, v T, max int) []T {
	i, found := slices.BinarySearchFunc(set, v.place(), func(t T, p Pos) int { return t.place().Compare(p) })
	if found {
		return set
	}
	set = slices.Insert(set, i, v)
	if len(set) > max {
		set = set[len(set)-max:]
	}
	return set
}

func (f Failure) place() Pos { return f.Pos }
func (n Note) place() Pos    { return n.Pos }

// Words replaces the names of the state by what f makes of them: one copy of each, for states that are read back.
func (s *State) Words(f func(string) string) {
	for i := range s.Stages {
		s.Stages[i].Key = f(s.Stages[i].Key)
	}
	for i := range s.Steps {
		st := &s.Steps[i]
		st.Key, st.Value.Outcome = f(st.Key), proto.Outcome(f(string(st.Value.Outcome)))
	}
}
