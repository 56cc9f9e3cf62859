// SPDX-License-Identifier: Apache-2.0

package run

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"provost/proto"
)

// sayEvery is how often a hold says its reason on the consoles.
const sayEvery = time.Minute

// held waits before step s, where an operator or the wait file said so, until it is released. It gives a cause when the
// wait ends otherwise.
func (r *runner) held(ctx context.Context, s proto.Step, e proto.Event) *proto.Event {
	e.Kind, e.Phase, e.Step = proto.KindHold, r.o.Phase, s.Name
	r.append(e)
	byFile := e.Order == "wait"
	var cause *proto.Event
	// An order that changed something, but does not end the hold: the journal says that it is still held.
	still := func(changed bool) {
		if changed {
			r.append(e)
		}
	}
	r.standBy(ctx, e, func() bool {
		if byFile {
			if _, err := os.Lstat(r.o.WaitFile); err != nil {
				r.endHold(e, proto.OutcomeOK, r.o.WaitFile+" is gone: the plan goes on")
				return true
			}
		}
		for _, o := range r.orders() {
			switch o.Verb {
			case proto.VerbRelease:
				r.carriedOut(o, "", "")
				r.ignored = true
				return true
			case proto.VerbAbort:
				r.carriedOut(o, s.Name, "")
				cause = r.stopped(s, proto.OutcomeAborted, abortMessage(o))
				return true
			case proto.VerbSkip:
				taken := r.skip(o, s)
				if r.history.done(s, r.o.Phase) {
					r.ignored = true
					return true
				}
				still(taken)
			case proto.VerbForce:
				r.forceOrder(o)
			case proto.VerbHold:
				r.carriedOut(o, "", "it is held already")
			case proto.VerbRetry:
				still(r.retryBefore(o, s))
			}
		}
		return false
	}, func(why string, o proto.Outcome) { cause = r.stopped(s, o, why) })
	return cause
}

// failed does what is to be done when the plan has failed, and reports whether the steps are to go on. Who aborts a plan
// wants its end: then nothing is held.
func (r *runner) failed(ctx context.Context, cause proto.Event) bool {
	if cause.Cause == proto.CauseAbort || r.result.Action != ActNone {
		return false
	}
	switch r.onFailure() {
	case proto.OnFailurePoweroff:
		r.result.Action = ActPoweroff
		return false
	case proto.OnFailureDisk:
		r.result.Action = ActDisk
		return false
	case proto.OnFailureExit:
		return false
	}
	if ctx.Err() != nil {
		return false
	}
	msg := fmt.Sprintf("phase %s failed at step %s (%s): %s. Orders: provost retry|skip|release %s, here: provost-agent retry|skip|release",
		r.o.Phase, cause.Step, summary(cause), cause.Message, r.plan.Node)
	e := proto.Event{Kind: proto.KindHold, Phase: r.o.Phase, Step: cause.Step, Failed: true, Message: msg}
	r.append(e)
	again := false
	r.standBy(ctx, e, func() bool {
		for _, o := range r.orders() {
			if ended := r.order(o, cause, &again); ended {
				return true
			}
		}
		return false
	}, func(string, proto.Outcome) {})
	return again
}

// order carries out one order while a failed plan is held, and reports whether that ends the hold.
func (r *runner) order(o proto.Order, cause proto.Event, again *bool) bool {
	named := func() bool { return o.Step == "" || o.Step == cause.Step }
	switch o.Verb {
	case proto.VerbRetry:
		if !named() {
			r.carriedOut(o, o.Step, "step "+cause.Step+" is the one that failed")
			return false
		}
		if !r.newPlan(o) {
			return false
		}
		r.carriedOut(o, cause.Step, "")
		*again = true
		return true
	case proto.VerbSkip:
		if !named() {
			r.carriedOut(o, o.Step, "step "+cause.Step+" is the one that failed")
			return false
		}
		r.carriedOut(o, cause.Step, "")
		i := slices.IndexFunc(r.steps(), func(s proto.Step) bool { return s.Name == cause.Step })
		if i >= 0 {
			r.skipped(r.steps()[i], o)
		}
		*again = true
		return true
	case proto.VerbRelease, proto.VerbAbort:
		r.carriedOut(o, cause.Step, "")
		r.result.Released = true
		return true
	case proto.VerbForce:
		r.forceOrder(o)
	case proto.VerbHold:
		r.carriedOut(o, "", "it is held already")
	}
	return false
}

// onFailure is what a failure leads to. A failing step never keeps an installed system from booting, unless the caller
// says so.
func (r *runner) onFailure() proto.OnFailure {
	if r.o.OnFailure != "" {
		return r.o.OnFailure
	}
	if r.o.Phase == proto.PhaseFirstboot || r.o.Phase == proto.PhaseBoot {
		return proto.OnFailureExit
	}
	return r.plan.OnFailure
}

// endHold records that a hold ended without an order.
func (r *runner) endHold(e proto.Event, o proto.Outcome, why string) {
	e.Outcome, e.Message, e.Warning = o, why, !o.Good()
	r.append(e)
}

// standBy waits until over says so, says the hold's reason on the consoles each minute, and gives up at the plan's hold limit,
// after which the machine is to be powered off, or when the context ends. over records why the hold ends; giving up is
// recorded here.
func (r *runner) standBy(ctx context.Context, e proto.Event, over func() bool, gaveUp func(why string, o proto.Outcome)) {
	reason := e.Message
	limit := r.plan.HoldLimit.D()
	if limit <= 0 {
		limit = proto.DefaultHoldLimit
	}
	r.state.set(func(st *State) { st.Waiting, st.Message = true, reason })
	defer r.state.set(func(st *State) { st.Waiting, st.Message = false, "" })
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(ordersEvery)
	defer tick.Stop()
	say := time.NewTicker(sayEvery)
	defer say.Stop()
	r.d.Consoles.Say("provost: " + reason)
	// A hold lasts for days, and the installer's memory is small.
	r.d.rest()
	debug.FreeOSMemory()
	if r.d.Idle != nil {
		r.d.Idle()
	}
	for !over() {
		select {
		case <-tick.C:
		case <-say.C:
			debug.FreeOSMemory()
			r.d.Consoles.Say("provost: " + reason)
		case <-end.C:
			why := fmt.Sprintf("nobody gave an order within the hold limit of %s: the machine is powered off", proto.Duration(limit))
			r.endHold(e, proto.OutcomeAborted, why)
			r.d.Consoles.Say("provost: " + why)
			gaveUp(why, proto.OutcomeAborted)
			r.result.Action = ActPoweroff
			return
		case <-ctx.Done():
			const why = "the agent was told to stop while it waited"
			r.endHold(e, proto.OutcomeInterrupted, why)
			gaveUp(why, proto.OutcomeInterrupted)
			return
		}
	}
}
