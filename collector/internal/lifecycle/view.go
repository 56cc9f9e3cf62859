// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"provost/collector/internal/sequence"
	"provost/proto"
)

// Inputs are what a View depends on besides the State: the site's say.
type Inputs struct {
	Sequence Sequence
	// Trust lists the sources whose word decides booted and failed. A source that is not among them can advance stages
	// and nothing else.
	Trust []proto.Source
	// Diskless: the install is one boot of a node without a disk, and done when the steps of phase boot are.
	Diskless bool
	// External: the site's own servers boot the node.
	External bool
}

// View is what an operator sees of an install. It can be kept beside the State, for whoever has the same rules.
type View struct {
	Status  proto.Status `json:"status"`
	Rule    string       `json:"rule"` // why it is this status: the reason beside the rule that applied
	Waiting bool         `json:"waiting,omitempty"`
	Summary string       `json:"summary"`
	Stage   string       `json:"stage,omitempty"` // the furthest of the current attempt
	Step    string       `json:"step,omitempty"`  // the failed step, else the running one
	Since   time.Time    `json:"since"`
	// LastSeen is the node's own last word; zero if there was none.
	LastSeen  time.Time    `json:"last_seen,omitzero"`
	Cause     *proto.Cause `json:"cause,omitempty"`
	Warnings  []string     `json:"warnings,omitempty"`
	Attempt   int          `json:"attempt,omitempty"`
	Contested bool         `json:"contested,omitempty"`
	Sealed    bool         `json:"sealed,omitempty"`
	// Ended: nothing more is expected of this install, so its deadlines are over.
	Ended bool `json:"ended,omitempty"`

	// Awaited is the next stage, due AwaitedWithin after AwaitedSince; empty when nothing is awaited.
	Awaited          string        `json:"awaited,omitempty"`
	AwaitedSince     time.Time     `json:"awaited_since,omitzero"`
	AwaitedWithin    time.Duration `json:"awaited_within,omitempty"`
	HeartbeatExtends bool          `json:"heartbeat_extends,omitempty"`

	// Stuck is set of an install that is stalled, or has failed because it was.
	Stuck *proto.Stuck `json:"stuck,omitempty"`
}

// View computes what is to be seen.
func (s *State) View(in Inputs) View {
	f := s.facts(in)
	r := decide(f)
	v := View{
		Status: r.status, Rule: r.why, Since: r.since(f), Summary: r.summary(f),
		Stage: f.stage, Step: f.running, LastSeen: s.LastSeen.At(), Attempt: s.Attempt, Contested: s.Contested,
		Waiting: f.waiting && r.status != proto.StatusBooted, Sealed: f.sealed, Warnings: s.warnings(f),
	}
	if r.status == proto.StatusFailed {
		c := f.cause.Cause
		v.Cause = &c
		if c.Kind != proto.CauseStageDeadline && c.Kind != proto.CauseInstaller {
			v.Step = c.Name
		}
	}
	v.Stuck = f.stuck(r.status)
	v.Ended = s.Superseded || r.status == proto.StatusBooted || r.status == proto.StatusFailed && !f.waiting
	if next, ok := in.Sequence.Next(f.stage); ok && !v.Ended && !f.waiting && r.status != proto.StatusFailed {
		at := in.Sequence.Stages[in.Sequence.Index(f.stage)]
		v.Awaited, v.AwaitedSince, v.AwaitedWithin, v.HeartbeatExtends = next.Name, f.stageAt.At(), at.Within.D(), at.HeartbeatExtends
	}
	return v
}

// stuck says what did not come, what did, and what that is likely to come from.
func (f *facts) stuck(status proto.Status) *proto.Stuck {
	awaited := f.state.Stall.Stage
	switch {
	case status == proto.StatusFailed && f.cause.Cause.Kind == proto.CauseStageDeadline:
		awaited = f.cause.Cause.Name
	case status != proto.StatusStalled:
		return nil
	}
	e := sequence.Evidence{Last: f.stage, Awaited: awaited, Seen: map[string]bool{}, External: f.in.External}
	for _, seen := range f.state.Stages {
		if st, ok := f.in.Sequence.Find(seen.Key); ok && !f.state.earlier(seen.Value.Last) {
			e.Seen[st.Name] = true
		}
	}
	for _, n := range slices.Backward(f.state.openNotes()) {
		if strings.HasPrefix(string(n.Pos.Source()), "log:") && !f.state.earlier(n.Pos) && !n.Pos.At().Before(f.stageAt.At()) {
			e.Remarks = append(e.Remarks, n.Text)
		}
	}
	st := &proto.Stuck{Stage: awaited, Since: f.stageAt.At(), Last: f.stage, LastAt: f.stageAt.At(), LastSource: f.stageAt.Source()}
	if status != proto.StatusStalled || f.state.Stall.Pos.Source() != proto.SourceAgent { // whose own stalls say what they come from
		st.Likely = f.in.Sequence.Likely(e)
	}
	return st
}

// facts is what the rules look at.
type facts struct {
	state    *State
	in       Inputs
	stage    string // furthest stage of the current attempt
	stageAt  Pos
	index    int // its place in the sequence; -1 without one
	sealed   bool
	cause    *Failure // the first open one
	inferred bool     // the cause is the collector's own conclusion
	booted   Pos      // first proof by the installed system; zero without one
	stalled  bool
	waiting  bool // the agent of the current attempt waits for orders
	running  string
}

func (s *State) facts(in Inputs) *facts {
	f := &facts{state: s, in: in, index: -1, waiting: s.Wait.Waiting && !s.earlier(s.Wait.Pos)}
	for _, stage := range s.Stages {
		name, seen := stage.Key, stage.Value
		if name == "sealed" && !s.earlier(seen.Last) {
			f.sealed = true
		}
		i := in.Sequence.Index(name)
		if i < 0 || s.earlier(seen.Last) {
			continue // a site's own milestone, or of an earlier attempt
		}
		if i > f.index {
			f.index, f.stage, f.stageAt = i, in.Sequence.Stages[i].Name, seen.Last
		}
	}
	if s.trusts(in, proto.SourceAgent) {
		for _, boot := range s.Boots {
			b := boot.Value
			proof := b.Steps
			if !in.Diskless && !b.Installer {
				proof = b.Done
			} else if !in.Diskless {
				continue
			}
			if !proof.zero() && (f.booted.zero() || f.booted.after(proof)) {
				f.booted = proof
			}
		}
	}
	for _, told := range s.Told {
		proof := told.Value.First
		if s.earlier(proof) {
			proof = told.Value.Last
		}
		if s.trusts(in, proto.Source(told.Key)) && !s.earlier(proof) && (f.booted.zero() || f.booted.after(proof)) {
			f.booted = proof
		}
	}
	f.cause, f.inferred = f.firstCause()
	if s.Stall.Stage != "" && !s.earlier(s.Stall.Pos) {
		f.stalled = !f.reached(s.Stall.Stage)
	}
	var last Pos
	for _, step := range s.Steps {
		st := &step.Value
		if st.Outcome == "" && st.Pos.after(last) && !s.earlier(st.Pos) {
			last = st.Pos
			_, f.running = stepOf(step.Key)
		}
	}
	return f
}

// reached reports whether a stage, or a later one of the sequence, was reported in this attempt. A stage that is not in the
// sequence has no later ones, but the first sign of life, for which any behind the order will do. Booted is reached by its
// proof alone: else a word that proves nothing would end the wait for it.
func (f *facts) reached(stage string) bool {
	if stage == "booted" {
		return !f.booted.zero()
	}
	q := f.in.Sequence
	want := q.Index(stage)
	if want < 0 && stage == sequence.FirstSign {
		want = q.Index("ordered") + 1
	}
	for _, seen := range f.state.Stages {
		if f.state.earlier(seen.Value.Last) {
			continue
		}
		if want < 0 && seen.Key == stage || want >= 0 && q.Index(seen.Key) >= want {
			return true
		}
	}
	return false
}

// firstCause is the first failure that nothing closes. The agent's word goes before an inferred cause.
func (f *facts) firstCause() (cause *Failure, inferred bool) {
	for i := range f.state.Failures {
		x := &f.state.Failures[i]
		inf := x.Cause.Kind.Inferred()
		if !inf && x.Cause.Kind != proto.CauseAbort && !f.state.trusts(f.in, x.Pos.Source()) {
			continue
		}
		if slices.ContainsFunc(closings, func(c closing) bool { return c.closed(f, x) }) {
			continue
		}
		if cause == nil || inferred && !inf {
			cause, inferred = x, inf
		}
	}
	return cause, inferred
}

// trusts reports whether a source's word decides. The operator's and the collector's own always do.
func (s *State) trusts(in Inputs, src proto.Source) bool {
	switch src {
	case proto.SourceOperator, proto.SourceDeadline, proto.SourceAuth:
		return true
	}
	return slices.Contains(in.Trust, src)
}

func (s *State) warnings(f *facts) []string {
	var out []string
	if s.Contested {
		out = append(out, "contested: a second machine showed this install's claim")
	}
	for _, sk := range s.Skips {
		out = append(out, fmt.Sprintf("step %s was skipped by an order", sk.Text))
	}
	if s.Answer.Text != "" && !s.earlier(s.Answer.Pos) {
		out = append(out, s.Answer.Text)
	}
	for _, st := range s.StepInfos() {
		if w, _ := s.Steps.Get(stepKey(st.Phase, st.Name)); w.Warning && !w.Outcome.Good() && w.Outcome != "" {
			out = append(out, fmt.Sprintf("step %s: %s; the plan went on", st.Name, describe(w)))
		}
	}
	for _, x := range s.Failures {
		switch {
		case s.earlier(x.Pos):
			if w := "an earlier attempt: " + x.Cause.Summary(); !slices.Contains(out, w) { // a run's end repeats its cause
				out = append(out, w)
			}
		case x.Cause.Kind.Inferred() && f.cause != nil && !f.inferred, x.Cause.Kind.Inferred() && f.cause == nil:
			out = append(out, fmt.Sprintf("was %s before the node was heard again", x.Cause.Summary()))
		}
	}
	if !f.booted.zero() && !f.sealed && !f.in.Diskless {
		out = append(out, "the installer's end was never reported: reports of it were lost")
	}
	for _, n := range s.openNotes() {
		out = append(out, n.Text)
	}
	return out
}

// openNotes are the warnings that nothing mended.
func (s *State) openNotes() []Note {
	var out []Note
	for i, n := range s.Notes {
		mended := n.Topic != "" && slices.ContainsFunc(s.Notes[i+1:], func(m Note) bool { return m.Text == "" && m.Topic == n.Topic })
		if n.Text != "" && !mended {
			out = append(out, n)
		}
	}
	return out
}

func describe(s Step) string {
	switch s.Outcome {
	case proto.OutcomeFailed:
		return fmt.Sprintf("exit status %d", s.Exit)
	case proto.OutcomeSignal:
		return s.Signal
	}
	return string(s.Outcome)
}

// StepInfos gives the steps that have begun, by phase and in the order of their last word.
func (s *State) StepInfos() []proto.StepInfo {
	all := slices.Clone(s.Steps)
	phase := func(key string) int {
		p, _ := stepOf(key)
		return slices.Index(proto.Phases, p)
	}
	slices.SortFunc(all, func(a, b Entry[Step]) int {
		return cmp.Or(cmp.Compare(phase(a.Key), phase(b.Key)), a.Value.Pos.Compare(b.Value.Pos))
	})
	out := make([]proto.StepInfo, len(all))
	for i, e := range all {
		st := e.Value
		out[i] = proto.StepInfo{Try: st.Try, Outcome: st.Outcome, Exit: st.Exit, Signal: st.Signal, DurationMS: st.DurationMS, At: st.Pos.At()}
		out[i].Phase, out[i].Name = stepOf(e.Key)
	}
	return out
}

func (s *State) skipped() string {
	var names []string
	for _, sk := range s.Skips {
		if !slices.Contains(names, sk.Text) {
			names = append(names, sk.Text)
		}
	}
	return strings.Join(names, ",")
}
