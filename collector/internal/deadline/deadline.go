// SPDX-License-Identifier: Apache-2.0

// Package deadline says by when an install must have come further, and makes it stalled, then failed, when it has not.
//
// Deadlines are absolute: they follow from the times of events, so that they are the same after a restart. Time in
// which the collector was down, or its disk took nothing, does not count. The package must never end an install that
// waits for an operator, nor decide by anything but what is committed.
package deadline

import (
	"context"
	"log/slog"
	"time"

	"provost/collector/internal/lifecycle"
	"provost/collector/internal/sequence"
	"provost/proto"
)

// Interval is a time that does not count.
type Interval struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Install is what deadlines depend on. Times of zero have not come, durations of zero are without limit.
type Install struct {
	View    *lifecycle.View
	Ordered time.Time
	Within  time.Duration // from Ordered to the first sign of life
	Began   time.Time     // of the attempt, or the end of the last wait for an operator: what was before does not count
	Whole   time.Duration // from Began to the end
	Heard   time.Time     // last heartbeat
	Down    []Interval
}

// Due is the next thing to happen if the install comes no further.
type Due struct {
	Stage     string        // awaited
	Limit     time.Duration // for it
	Since     time.Time     // when the wait for it began; a heartbeat that extends it does not count
	Stall     time.Time     // when the install is stalled
	Fail      time.Time     // when it has failed: twice the limit
	Moved     time.Duration // by how much Stall was put off because the collector was down; MovedFail, Fail
	MovedFail time.Duration
}

// Verdict is what a deadline makes of an install at a time.
type Verdict int

// The verdicts.
const (
	Nothing Verdict = iota
	Stalled
	Failed
)

// Next gives what is due first, false if nothing is: the install is over, or it waits for an operator.
func Next(in Install) (Due, bool) {
	v := in.View
	if v.Ended || v.Waiting {
		return Due{}, false
	}
	switch v.Status {
	case proto.StatusFailed, proto.StatusBooted, proto.StatusHeld:
		return Due{}, false
	}
	var first Due
	found := false
	add := func(stage string, begin, since time.Time, limit time.Duration) {
		if limit <= 0 || since.IsZero() {
			return
		}
		d := Due{Stage: stage, Limit: limit, Since: begin, Stall: after(since, limit, in.Down), Fail: after(since, 2*limit, in.Down)}
		d.Moved, d.MovedFail = d.Stall.Sub(since.Add(limit)), d.Fail.Sub(since.Add(2*limit))
		if !found || d.Stall.Before(first.Stall) {
			first, found = d, true
		}
	}
	if in.Began.IsZero() && (v.Stage == "" || v.Stage == "ordered") {
		add(sequence.FirstSign, in.Ordered, in.Ordered, in.Within)
		return first, found
	}
	if v.Awaited != "" {
		since := v.AwaitedSince
		if in.Began.After(since) {
			since = in.Began
		}
		begin := since
		if v.HeartbeatExtends && in.Heard.After(since) {
			since = in.Heard
		}
		add(v.Awaited, begin, since, v.AwaitedWithin)
	}
	add("booted", in.Began, in.Began, in.Whole)
	return first, found
}

// Decide says what has become of an install at a time.
func Decide(in Install, now time.Time) (Verdict, Due) {
	d, ok := Next(in)
	switch {
	case !ok || now.Before(d.Stall):
		return Nothing, d
	case !now.Before(d.Fail):
		return Failed, d
	case in.View.Status == proto.StatusStalled:
		return Nothing, d
	}
	return Stalled, d
}

// after gives the moment at which limit has passed since a time, the intervals not counted. They are in order and do not
// overlap.
func after(since time.Time, limit time.Duration, down []Interval) time.Time {
	end := since.Add(limit)
	for _, d := range down {
		from := d.From
		if since.After(from) {
			from = since
		}
		if from.Before(end) && d.To.After(from) {
			end = end.Add(d.To.Sub(from))
		}
	}
	return end
}

// Installs is what Run works on.
type Installs interface {
	// Alive notes that the collector works now.
	Alive(ctx context.Context) error
	// Expire writes what deadlines have made of installs by now, and gives how many.
	Expire(ctx context.Context) (int, error)
}

// The pace of Run. An error is said once, then its end.
const (
	tick      = time.Second
	AliveTick = 5 * time.Second
)

// Run watches deadlines until ctx ends.
func Run(ctx context.Context, installs Installs, log *slog.Logger) {
	t := time.NewTicker(tick)
	defer t.Stop()
	var noted time.Time
	failing := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		var err error
		if time.Since(noted) >= AliveTick {
			if err = installs.Alive(ctx); err == nil {
				noted = time.Now()
			}
		}
		if err == nil {
			_, err = installs.Expire(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && failing == 0:
			log.Error("deadlines are not written; trying again each second", "error", err)
			failing++
		case err != nil:
			failing++
		case failing > 0:
			log.Info("deadlines are written again", "failures", failing)
			failing = 0
		}
	}
}
