// SPDX-License-Identifier: Apache-2.0

package report

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Timing is the sender's pace. The zero value of a field stands for its default.
type Timing struct {
	Poll time.Duration // how often the journal is looked at: 500 ms
	// Gap is between two requests that have nothing to wait for, of up to 500 events or 1 MiB of a log: 20 ms, 50 a second. The
	// collector counts on it where it tells agents from floods.
	Gap     time.Duration
	Dial    time.Duration // for a connection, and again for its handshake: 10 s
	Request time.Duration // for a whole request: 30 s
	File    time.Duration // for a script, 16 MiB at most, or 1 MiB of a log: 3 min, which is 95 kB/s
	Initial time.Duration // first wait after a failure, on average: 500 ms
	Cap     time.Duration // longest wait after a failure: 30 s
	Slow    time.Duration // wait after a refusal, on average: 30 s
	Ask     time.Duration // wait for an operator who must add or order the node, on average: 10 s
	Beat    time.Duration // between heartbeats until the collector says it: 30 s
	Waiting time.Duration // between heartbeats while the agent waits for orders, at most: 10 s
}

// WithDefaults gives the timing with every default written out.
func (t Timing) WithDefaults() Timing {
	for _, f := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&t.Poll, 500 * time.Millisecond}, {&t.Gap, 20 * time.Millisecond}, {&t.Dial, 10 * time.Second}, {&t.Request, 30 * time.Second}, {&t.File, 3 * time.Minute},
		{&t.Initial, 500 * time.Millisecond}, {&t.Cap, 30 * time.Second}, {&t.Slow, 30 * time.Second}, {&t.Ask, 10 * time.Second},
		{&t.Beat, 30 * time.Second}, {&t.Waiting, 10 * time.Second},
	} {
		if *f.value == 0 {
			*f.value = f.def
		}
	}
	return t
}

// newBackoff is the spool's: it never ends. Factor 1 is full jitter: each wait is uniform in 0 to 2 × interval, and the
// interval grows from Initial by half each time to Cap/2, so that no wait is longer than Cap. From 500 ms to 15 s are
// 9 failures, on average 41 s.
func newBackoff(t Timing) *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(t.Initial),
		backoff.WithMultiplier(1.5),
		backoff.WithMaxInterval(t.Cap/2),
		backoff.WithRandomizationFactor(1),
		backoff.WithMaxElapsedTime(0),
	)
}

// around gives a random time of d/2 to 3d/2, so that a thousand nodes that were refused at once come back one by one.
func around(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// trouble says a failure once for as long as it lasts, and then its end.
type trouble struct {
	say   func(string)
	about string // "reporting events"
	seen  map[string]bool
	last  string
	said  bool
	count int
	since time.Time
}

// key is what makes two failures the same one. Two refusals with the same code are alike whatever their texts, which
// may hold an incident's number, and so are two plans that are refused for the same reason, whose texts may hold a time.
func key(err error) string {
	var r *Refused
	var n *errNoPlan
	switch {
	case errors.As(err, &r) && r.Problem.Status != 200:
		return fmt.Sprintf("%d %s", r.Problem.Status, r.Problem.Code)
	case errors.As(err, &n):
		for err = n; errors.Unwrap(err) != nil; {
			err = errors.Unwrap(err)
		}
	}
	return err.Error()
}

// failed says text, unless the like of it was said since the last success, or quietly.
func (t *trouble) failed(err error, text string, quiet bool) {
	if t.count == 0 {
		t.seen, t.since, t.said = map[string]bool{}, time.Now(), false
	}
	t.count++
	t.last = text
	if k := key(err); !t.seen[k] && len(t.seen) < 20 {
		t.seen[k] = true
		if !quiet {
			t.said = true
			t.say(fmt.Sprintf("%s: %s; trying again", t.about, text))
		}
	}
}

// over says that it works again, if it was said that it did not.
func (t *trouble) over() {
	if t.count > 0 && t.said {
		t.say(fmt.Sprintf("%s: works again after %d failures in %s", t.about, t.count, time.Since(t.since).Round(time.Second)))
	}
	t.count = 0
}

// pace says how long to wait after a failure, and whether it concerns every request (the collector or the way to it
// is in trouble) or only this kind of request.
func pace(err error, t Timing, b *backoff.ExponentialBackOff) (wait time.Duration, all bool) {
	var r *Refused
	var u *Unreachable
	switch {
	case errors.As(err, &u):
		return b.NextBackOff(), true
	case !errors.As(err, &r): // ours: a disk, a plan
		return around(t.Ask), false
	}
	switch s := r.Problem.Status; {
	case s == 429 || s >= 500:
		// up to a tenth on top of what the collector wishes, so that not all come at the same moment
		return max(b.NextBackOff(), r.RetryAfter+rand.N(r.RetryAfter/10+1)), true
	case s >= 400:
		return max(around(t.Slow), r.RetryAfter), false
	default: // a redirect, or a 200 that makes no sense
		return b.NextBackOff(), false
	}
}
