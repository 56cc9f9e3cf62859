// SPDX-License-Identifier: Apache-2.0

package run

import (
	"time"

	"provost/agent/internal/journal"
	"provost/proto"
)

// history is what the journal says of the steps: it is the marker of what was started and what succeeded. step-start is
// on disk before a step starts, step-end after it ended, so a start without an end is a crash in the middle.
type history struct {
	boot   string // this one
	steps  map[string]past
	orders map[string]bool // ids that were carried out
	forced map[string]bool // steps, or "all", that are to run though nothing has changed
	before map[string]bool // boots of this attempt whose restart was announced: what they did is done
}

// past is what is known of one step of one phase.
type past struct {
	tries   int           // started so far
	open    bool          // started, and its end is not known
	boot    string        // of the last start
	outcome proto.Outcome // of the last end
	ended   string        // boot of the last end
	warned  bool          // it failed, and the plan goes on after it
	again   bool          // ordered to run again, whatever was
	passed  bool          // an order passes over it
	owed    *proto.Order  // that order, while the end that it makes is not recorded
	first   time.Time     // of the first start
	took    time.Duration // from then to the last record of it, by the kernels' clocks: the time between two boots does not count
	at      proto.Event   // that record
	exit    int           // of the last end
	asked   int           // ends that asked for a restart, or for another run
	reboots int           // those of them that asked for a restart
	repeat  bool          // the last end asked for another run
	reboot  proto.Event   // the last announced restart
}

func key(p proto.Phase, step string) string { return string(p) + "/" + step }

// readHistory reads what the collector remembers of earlier boots of an installer, and then the journals of the directory:
// of this install, in this and in earlier boots.
func readHistory(j *journal.Journal, install, boot string, progress []proto.Event) (*history, error) {
	h := &history{boot: boot, steps: map[string]past{}, orders: map[string]bool{}, forced: map[string]bool{}, before: map[string]bool{}}
	for _, e := range progress {
		if e.Boot != boot {
			h.before[e.Boot] = true
			h.apply(e)
		}
	}
	for r, err := range j.Events() {
		if err != nil {
			return nil, err
		}
		if r.Event.Install == install {
			h.apply(r.Event)
		}
	}
	return h, nil
}

func (h *history) apply(e proto.Event) {
	k := key(e.Phase, e.Step)
	if p, ok := h.steps[k]; ok && !p.first.IsZero() {
		since := time.Duration(e.OffsetMS-p.at.OffsetMS) * time.Millisecond
		if e.Boot != p.at.Boot { // the wall clock says less only where it was set back
			since = time.Duration(e.OffsetMS) * time.Millisecond
			if wall := e.Time.Sub(p.at.Time); wall > 0 {
				since = min(since, wall)
			}
		}
		p.took += max(0, since)
		p.at = e
		h.steps[k] = p
	}
	switch e.Kind {
	case proto.KindStepStart:
		p := h.steps[k]
		p.tries, p.open, p.boot, p.again, p.repeat = max(p.tries, e.Try), true, e.Boot, false, false
		p.passed, p.owed = false, nil
		delete(h.forced, e.Step)
		if p.first.IsZero() {
			p.first, p.at = e.Time, e
		}
		h.steps[k] = p
	case proto.KindStepEnd:
		p := h.steps[k]
		p.open, p.outcome, p.warned, p.ended, p.owed = false, e.Outcome, e.Warning, e.Boot, nil
		p.tries = max(p.tries, e.Try)
		p.again = p.again && !e.Outcome.Good()
		p.exit, p.repeat = e.Exit, e.Again
		if e.Outcome == proto.OutcomeOK && (e.Again || e.Exit == proto.ExitReboot || e.Exit == proto.ExitPoweroff) {
			p.asked++
			if e.Exit != proto.ExitAgain {
				p.reboots++
			}
		}
		h.steps[k] = p
	case proto.KindReboot:
		p := h.steps[k]
		p.reboot = e
		h.steps[k] = p
	case proto.KindOrder:
		if e.OrderID != "" {
			h.orders[e.OrderID] = true
		}
		if e.Failed {
			return
		}
		switch proto.Verb(e.Order) {
		case proto.VerbForce:
			h.forget(e.Step)
		case proto.VerbSkip:
			p := h.steps[k]
			p.passed, p.owed = true, &proto.Order{Actor: e.Actor, Reason: e.Message}
			h.steps[k] = p
		case proto.VerbRetry:
			p := h.steps[k]
			p.again, p.owed = true, nil
			h.steps[k] = p
		}
	}
}

// forget lets a step, or all, run again.
func (h *history) forget(step string) {
	h.forced[step] = true
	for k, p := range h.steps {
		if step == "all" || k == key(proto.PhasePre, step) || k == key(proto.PhasePost, step) ||
			k == key(proto.PhaseFirstboot, step) || k == key(proto.PhaseBoot, step) {
			p.again, p.owed = true, nil
			h.steps[k] = p
		}
	}
}

// done reports whether the step is not to be run: it succeeded, was skipped by an order, or failed where that is no more
// than a warning. Phase boot begins anew with each boot, but for steps that run once, and after
// a restart that a step asked for.
func (h *history) done(s proto.Step, phase proto.Phase) bool {
	p := h.steps[key(phase, s.Name)]
	if p.open || p.again || p.repeat {
		return false
	}
	if phase == proto.PhaseBoot && s.Run != proto.RunOnce && p.ended != h.boot && !h.before[p.ended] {
		return false
	}
	if p.outcome.Good() {
		return true
	}
	// A warned end of a step that is to succeed is one that another try should have followed.
	return p.warned && s.OnFailure == "warn"
}

// interrupted reports whether the step may be half done, and nobody has said yet what is to become of it.
func (h *history) interrupted(s proto.Step, phase proto.Phase) bool {
	p := h.steps[key(phase, s.Name)]
	if p.again || phase == proto.PhaseBoot && s.Run != proto.RunOnce && p.boot != h.boot && !h.before[p.boot] {
		return false
	}
	return p.open || p.outcome == proto.OutcomeInterrupted
}

func (h *history) nextTry(s proto.Step) int { return h.steps[key(s.Phase, s.Name)].tries + 1 }
