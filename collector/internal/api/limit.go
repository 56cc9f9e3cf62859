// SPDX-License-Identifier: Apache-2.0

package api

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"provost/proto"
)

// How much one node may ask. An agent sends one request at a time and leaves 20 ms between two, so that a machine with its
// three agents (installer's watch, run, first boot) makes at most 150 requests a second; 300 for ever, and 600 at once, are
// twice and four times of what an honest one can do.
const (
	installRate  = 300 // requests a second of one install's agents
	installBurst = 600
)

// How often one address may say hello without a token. One machine does so every 0.5 to 30 s until it is let in; ten
// thousand of them behind one router that all begin in the same 10 s are 1000 a second, and may come all at once. Such a
// hello that is refused costs no commit.
const (
	helloRate  = 1000
	helloBurst = 10_000
)

// maxBuckets bounds a limiter: some 100 bytes each. Beyond, all newcomers share one bucket.
const maxBuckets = 1 << 16

// limiter is a token bucket for each of many callers. The zero value of a bucket is full.
type limiter struct {
	rate, burst float64

	mu      sync.Mutex
	buckets map[string]bucket
	swept   time.Time
}

// bucket is what a caller had left when it was last seen.
type bucket struct {
	left float64
	at   time.Time
}

func newLimiter(rate, burst float64) *limiter {
	return &limiter{rate: rate, burst: burst, buckets: map[string]bucket{}}
}

// take reports whether a caller may ask now.
func (l *limiter) take(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.buckets[key]
	if !ok && len(l.buckets) >= maxBuckets {
		l.sweep(now)
		if len(l.buckets) >= maxBuckets {
			key = ""
			b, ok = l.buckets[key]
		}
	}
	if !ok {
		b = bucket{l.burst, now}
	}
	b.left, b.at = min(l.burst, b.left+l.rate*now.Sub(b.at).Seconds()), now
	good := b.left >= 1
	if good {
		b.left--
	}
	l.buckets[key] = b
	return good
}

// sweep forgets the buckets that are full again, at most once a second.
func (l *limiter) sweep(now time.Time) {
	if now.Sub(l.swept) < time.Second {
		return
	}
	l.swept = now
	for key, b := range l.buckets {
		if b.left+l.rate*now.Sub(b.at).Seconds() >= l.burst {
			delete(l.buckets, key)
		}
	}
}

// bounded refuses an agent that asks too much: one with a token by its install, another by its address.
func (a *API) bounded(c *call) error {
	now, who := time.Now(), c.who.install
	l := a.perInstall
	if who == "" {
		addr := c.addr()
		if !addr.IsValid() {
			return nil // the unix socket
		}
		l, who = a.perAddress, addr.String()
	}
	if l.take(who, now) {
		return nil
	}
	c.w.Header().Set("Retry-After", strconv.Itoa(5+rand.IntN(11))) // 5 to 15 s, so that not all come back at once
	return problem(429, proto.CodeTooMany, "come again after Retry-After", "%s asks more often than any agent does", who)
}

// addr is where a request came from: not valid over the unix socket.
func (c *call) addr() netip.Addr {
	ap, err := netip.ParseAddrPort(c.r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
