// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"provost/collector/internal/lifecycle"
	"provost/proto"
)

const (
	bootA = "aaaaaaaa-0000-4000-8000-000000000001" // the installer's
	bootB = "bbbbbbbb-0000-4000-8000-000000000002" // the installed system's
	jrn   = "0123456789abcdef"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func sequence() lifecycle.Sequence {
	q := lifecycle.Sequence{Family: "generic"}
	for _, n := range []string{"ordered", "bootscript-sent", "kernel-sent", "agent-started", "partitioned", "post-started", "post-done",
		"sealed", "bootaction-disk", "disk-booted", "firstboot-started", "firstboot-done", "booted"} {
		q.Stages = append(q.Stages, lifecycle.Stage{Name: n, Within: proto.Duration(5 * time.Minute), Optional: n == "partitioned" || n == "bootaction-disk"})
	}
	return q
}

func inputs() lifecycle.Inputs {
	return lifecycle.Inputs{Sequence: sequence(), Trust: []proto.Source{proto.SourceAgent, proto.SourceBoot}}
}

// story writes events down one second apart. Events of the agent are numbered as its journal would.
type story struct {
	events []proto.Event
	seq    uint64
	boot   string
}

func (s *story) add(e proto.Event) *story {
	e.At = start.Add(time.Duration(len(s.events)) * time.Second)
	if e.Source == "" {
		e.Source, e.Journal, e.Boot = proto.SourceAgent, jrn, s.boot
		s.seq++
		e.Seq = s.seq
	} else {
		e.Seq = uint64(1000 + len(s.events))
	}
	s.events = append(s.events, e)
	return s
}

func (s *story) ordered() *story {
	s.boot = bootA
	return s.add(proto.Event{Kind: proto.KindOrdered, Source: proto.SourceOperator, Stage: "ordered"})
}

func (s *story) attempt(n int) *story {
	return s.add(proto.Event{Kind: proto.KindAttempt, Source: proto.SourceBoot, Stage: "bootscript-sent", Attempt: n})
}

func (s *story) agent() *story {
	return s.add(proto.Event{Kind: proto.KindAgentStart, Stage: "agent-started"})
}

func (s *story) post() *story {
	return s.add(proto.Event{Kind: proto.KindRunStart, Phase: proto.PhasePost, Stage: "post-started"})
}

func (s *story) begin(step string, try int) *story {
	return s.add(proto.Event{Kind: proto.KindStepStart, Phase: proto.PhasePost, Step: step, Try: try})
}

func (s *story) end(step string, try int, o proto.Outcome, rc int) *story {
	return s.add(proto.Event{Kind: proto.KindStepEnd, Phase: proto.PhasePost, Step: step, Try: try, Outcome: o, Exit: rc})
}

func (s *story) runEnd(o proto.Outcome) *story {
	e := proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhasePost, Outcome: o}
	if o.Good() {
		e.Stage = "post-done"
	} else {
		e.Step, e.Try, e.Exit = "b", 1, 4
	}
	return s.add(e)
}

func (s *story) hold() *story {
	return s.add(proto.Event{Kind: proto.KindHold, Failed: true, Message: "step failed"})
}

func (s *story) order(v proto.Verb, step string) *story {
	return s.add(proto.Event{Kind: proto.KindOrder, Order: string(v), Step: step})
}

// refused is an order as the agent records that it did not carry it out.
func (s *story) refused(v proto.Verb, step, why string) *story {
	return s.add(proto.Event{Kind: proto.KindOrder, Order: string(v), Step: step, Failed: true, Message: "not carried out: " + why})
}

// holdEnds is the end of a hold to which nobody gave an order.
func (s *story) holdEnds(o proto.Outcome, failed bool) *story {
	return s.add(proto.Event{Kind: proto.KindHold, Failed: failed, Outcome: o, Message: "nobody gave an order"})
}

// word is what an agent reports as a stage, in the installed system's boot.
func (s *story) word(e proto.Event) *story {
	s.boot = bootB
	if e.Kind == "" {
		e.Kind = proto.KindStage
	}
	return s.add(e)
}

// late makes the last event one that happened before the n events before it, and came late.
func (s *story) late(n int) *story {
	e := &s.events[len(s.events)-1]
	e.At = e.At.Add(-time.Duration(n)*time.Second - time.Millisecond)
	return s
}

func (s *story) sealed() *story {
	s.add(proto.Event{Kind: proto.KindSealed, Stage: "sealed"})
	return s.add(proto.Event{Kind: proto.KindBootAction, Source: proto.SourceBoot, Stage: "bootaction-disk", Message: "disk"})
}

func (s *story) firstboot(done bool) *story {
	s.boot = bootB
	s.add(proto.Event{Kind: proto.KindAgentStart, Stage: "disk-booted"})
	s.add(proto.Event{Kind: proto.KindRunStart, Phase: proto.PhaseFirstboot, Stage: "firstboot-started"})
	if done {
		s.add(proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhaseFirstboot, Outcome: proto.OutcomeOK, Stage: "firstboot-done"})
		s.add(proto.Event{Kind: proto.KindStage, Stage: "booted"})
	}
	return s
}

func (s *story) stalled(stage string) *story {
	return s.add(proto.Event{Kind: proto.KindStalled, Source: proto.SourceDeadline, Stage: stage})
}

func (s *story) deadline(stage string) *story {
	return s.add(proto.Event{Kind: proto.KindDeadline, Source: proto.SourceDeadline, Stage: stage})
}

func (s *story) note(topic string, warning bool) *story {
	return s.add(proto.Event{Kind: proto.KindNote, Source: "log:dnsmasq", Topic: topic, Warning: warning, Message: "it is about " + topic})
}

func begin() *story { return new(story).ordered() }

func failing() *story {
	return begin().attempt(1).agent().post().begin("a", 1).end("a", 1, proto.OutcomeOK, 0).begin("b", 1).end("b", 1, proto.OutcomeFailed, 4).
		runEnd(proto.OutcomeFailed).hold()
}

func fold(events []proto.Event) *lifecycle.State {
	s := new(lifecycle.State)
	for i := range events {
		s.Apply(&events[i])
	}
	return s
}

func TestView(t *testing.T) {
	tests := []struct {
		name    string
		story   *story
		summary string
		waiting bool
		awaited string
		warns   int
	}{
		{"nothing heard", begin(), "ordered", false, "bootscript-sent", 0},
		{"boot script sent", begin().attempt(1), "pxe-booting", false, "kernel-sent", 0},
		{"agent up", begin().attempt(1).agent(), "installing", false, "post-started", 0},
		{"steps run", begin().attempt(1).agent().post().begin("a", 1), "postinstall", false, "post-done", 0},
		{"sealed", begin().attempt(1).agent().post().runEnd(proto.OutcomeOK).sealed(), "rebooting", false, "disk-booted", 0},
		{"first boot", begin().attempt(1).agent().post().runEnd(proto.OutcomeOK).sealed().firstboot(false), "firstboot", false, "firstboot-done", 0},
		{"booted", begin().attempt(1).agent().post().runEnd(proto.OutcomeOK).sealed().firstboot(true), "booted", false, "", 0},
		{"step fails", failing(), "failed(b=4)", true, "", 0},
		{"step times out", begin().agent().post().end("b", 1, proto.OutcomeTimeout, 0), "failed(b=timeout)", false, "", 0},
		{"step is killed", begin().agent().add(proto.Event{Kind: proto.KindStepEnd, Phase: proto.PhasePost, Step: "b", Try: 1,
			Outcome: proto.OutcomeSignal, Signal: "SIGKILL"}), "failed(b=SIGKILL)", false, "", 0},
		{"step cannot start", begin().agent().post().end("b", 1, proto.OutcomePreflight, 0), "failed(b=preflight)", false, "", 0},
		{"plan did not come", begin().agent().add(proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhasePre, Outcome: proto.OutcomeFailed,
			Cause: proto.CausePlan}), "failed(plan)", false, "", 0},
		{"installer fails", begin().agent().add(proto.Event{Kind: proto.KindStage, Stage: "partitioned", Failed: true, Message: "no disk"}),
			"failed(installer)", false, "", 0},
		{"a failed try that is tried again", begin().agent().post().add(proto.Event{Kind: proto.KindStepEnd, Phase: proto.PhasePost, Step: "b",
			Try: 1, Outcome: proto.OutcomeFailed, Exit: 1, Warning: true}).begin("b", 2).end("b", 2, proto.OutcomeOK, 0), "postinstall", false, "post-done", 0},
		{"a failure that only warns", begin().agent().post().add(proto.Event{Kind: proto.KindStepEnd, Phase: proto.PhasePost, Step: "b", Try: 1,
			Outcome: proto.OutcomeFailed, Exit: 1, Warning: true}).runEnd(proto.OutcomeOK), "postinstall", false, "sealed", 1},
		{"the first cause stands", begin().agent().post().end("b", 1, proto.OutcomeFailed, 4).end("c", 1, proto.OutcomeFailed, 9), "failed(b=4)", false, "", 0},
		{"retry closes it", failing().order(proto.VerbRetry, "b").begin("b", 2).end("b", 2, proto.OutcomeOK, 0).runEnd(proto.OutcomeOK),
			"postinstall", false, "sealed", 0},
		{"retry fails again", failing().order(proto.VerbRetry, "b").begin("b", 2).end("b", 2, proto.OutcomeFailed, 5).runEnd(proto.OutcomeFailed).hold(),
			"failed(b=5)", true, "", 0},
		{"skip, then booted", failing().order(proto.VerbSkip, "b").end("b", 1, proto.OutcomeSkipped, 0).runEnd(proto.OutcomeOK).sealed().firstboot(true),
			"booted(skipped=b)", false, "", 1},
		{"release leaves the cause", failing().order(proto.VerbRelease, ""), "failed(b=4)", false, "", 0},
		{"an operator's hold", begin().agent().add(proto.Event{Kind: proto.KindHold, Order: "hold", Message: "hold"}), "held", true, "", 0},
		{"a hold released", begin().agent().add(proto.Event{Kind: proto.KindHold, Order: "hold", Message: "hold"}).order(proto.VerbRelease, "").post(),
			"postinstall", false, "post-done", 0},
		{"stalled", begin().attempt(1).stalled("kernel-sent"), "stalled(kernel-sent)", false, "kernel-sent", 0},
		{"an installer that waits for somebody", begin().attempt(1).agent().add(proto.Event{Kind: proto.KindStalled, Stage: "post-started"}), "stalled(post-started)", false, "post-started", 0},
		{"somebody answered", begin().attempt(1).agent().add(proto.Event{Kind: proto.KindStalled, Stage: "post-started"}).post(), "postinstall", false, "post-done", 0},
		{"a stall is cleared by the stage", begin().attempt(1).stalled("kernel-sent").add(proto.Event{Kind: proto.KindStage,
			Source: proto.SourceBoot, Stage: "kernel-sent"}), "pxe-booting", false, "agent-started", 0},
		{"a stall is cleared by a later stage", begin().attempt(1).stalled("kernel-sent").agent(), "installing", false, "post-started", 0},
		{"the last deadline", begin().attempt(1).stalled("kernel-sent").deadline("kernel-sent"), "failed(stage-deadline)", false, "", 0},
		{"heard again after the last deadline", begin().attempt(1).stalled("kernel-sent").deadline("kernel-sent").agent(), "installing", false, "post-started", 1},
		{"the agent's cause replaces an inferred one", begin().attempt(1).agent().post().deadline("post-done").end("b", 1, proto.OutcomeFailed, 4),
			"failed(b=4)", false, "", 1},
		{"loop", begin().attempt(1).agent().add(proto.Event{Kind: proto.KindLoop, Source: proto.SourceBoot, Attempt: 1}), "failed(loop=2)", false, "", 0},
		{"a look at the disk finds nothing", begin().attempt(1).agent().post().attempt(2).agent().add(proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhasePre,
			Outcome: proto.OutcomeFailed, Cause: proto.CauseLoop, Attempt: 2}), "failed(loop=2)", false, "", 0},
		{"a step's failure goes before the loop", begin().attempt(1).agent().post().end("b", 1, proto.OutcomeFailed, 4).
			add(proto.Event{Kind: proto.KindLoop, Source: proto.SourceBoot, Attempt: 1}), "failed(b=4)", false, "", 1},
		{"an allowed attempt begins anew", failing().attempt(2), "pxe-booting", false, "kernel-sent", 1},
		{"booted needs another boot id", func() *story {
			s := begin().attempt(1).agent().post().runEnd(proto.OutcomeOK).sealed().firstboot(false)
			s.boot = bootA
			return s.add(proto.Event{Kind: proto.KindStage, Stage: "booted"})
		}(), "firstboot", false, "", 0},
		{"booted without a seal", begin().attempt(1).agent().firstboot(true), "booted", false, "", 1},
		{"a foreign word of booted is not trusted", begin().attempt(1).add(proto.Event{Kind: proto.KindStage, Source: "compat:xcat", Stage: "booted",
			Boot: bootB}), "firstboot", false, "", 0},
		{"a foreign failure is not trusted", begin().attempt(1).add(proto.Event{Kind: proto.KindStage, Source: "compat:xcat", Stage: "partitioned",
			Failed: true}), "pxe-booting", false, "kernel-sent", 0},
		{"what was wrong is mended", begin().note("file a", true).note("file a", false), "ordered", false, "bootscript-sent", 0},
		{"something else is mended", begin().note("file a", true).note("file b", false), "ordered", false, "bootscript-sent", 1},
		{"mended, and wrong again", begin().note("file a", true).note("file a", false).note("file a", true), "ordered", false, "bootscript-sent", 1},
		{"a refused retry leaves it waiting, and says why", failing().refused(proto.VerbRetry, "a", "step b is the one that failed"), "failed(b=4)", true, "", 1},
		{"a refused skip skips nothing", failing().refused(proto.VerbSkip, "a", "step b is the one that failed").order(proto.VerbRetry, "b").begin("b", 2).
			end("b", 2, proto.OutcomeOK, 0).runEnd(proto.OutcomeOK).sealed().firstboot(true), "booted", false, "", 0},
		{"a refused release leaves it running", begin().agent().post().refused(proto.VerbRelease, "", "nothing is held"), "postinstall", false, "post-done", 1},
		{"refused, then retried", failing().refused(proto.VerbRetry, "a", "no").order(proto.VerbRetry, "b"), "postinstall", false, "post-done", 0},
		{"retried, then refused", failing().order(proto.VerbRetry, "b").refused(proto.VerbRetry, "b", "no"), "postinstall", false, "post-done", 1},
		{"refused in an earlier attempt", failing().refused(proto.VerbRetry, "a", "no").attempt(2), "pxe-booting", false, "kernel-sent", 1},
		{"a hold at its limit", failing().holdEnds(proto.OutcomeAborted, true), "failed(b=4)", false, "", 1},
		{"the hold of an agent that was ended", failing().holdEnds(proto.OutcomeInterrupted, true), "failed(b=4)", false, "", 1},
		{"a run that died while it held", failing().runEnd(proto.OutcomeFailed), "failed(b=4)", false, "", 0},
		{"a step's end is no wait", begin().agent().post().add(proto.Event{Kind: proto.KindHold, Order: "hold", Message: "hold"}).end("b", 1, proto.OutcomeSkipped, 0),
			"postinstall", false, "post-done", 0},
		{"held on, after a step was skipped", begin().agent().post().add(proto.Event{Kind: proto.KindHold, Order: "hold", Message: "hold"}).order(proto.VerbSkip, "c").
			end("c", 1, proto.OutcomeSkipped, 0).add(proto.Event{Kind: proto.KindHold, Order: "hold", Message: "hold"}), "held", true, "", 1},
		{"/tmp/wait is gone", begin().agent().add(proto.Event{Kind: proto.KindHold, Order: "wait", Message: "wait"}).holdEnds(proto.OutcomeOK, false), "installing", false, "post-started", 0},
		{"it waited, and is gone", failing().add(proto.Event{Kind: proto.KindHold, Source: proto.SourceDeadline, Outcome: proto.OutcomeInterrupted, Message: "gone"}), "failed(b=4)", false, "", 1},
		{"a boot server ends no hold", failing().add(proto.Event{Kind: proto.KindHold, Source: proto.SourceBoot, Outcome: proto.OutcomeInterrupted, Message: "gone"}), "failed(b=4)", true, "", 0},
		{"the stage was reached in time, and told late", begin().attempt(1).stalled("kernel-sent").deadline("kernel-sent").add(proto.Event{Kind: proto.KindStage,
			Source: proto.SourceBoot, Stage: "kernel-sent"}).late(2), "pxe-booting", false, "agent-started", 1},
		{"an earlier stage, told late", begin().attempt(1).stalled("agent-started").deadline("agent-started").add(proto.Event{Kind: proto.KindStage,
			Source: proto.SourceBoot, Stage: "kernel-sent"}).late(2), "failed(stage-deadline)", false, "", 0},
		{"a stage that the sequence has not", begin().attempt(1).agent().stalled("racked"), "stalled(racked)", false, "post-started", 0},
		{"it came", begin().attempt(1).agent().stalled("racked").word(proto.Event{Stage: "racked"}), "installing", false, "post-started", 0},
		{"no first sign, in a sequence without one", begin().stalled("dhcp-discover"), "stalled(dhcp-discover)", false, "bootscript-sent", 0},
		{"the first sign, whatever it is", begin().stalled("dhcp-discover").add(proto.Event{Kind: proto.KindStage, Source: proto.SourceBoot, Stage: "kernel-sent"}),
			"pxe-booting", false, "agent-started", 0},
		{"the whole install is late, and a doubtful word says booted", begin().attempt(1).stalled("booted").deadline("booted").add(proto.Event{Kind: proto.KindStage,
			Source: "compat:xcat", Stage: "booted", Boot: bootB}), "failed(stage-deadline)", false, "", 0},
		{"the whole install is late, and done", begin().attempt(1).agent().sealed().stalled("booted").deadline("booted").firstboot(true), "booted", false, "", 1},
		{"the agent's booted", begin().attempt(1).agent().sealed().word(proto.Event{Stage: "booted", Phase: proto.PhaseFirstboot}), "booted", false, "", 0},
		{"a step says booted", begin().attempt(1).agent().post().sealed().word(proto.Event{Stage: "booted", Phase: proto.PhaseFirstboot, Step: "a", Try: 1}),
			"rebooting", false, "disk-booted", 0},
		{"a step says sealed", begin().attempt(1).agent().post().word(proto.Event{Stage: "sealed", Step: "a", Try: 1}), "postinstall", false, "post-done", 0},
		{"booted failed", begin().attempt(1).agent().sealed().word(proto.Event{Stage: "booted", Failed: true}), "failed(installer)", false, "", 0},
		{"an installer waits for booted", begin().attempt(1).agent().sealed().word(proto.Event{Kind: proto.KindStalled, Stage: "booted"}), "stalled(booted)", false, "disk-booted", 0},
		{"phase boot on a node with a disk", begin().attempt(1).agent().sealed().word(proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhaseBoot, Outcome: proto.OutcomeOK}).
			word(proto.Event{Stage: "booted", Phase: proto.PhaseBoot}), "firstboot", false, "", 0},
		{"aborted", begin().attempt(1).add(proto.Event{Kind: proto.KindAborted, Source: proto.SourceOperator}), "failed(abort)", false, "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := fold(tt.story.events).View(inputs())
			if v.Summary != tt.summary || v.Waiting != tt.waiting || v.Awaited != tt.awaited || len(v.Warnings) != tt.warns {
				t.Errorf("View() = %s waiting=%v awaited=%q warnings=%q, want %s waiting=%v awaited=%q and %d warnings",
					v.Summary, v.Waiting, v.Awaited, v.Warnings, tt.summary, tt.waiting, tt.awaited, tt.warns)
			}
		})
	}
}

func TestCauseHasTheEvidence(t *testing.T) {
	s := begin().agent().post().add(proto.Event{Kind: proto.KindStepEnd, Phase: proto.PhasePost, Step: "b", Try: 2, Outcome: proto.OutcomeFailed,
		Exit: 127, DurationMS: 312000, Message: "dnf: command not found", Tail: []string{"x"}, Log: "b.log"})
	got := fold(s.events).View(inputs()).Cause
	want := &proto.Cause{Kind: proto.CauseStep, Name: "b", Phase: proto.PhasePost, Exit: 127, DurationMS: 312000, Try: 2,
		Message: "dnf: command not found", Tail: []string{"x"}, Log: "b.log", Source: proto.SourceAgent, At: start.Add(3 * time.Second)}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Cause (-want +got):\n%s", d)
	}
}

// TestAnyOrder folds random events, honest or not, in two orders with repeats, with the state sent through a
// checkpoint in between: state and view must be the same.
func TestAnyOrder(t *testing.T) {
	kinds := []proto.Kind{proto.KindAgentStart, proto.KindStage, proto.KindRunStart, proto.KindStepStart, proto.KindStepEnd, proto.KindRunEnd,
		proto.KindHold, proto.KindOrder, proto.KindSealed, proto.KindNote, proto.KindAttempt, proto.KindContested, proto.KindLoop, proto.KindStalled,
		proto.KindDeadline, proto.KindAborted, proto.KindSuperseded}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 150).Draw(t, "n")
		events := make([]proto.Event, n)
		for i := range events {
			e := proto.Event{
				Kind:    rapid.SampledFrom(kinds).Draw(t, "kind"),
				Source:  rapid.SampledFrom([]proto.Source{proto.SourceAgent, proto.SourceBoot, proto.SourceOperator, "log:dnsmasq"}).Draw(t, "source"),
				Seq:     uint64(i + 1),
				At:      start.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "at")) * time.Second), // many at the same time
				Boot:    fmt.Sprintf("aaaaaaaa-0000-4000-8000-%012d", rapid.IntRange(0, 80).Draw(t, "boot")),
				Phase:   rapid.SampledFrom(proto.Phases).Draw(t, "phase"),
				Step:    rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "step"),
				Stage:   rapid.SampledFrom(append([]string{"", "odd"}, proto.Stages...)).Draw(t, "stage"),
				Outcome: rapid.SampledFrom(proto.Outcomes).Draw(t, "outcome"),
				Order:   string(rapid.SampledFrom(proto.Verbs).Draw(t, "order")),
				Try:     rapid.IntRange(1, 3).Draw(t, "try"),
				Attempt: rapid.IntRange(1, 4).Draw(t, "attempt"),
				Failed:  rapid.Bool().Draw(t, "failed"),
				Warning: rapid.Bool().Draw(t, "warning"),
				Message: "m",
			}
			if e.Source == proto.SourceAgent {
				e.Journal = rapid.SampledFrom([]string{jrn, "fedcba9876543210"}).Draw(t, "journal")
			}
			events[i] = e
		}
		other := rapid.Permutation(append(events, events[:rapid.IntRange(0, n).Draw(t, "repeats")]...)).Draw(t, "order")
		want, got := fold(events), new(lifecycle.State)
		cut := rapid.IntRange(0, len(other)).Draw(t, "checkpoint")
		for i := range other {
			if i == cut {
				b, err := json.Marshal(got)
				if err != nil {
					t.Fatal(err)
				}
				got = new(lifecycle.State)
				if err := json.Unmarshal(b, got); err != nil {
					t.Fatal(err)
				}
			}
			got.Apply(&other[i])
		}
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b lifecycle.Pos) bool { return a.Compare(b) == 0 })); d != "" {
			t.Fatalf("state differs by order (-want +got):\n%s", d)
		}
		if d := cmp.Diff(want.View(inputs()), got.View(inputs())); d != "" {
			t.Fatalf("view differs by order (-want +got):\n%s", d)
		}
	})
}

// TestFailureStands: whatever the agent says has failed, in the millisecond in which the last attempt began or later, and
// that no order answers, is seen as failed: whoever else says something at the same time.
func TestFailureStands(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := func() time.Time {
			return start.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "at")) * time.Millisecond)
		}
		var events []proto.Event
		var began, failed time.Time
		for i := range rapid.IntRange(1, 12).Draw(t, "n") {
			e := proto.Event{At: at(), Seq: uint64(i + 1), Boot: bootA, Phase: proto.PhasePost, Step: "a", Try: 1,
				Source: proto.SourceAgent, Journal: rapid.SampledFrom([]string{"0000000000000000", jrn, "ffffffffffffffff"}).Draw(t, "journal")}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				e.Kind, e.Attempt, e.Journal, e.Boot = proto.KindAttempt, i, "", ""
				e.Source = rapid.SampledFrom([]proto.Source{proto.SourceAuth, proto.SourceBoot}).Draw(t, "source")
				if e.At.After(began) {
					began = e.At
				}
			case 1:
				e.Kind, e.Outcome, e.Exit = proto.KindStepEnd, proto.OutcomeFailed, 4
				if e.At.After(failed) {
					failed = e.At
				}
			case 2:
				e.Kind, e.Outcome = proto.KindStepEnd, proto.OutcomeOK
			case 3:
				e.Kind, e.Stage, e.Journal, e.Boot, e.Source = proto.KindStage, "kernel-sent", "", "", proto.SourceBoot
			}
			events = append(events, e)
		}
		v := fold(events).View(inputs())
		if want := !failed.IsZero() && !failed.Before(began); (v.Status == proto.StatusFailed) != want {
			t.Fatalf("View() = %s, the last failure is at %v, the last attempt began at %v\n%+v", v.Summary, failed.Sub(start), began.Sub(start), events)
		}
	})
}

// TestOrderInTheSameMillisecond: within a journal the sequence says what an order answers; between two, time alone.
func TestOrderInTheSameMillisecond(t *testing.T) {
	for _, tt := range []struct {
		name           string
		journal        string // of the order
		seq            uint64
		failure, order time.Duration
		want           proto.Status
	}{
		{"after it in the journal", jrn, 3, 0, 0, proto.StatusOrdered},
		{"before it in the journal", jrn, 1, 0, 0, proto.StatusFailed},
		{"in the next journal, in the same millisecond", "ffffffffffffffff", 3, 0, 0, proto.StatusFailed},
		{"in the next journal, later", "0000000000000000", 1, 0, time.Millisecond, proto.StatusOrdered},
	} {
		s := fold([]proto.Event{
			{Kind: proto.KindStepEnd, Source: proto.SourceAgent, Journal: jrn, Seq: 2, Boot: bootA, At: start.Add(tt.failure), Phase: proto.PhasePost,
				Step: "a", Try: 1, Outcome: proto.OutcomeFailed, Exit: 4},
			{Kind: proto.KindOrder, Source: proto.SourceAgent, Journal: tt.journal, Seq: tt.seq, Boot: bootA, At: start.Add(tt.order), Order: string(proto.VerbRetry)},
		})
		if v := s.View(inputs()); v.Status != tt.want {
			t.Errorf("an order %s: View() = %s, want %s", tt.name, v.Status, tt.want)
		}
	}
}

// TestBootedIsNeverInferred: whatever else is heard, without a word of the agent that first boot is done, in a boot
// that was no installer's, no View says booted; and no failure hides that.
func TestBootedIsNeverInferred(t *testing.T) {
	kinds := []proto.Kind{proto.KindStage, proto.KindStage, proto.KindStage, proto.KindStepEnd, proto.KindSealed, proto.KindStalled, proto.KindAttempt, proto.KindRunEnd, proto.KindRunStart,
		proto.KindAgentStart, proto.KindHold, proto.KindOrder, proto.KindNote}
	rapid.Check(t, func(t *rapid.T) {
		s := begin()
		for range rapid.IntRange(0, 60).Draw(t, "n") {
			e := proto.Event{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"),
				Source: rapid.SampledFrom([]proto.Source{"", "", "", "", proto.SourceBoot, "log:dnsmasq", "compat:xcat", proto.SourceCallback}).Draw(t, "source"),
				Stage:  rapid.SampledFrom(proto.Stages).Draw(t, "stage"),
				Phase:  rapid.SampledFrom(append([]proto.Phase{""}, proto.Phases...)).Draw(t, "phase"),
				Step:   rapid.SampledFrom([]string{"", "a"}).Draw(t, "step"), Failed: rapid.Bool().Draw(t, "failed"),
				Try: 1, Outcome: rapid.SampledFrom(proto.Outcomes).Draw(t, "outcome")}
			if rapid.Bool().Draw(t, "says booted") {
				e.Stage = "booted"
			}
			s.boot = fmt.Sprintf("bbbbbbbb-0000-4000-8000-%012d", rapid.IntRange(0, 19).Draw(t, "boot")) // some are no installer's
			word := e.Kind == proto.KindStage && e.Stage == "booted" && !e.Failed && e.Step == "" && e.Phase != proto.PhaseBoot
			end := e.Kind == proto.KindRunEnd && e.Outcome == proto.OutcomeOK && e.Phase == proto.PhaseFirstboot
			if e.Source == "" && (word || end) { // the two proofs that there are
				continue
			}
			s.add(e)
		}
		state := fold(s.events)
		state.Failures = nil
		if v := state.View(inputs()); v.Status == proto.StatusBooted {
			t.Fatalf("View() = booted by %+v", s.events)
		}
	})
}

// TestDiskless: the end of phase boot proves a diskless node, in whatever order the events come, and proves nothing of a node
// with a disk whose installer says so.
func TestDiskless(t *testing.T) {
	s := begin().attempt(1).agent()
	s.add(proto.Event{Kind: proto.KindRunStart, Phase: proto.PhaseBoot, Stage: "boot-started"})
	s.add(proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhaseBoot, Outcome: proto.OutcomeOK, Stage: "boot-done"})
	in := inputs()
	in.Sequence.Stages = append(in.Sequence.Stages[:4:4], lifecycle.Stage{Name: "boot-started"}, lifecycle.Stage{Name: "boot-done"}, lifecycle.Stage{Name: "booted"})
	in.Diskless = true
	rapid.Check(t, func(rt *rapid.T) {
		v := fold(rapid.Permutation(s.events).Draw(rt, "events")).View(in)
		if v.Status != proto.StatusBooted || len(v.Warnings) > 0 {
			rt.Fatalf("View = %s, warnings %q, want booted", v.Summary, v.Warnings)
		}
	})
	in.Diskless = false
	if v := fold(s.events).View(in); v.Status == proto.StatusBooted {
		t.Errorf("View of a node with a disk = %s, want not booted", v.Summary)
	}
}

// TestTrust is the whole matrix: each source, trusted or not, says that the node has booted or that it has failed. What a source
// may say decides only where it is trusted; that a node has booted the agent can say, or a system without one, and no log or boot
// server. The operator and the collector's
// own deadlines and loops are not the site's to distrust.
func TestTrust(t *testing.T) {
	type word struct {
		name string
		e    proto.Event
	}
	failed := []word{
		{"an installer's failure", proto.Event{Kind: proto.KindStage, Stage: "partitioned", Failed: true}},
		{"a step's failure", proto.Event{Kind: proto.KindStepEnd, Phase: proto.PhasePost, Step: "b", Try: 1, Outcome: proto.OutcomeFailed, Exit: 4}},
		{"a phase's failure", proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhasePost, Outcome: proto.OutcomeFailed, Step: "b", Exit: 4}},
	}
	booted := []word{
		{"the stage booted", proto.Event{Kind: proto.KindStage, Stage: "booted"}},
		{"the end of firstboot", proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhaseFirstboot, Outcome: proto.OutcomeOK, Stage: "firstboot-done"}},
	}
	always := []proto.Source{proto.SourceOperator, proto.SourceDeadline, proto.SourceAuth}
	for _, src := range []proto.Source{proto.SourceAgent, proto.SourceBoot, proto.SourceOperator, proto.SourceDeadline, proto.SourceAuth,
		proto.SourceCallback, "log:dnsmasq", "log:installer", "compat:xcat", "log:", ""} {
		for _, trust := range [][]proto.Source{nil, {src}, {proto.SourceAgent, proto.SourceBoot}, {"log:dnsmasq2", "log", "compat:xca"}} {
			trusted := slices.Contains(trust, src)
			try := func(w word) proto.Status {
				s := begin().attempt(1)
				w.e.Source, w.e.Boot, w.e.Seq, w.e.At = src, bootB, 99, start.Add(time.Minute)
				s.events = append(s.events, w.e)
				in := inputs()
				in.Trust = trust
				return fold(s.events).View(in).Status
			}
			for _, w := range failed {
				if got, want := try(w) == proto.StatusFailed, trusted || slices.Contains(always, src); got != want {
					t.Errorf("%s from %q, trusted %q: failed is %t, want %t", w.name, src, trust, got, want)
				}
			}
			for _, w := range booted {
				if got, want := try(w) == proto.StatusBooted, trusted && (src == proto.SourceAgent || w.e.Stage == "booted" && (src == proto.SourceCallback || src == "compat:xcat")); got != want {
					t.Errorf("%s from %q, trusted %q: booted is %t, want %t", w.name, src, trust, got, want)
				}
			}
		}
	}
}
