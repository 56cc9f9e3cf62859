// SPDX-License-Identifier: Apache-2.0

package run

import (
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"time"

	"provost/agent/internal/proc"
	"provost/proto"
)

const (
	// retryBase and retryCap bound the pause before a further try: try n waits between half and all of min(5s*2^(n-1), 60s).
	// The most that a plan may ask for, 20 retries, waits 5+10+20+40+16*60 = 1035 s at most, some 17 minutes.
	retryBase = 5 * time.Second
	retryCap  = time.Minute
	// ordersEvery is how often orders are looked for while a step runs or the plan waits.
	ordersEvery = 500 * time.Millisecond
)

// pause is the time before the retry after n failed tries, n from 1.
func pause(n int) time.Duration {
	d := retryCap
	if n < 5 {
		d = min(retryBase<<(n-1), retryCap)
	}
	return d/2 + rand.N(d/2+1)
}

// step runs a step with its retries, and gives its end when the plan cannot go on after it.
func (r *runner) step(ctx context.Context, s proto.Step) *proto.Event {
	if r.history.interrupted(s, r.o.Phase) && !s.Rerunnable {
		msg := "the machine or the agent died while it ran, and it may be half done: see what it did, then retry, or skip it; " +
			"with rerunnable: true it would have run again"
		if p := r.history.steps[key(r.o.Phase, s.Name)]; p.open {
			return r.end(s, proto.Event{Try: p.tries, Outcome: proto.OutcomeInterrupted, Message: msg}, false)
		}
		return r.refuse(s, proto.OutcomeInterrupted, msg)
	}
	if p := r.history.steps[key(r.o.Phase, s.Name)]; p.open { // every start has an end
		r.end(s, proto.Event{Try: p.tries, Outcome: proto.OutcomeInterrupted, Message: "the machine or the agent died while it ran; it runs again"}, true)
	}
	for n := 1; ; n++ {
		e := r.try(ctx, s)
		if e.Outcome.Good() {
			return r.end(s, e, false)
		}
		again := n <= s.Retries && !s.Asks(e.Exit) && e.Outcome != proto.OutcomePreflight && e.Outcome != proto.OutcomeAborted && e.Outcome != proto.OutcomeInterrupted
		warn := s.OnFailure == "warn" && e.Outcome != proto.OutcomeAborted && e.Outcome != proto.OutcomeInterrupted
		cause := r.end(s, e, again || warn)
		switch {
		case !again && warn:
			r.result.Warnings = append(r.result.Warnings, fmt.Sprintf("step %s: %s", s.Name, summary(e)))
			return nil
		case !again:
			return cause
		}
		d := pause(n)
		if cause := r.rest(ctx, s, d, fmt.Sprintf("try %d failed, the next in %s", e.Try, d.Round(time.Second))); cause != nil {
			return cause
		}
	}
}

// summary is an end in few words, as a status shows it.
func summary(e proto.Event) string {
	switch e.Outcome {
	case proto.OutcomeFailed:
		return fmt.Sprintf("exit status %d", e.Exit)
	case proto.OutcomeSignal:
		return e.Signal
	}
	return string(e.Outcome)
}

// rest is the pause before a further try. An abort, or the agent's end, ends it and the plan.
func (r *runner) rest(ctx context.Context, s proto.Step, d time.Duration, why string) *proto.Event {
	r.state.set(func(st *State) { st.Message = why })
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(ordersEvery)
	defer tick.Stop()
	for {
		select {
		case <-end.C:
			return nil
		case <-ctx.Done():
			return r.stopped(s, proto.OutcomeInterrupted, "the agent was told to stop before the next try")
		case <-tick.C:
			if o := r.takeAbort(); o != nil {
				r.carriedOut(*o, s.Name, "")
				return r.stopped(s, proto.OutcomeAborted, abortMessage(*o))
			}
		}
	}
}

func abortMessage(o proto.Order) string {
	msg := "aborted"
	if o.Actor != "" {
		msg += " by " + o.Actor
	}
	if o.Reason != "" {
		msg += ": " + o.Reason
	}
	return msg
}

// logName is the name of a step's log. A long name is cut, with a checksum that keeps it apart from its like. An installer
// that starts anew has forgotten its logs, but the collector has not: theirs are "-a2" for the second attempt, "-r1" after
// its first announced restart.
func (r *runner) logName(step string) string {
	suffix := ""
	if r.d.Attempt > 1 {
		suffix = fmt.Sprintf("-a%d", r.d.Attempt)
	}
	restarts := 0
	for _, e := range r.d.Progress {
		if e.Kind == proto.KindReboot {
			restarts++
		}
	}
	if restarts > 0 {
		suffix += fmt.Sprintf("-r%d", restarts)
	}
	most := 64 - len(".log") - len(suffix)
	if len(step) > most {
		step = fmt.Sprintf("%s-%08x", strings.TrimRight(step[:most-9], "."), crc32.ChecksumIEEE([]byte(step)))
	}
	return step + suffix + ".log"
}

// try runs a step once and gives its end, not yet recorded.
func (r *runner) try(ctx context.Context, s proto.Step) proto.Event {
	n := r.history.nextTry(s)
	e := proto.Event{Try: n, Log: r.logName(s.Name)}
	start := r.append(proto.Event{Kind: proto.KindStepStart, Phase: r.o.Phase, Step: s.Name, Try: n, Log: e.Log})
	r.history.apply(start)
	r.point("step-started")
	r.state.later(func(st *State) { st.Step, st.Try, st.Message, st.Progress = s.Name, n, "", 0 }) // prepare writes it

	digest := ""
	var err error
	if s.Run == proto.RunOnChange {
		r.state.set(func(*State) {}) // that takes a while
		if digest, err = r.changeDigest(s); err == nil {
			err = r.succeeded(s, "")
		}
	}
	var where place
	var on laid
	if err == nil {
		where, on, err = r.prepare(s, n, e.Log)
		defer on.close()
	}
	if err != nil {
		e.Outcome, e.Message, e.Log = proto.OutcomePreflight, err.Error(), ""
		return e
	}
	spec := where.spec
	switch {
	case on.file != nil:
		spec.LeaveRunning, spec.OutputFile = true, on.file
	case on.log != nil:
		spec.Output = on.log
	}
	spec.Started = func(pid int, cgroup string) {
		start := uint64(0)
		if cgroup == "" { // else the cgroup says well enough whose a process is
			start = startOf(r.d.Processes, pid)
		}
		r.state.set(func(st *State) { st.StepPID, st.StepStart, st.StepCgroup = pid, start, cgroup })
	}

	ctx, cancel := context.WithCancelCause(ctx)
	status := &statusFile{path: where.status, r: r, step: s.Name, try: n}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		r.attend(ctx, cancel, s, status)
	}()
	r.point("step-prepared")
	res := r.d.Exec(ctx, spec)
	r.point("step-ran")
	cancel(nil)
	said := status
	if !proc.Within(r.d.diskWait, func() { <-watched; said.finish() }) {
		status.leave()
		status = &statusFile{}
		r.note(s.Name, fmt.Sprintf("what step %s said of itself at its end is not known: the disk of its PROVOST_STATUS does not answer within %s", s.Name, r.d.diskWait), true)
	}

	e.Outcome, e.Exit, e.Signal, e.DurationMS = res.Outcome, res.Exit, res.Signal, res.Duration.Milliseconds()
	e.Message, e.Tail = res.Message, res.Tail
	if status.message != "" && (e.Message == "" || e.Outcome == proto.OutcomeFailed) {
		e.Message = status.message
	}
	if e.Outcome == proto.OutcomeAborted {
		if o := status.abort; o != nil {
			e.Message = abortMessage(*o)
		}
	}
	if e.Outcome == proto.OutcomeFailed && s.Asks(e.Exit) {
		e = r.asks(s, e)
	}
	if e.Outcome.Good() {
		e.Tail = nil
	}
	if e.Outcome == proto.OutcomeOK && !e.Again && digest != "" {
		if s.Persists == "outside" && r.d.Changes != nil {
			e.Change = r.d.Changes.Keyed(digest)
		}
		defer r.point("success-kept")
		if err := r.succeeded(s, digest); err != nil {
			r.note(s.Name, "the next run will not know that it was done: "+err.Error(), true)
		}
	}
	r.left(s, res)
	gone := r.state.later // nothing of the step is left
	if len(res.Stragglers) > 0 {
		gone = r.state.set // what goes on is not to be ended by the next run
	}
	gone(func(st *State) { st.StepPID, st.StepStart, st.StepCgroup = 0, 0, "" })
	return e
}

// left notes what a step left behind.
func (r *runner) left(s proto.Step, res proc.Result) {
	if len(res.Stragglers) > 0 {
		names := make([]string, len(res.Stragglers))
		stuck := false
		for i, p := range res.Stragglers {
			names[i] = p.String()
			stuck = stuck || !p.Killed
		}
		what := "they were ended; leave-running: true would have kept them"
		switch {
		case s.LeaveRunning:
			what = "they go on"
		case stuck:
			what = "not all could be ended"
		}
		r.note(s.Name, fmt.Sprintf("step %s left %d processes behind: %s: %s", s.Name, len(names), strings.Join(names, ", "), what), stuck && !s.LeaveRunning)
	}
	if res.Lost > 0 {
		r.note(s.Name, fmt.Sprintf("%d bytes of the output of step %s are lost: the log was too slow", res.Lost, s.Name), true)
	}
}

// attend looks after a running step: what it says in its status file, and whether it is to be aborted.
func (r *runner) attend(ctx context.Context, cancel context.CancelCauseFunc, s proto.Step, status *statusFile) {
	tick := time.NewTicker(ordersEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		status.poll()
		if o := r.takeAbort(); o != nil {
			r.carriedOut(*o, s.Name, "")
			status.abort = o
			cancel(proc.ErrAbort)
			return
		}
	}
}

// startOf gives when a process started, 0 if that cannot be known.
func startOf(list proc.Processes, pid int) uint64 {
	if list == nil {
		return 0
	}
	all, err := list()
	if err != nil {
		return 0
	}
	for _, p := range all {
		if p.PID == pid {
			return p.Start
		}
	}
	return 0
}
