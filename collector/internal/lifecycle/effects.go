// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"strings"

	"provost/proto"
)

// effect is one row of the table of events: what an event does to the state of its install. Every row whose condition holds
// has its effect, and none looks at what another one did.
type effect struct {
	event string // the condition, for people
	when  func(*proto.Event) bool
	what  string // the effect, for people
	do    func(*State, *proto.Event, Pos)
	why   string
}

var effects = []effect{
	{
		"any that has a stage, but for a failed one, a stall, a missed deadline, and a step's word of `booted` or `sealed`", milestone,
		"the stage was reached", func(s *State, e *proto.Event, p Pos) { see(&s.Stages, e.Stage, p) },
		"whoever saw it; a step cannot know what only the whole system shows",
	},
	{
		"any of the agent", fromAgent,
		"the node's last word", func(s *State, _ *proto.Event, p Pos) { s.LastSeen = later(s.LastSeen, p) },
		"of the node itself: no log stands for that",
	},
	{
		"of the agent: phase `pre` or `post`, `sealed`, stage `agent-started`", ofInstaller,
		"this kernel boot is an installer's", func(s *State, e *proto.Event, p Pos) { s.boot(e.Boot, func(b *Booted) { b.Installer = true }) },
		"whatever else is said in it, it is no installed system",
	},
	{
		"of the agent: good `run-end` of phase `firstboot`, or `stage` `booted` that is no step's and not of phase `boot`", systemDone,
		"the system of this kernel boot is done", func(s *State, e *proto.Event, p Pos) { s.boot(e.Boot, func(b *Booted) { b.Done = first(b.Done, p) }) },
		"the proof of a node with a disk; a stage that an installer waits for, or that failed, is none",
	},
	{
		"of the agent: good `run-end` of phase `boot`, or `stage` `booted` of it that is no step's", stepsDone,
		"the steps of this kernel boot are done", func(s *State, e *proto.Event, p Pos) { s.boot(e.Boot, func(b *Booted) { b.Steps = first(b.Steps, p) }) },
		"the proof of a node without a disk, whose boot is an installer's, too",
	},
	{
		"`stage` `booted` of a callback or another system's client", told,
		"a system without an agent is booted", func(s *State, e *proto.Event, p Pos) { see(&s.Told, string(e.Source), p) },
		"it counts where the profile trusts that source; what the frontend saw never proves that a system runs",
	},
	{
		"`hold` without an outcome, of the agent", func(e *proto.Event) bool { return fromAgent(e) && e.Kind == proto.KindHold && e.Outcome == "" },
		"the agent waits for orders", func(s *State, e *proto.Event, p Pos) { s.wait(Wait{p, true, e.Failed, e.Message}) },
		"with `failed`, because of a failure",
	},
	{
		"of the agent: an order carried out, but `force`; `agent-start`, `run-start`, `step-start`, `step-end`, `run-end`, `sealed`; `hold` with an outcome, also of the deadlines", waitEnds,
		"it waits no more", func(s *State, _ *proto.Event, p Pos) { s.wait(Wait{Pos: p}) },
		"whatever it does next, it does not wait; an order that it refused leaves it waiting",
	},
	{
		"`hold` with a bad outcome", func(e *proto.Event) bool { return waitEnds(e) && e.Kind == proto.KindHold && !e.Outcome.Good() },
		"a warning", func(s *State, e *proto.Event, p Pos) {
			s.Notes = insert(s.Notes, Note{Pos: p, Text: e.Message}, maxNotes)
		},
		"nobody gave an order in time",
	},
	{
		"`order`", func(e *proto.Event) bool { return e.Kind == proto.KindOrder },
		"the last order's fate: a warning if it was refused", func(s *State, e *proto.Event, p Pos) { s.answered(e, p) },
		"who gave it must see that nothing came of it, and why, until a later one is carried out",
	},
	{
		"`order` `retry` or `skip`, carried out", func(e *proto.Event) bool { return carriedOut(e, proto.VerbRetry) || carriedOut(e, proto.VerbSkip) },
		"closes the failures before it", func(s *State, _ *proto.Event, p Pos) { s.Closed = later(s.Closed, p) },
		"the agent goes on after them",
	},
	{
		"`order` `skip`, carried out", func(e *proto.Event) bool { return carriedOut(e, proto.VerbSkip) },
		"a warning, also in the summary", func(s *State, e *proto.Event, p Pos) { s.Skips = insert(s.Skips, Note{Pos: p, Text: e.Step}, maxNotes) },
		"what is booted without a step is not what the plan says",
	},
	{
		"`step-start`, `step-end`", func(e *proto.Event) bool { return e.Kind == proto.KindStepStart || e.Kind == proto.KindStepEnd },
		"the last word on the step", (*State).step,
		"later tries stand for earlier ones",
	},
	{
		"`attempt`", func(e *proto.Event) bool { return e.Kind == proto.KindAttempt },
		"what was before belongs to an earlier attempt", func(s *State, e *proto.Event, p Pos) {
			s.Attempt, s.Began = max(s.Attempt, e.Attempt), later(s.Began, p)
		},
		"the boot server allowed the node to begin anew",
	},
	{
		"`stalled`", func(e *proto.Event) bool { return e.Kind == proto.KindStalled },
		"a stage is overdue", func(s *State, e *proto.Event, p Pos) {
			if p.after(s.Stall.Pos) {
				s.Stall = Stall{p, e.Stage}
			}
		},
		"until it or a later one comes",
	},
	{
		"a bad `step-end` or `run-end` without `warning`, a failed `stage`, `loop`, `deadline`, `aborted`", func(e *proto.Event) bool { _, ok := causeOf(e); return ok },
		"a failure", func(s *State, e *proto.Event, p Pos) {
			c, _ := causeOf(e)
			c.At = e.At
			s.Failures = insert(s.Failures, Failure{p, c}, maxFailures)
		},
		"the first that nothing closes is the cause",
	},
	{
		"`note` with `warning`", func(e *proto.Event) bool { return e.Kind == proto.KindNote && e.Warning },
		"a warning", func(s *State, e *proto.Event, p Pos) {
			s.Notes = insert(s.Notes, Note{p, e.Message, e.Topic}, maxNotes)
		}, "",
	},
	{
		"`note` with a topic, without `warning`", func(e *proto.Event) bool { return e.Kind == proto.KindNote && !e.Warning && e.Topic != "" },
		"ends the warnings of its topic before it", func(s *State, e *proto.Event, p Pos) {
			s.Notes = insert(s.Notes, Note{Pos: p, Topic: e.Topic}, maxNotes)
		},
		"what was wrong is mended",
	},
	{
		"`contested`", func(e *proto.Event) bool { return e.Kind == proto.KindContested },
		"a warning that stays", func(s *State, _ *proto.Event, _ Pos) { s.Contested = true },
		"another machine showed this install's claim",
	},
	{
		"`superseded`", func(e *proto.Event) bool { return e.Kind == proto.KindSuperseded },
		"nothing more is expected", func(s *State, _ *proto.Event, _ Pos) { s.Superseded = true },
		"a newer install decides about the node",
	},
}

func fromAgent(e *proto.Event) bool { return e.Source == proto.SourceAgent }

func milestone(e *proto.Event) bool {
	return e.Stage != "" && !e.Failed && e.Kind != proto.KindStalled && e.Kind != proto.KindDeadline && (e.Step == "" || !proto.ReservedStage(e.Stage))
}

func ofInstaller(e *proto.Event) bool {
	return fromAgent(e) && (e.Phase == proto.PhasePre || e.Phase == proto.PhasePost || e.Kind == proto.KindSealed || e.Stage == "agent-started")
}

// saysBooted reports whether an event is a whole system's word that it is up.
func saysBooted(e *proto.Event) bool {
	return e.Kind == proto.KindStage && e.Stage == "booted" && !e.Failed && e.Step == ""
}

func goodEnd(e *proto.Event, p proto.Phase) bool {
	return e.Kind == proto.KindRunEnd && e.Outcome == proto.OutcomeOK && e.Phase == p
}

func systemDone(e *proto.Event) bool {
	return fromAgent(e) && (goodEnd(e, proto.PhaseFirstboot) || saysBooted(e) && e.Phase != proto.PhaseBoot)
}

func stepsDone(e *proto.Event) bool {
	return fromAgent(e) && (goodEnd(e, proto.PhaseBoot) || saysBooted(e) && e.Phase == proto.PhaseBoot)
}

func told(e *proto.Event) bool { return ownWord(e.Source) && saysBooted(e) }

// carriedOut reports whether an event says that an order of a verb was carried out, not refused.
func carriedOut(e *proto.Event, v proto.Verb) bool {
	return e.Kind == proto.KindOrder && !e.Failed && e.Order == string(v)
}

func waitEnds(e *proto.Event) bool {
	switch e.Kind {
	case proto.KindHold:
		return e.Outcome != "" && (fromAgent(e) || e.Source == proto.SourceDeadline)
	case proto.KindOrder:
		return fromAgent(e) && !e.Failed && e.Order != string(proto.VerbForce)
	case proto.KindAgentStart, proto.KindRunStart, proto.KindStepStart, proto.KindStepEnd, proto.KindRunEnd, proto.KindSealed:
		return fromAgent(e)
	}
	return false
}

// closing is one row of the table of causes: what ends a failure that was open.
type closing struct {
	cause  string // for people
	by     string
	closed func(*facts, *Failure) bool
	why    string
}

var closings = []closing{
	{
		"any", "an order to retry or skip that was carried out after it",
		func(f *facts, x *Failure) bool { return f.state.Closed.closes(x.Pos) },
		"the agent goes on; what fails then is the next cause",
	},
	{
		"any", "an attempt that began after it",
		func(f *facts, x *Failure) bool { return f.state.earlier(x.Pos) },
		"it stays as a warning",
	},
	{
		"`loop`, `stage-deadline`", "proof of the installed system",
		func(f *facts, x *Failure) bool { return x.Cause.Kind.Inferred() && !f.booted.zero() },
		"the collector only concluded it, and was wrong",
	},
	{
		"`stage-deadline`", "its stage or a later one of this attempt, whenever that is told",
		func(f *facts, x *Failure) bool {
			return x.Cause.Kind == proto.CauseStageDeadline && f.reached(x.Cause.Name)
		},
		"the node was in time and could not say so, or goes on late",
	},
}

// Effects is the table of events as Markdown, for the documentation.
func Effects() string {
	var b strings.Builder
	b.WriteString("| event | effect | why |\n|---|---|---|\n")
	for _, r := range effects {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.event, r.what, r.why)
	}
	return b.String()
}

// Closings is the table of what closes a cause as Markdown, for the documentation.
func Closings() string {
	var b strings.Builder
	b.WriteString("| cause | closed by | why |\n|---|---|---|\n")
	for _, r := range closings {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.cause, r.by, r.why)
	}
	return b.String()
}
