// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"time"

	"provost/collector/internal/auth"
)

// NewWith makes a handler with one route more, which nobody serves but whose scope counts.
func NewWith(cfg Config, scope auth.Scope) error {
	_, err := newWith(cfg, append(routes(), Route{"GET", "/v1/new", scope, 0, (*API).version}))
	return err
}

// SetAgentRate and SetHelloRate make the bounds so low that a slow machine can exceed them.
func (a *API) SetAgentRate(rate, burst float64) { a.perInstall = newLimiter(rate, burst) }
func (a *API) SetHelloRate(rate, burst float64) { a.perAddress = newLimiter(rate, burst) }

// SetTurns sets how many of the agents' requests may be in hand at once; InHand is how many are.
func (a *API) SetTurns(n int) { a.inHand = make(chan struct{}, n) }
func (a *API) InHand() int    { return len(a.inHand) }

// TakeTurn takes a turn as a request does.
func (a *API) TakeTurn() (giveBack func()) {
	a.inHand <- struct{}{}
	return func() { <-a.inHand }
}

// SetFeedWrite is how long a reader of the feed may take for what it is sent.
func (a *API) SetFeedWrite(d time.Duration) { a.feedWrite = d }

// Limiter is for tests of its arithmetic. Size is how many buckets it has.
type Limiter struct{ *limiter }

func NewLimiter(rate, burst float64) Limiter { return Limiter{newLimiter(rate, burst)} }

func (l Limiter) Take(key string, now time.Time) bool { return l.take(key, now) }
func (l Limiter) Size() int                           { return len(l.buckets) }

// The bounds as they are, for the arithmetic.
const (
	InstallRate  = installRate
	InstallBurst = installBurst
	MaxBuckets   = maxBuckets
)

// PeerName is how the history names a peer of the unix socket, and LoginOf who logged in before it was started.
func PeerName(uid, login uint32) string { return peer{uid, login}.name() }
func LoginOf(pid int32) uint32          { return loginOf(pid) }

// Patient gives the context of a request for n nodes whose usual time is over.
func Patient(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	r := httptest.NewRequestWithContext(ctx, "POST", "/", nil)
	over, cancel := context.WithCancel(ctx)
	cancel()
	c := &call{r: r.WithContext(over), whole: ctx, ctl: http.NewResponseController(httptest.NewRecorder())}
	end := c.patient(n)
	return c.r.Context(), end
}
