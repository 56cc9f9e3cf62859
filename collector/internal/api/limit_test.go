// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"provost/collector/internal/api"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// flood makes n requests as fast as it can and counts the answers by status. What is refused says when to come again.
func flood(t *testing.T, n int, make func() *http.Request, c *http.Client) map[int]int {
	t.Helper()
	var mu sync.Mutex
	got, waits := map[int]int{}, map[string]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range n / 8 {
				resp, err := c.Do(make())
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				mu.Lock()
				got[resp.StatusCode]++
				if resp.StatusCode == 429 {
					s := resp.Header.Get("Retry-After")
					waits[s] = true
					if v, err := strconv.Atoi(s); err != nil || v < 5 || v > 15 {
						t.Errorf("Retry-After: %q, want 5 to 15", s)
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got[429] > 100 && len(waits) < 3 {
		t.Errorf("%d refusals have Retry-After %v: all come back at once", got[429], waits)
	}
	return got
}

// TestFlood: an agent that asks without end is refused, and its neighbours are not; in a while it is let in again.
func TestFlood(t *testing.T) {
	site, a, srv := newSite(t)
	client := srv.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 8
	token, install := map[int]string{}, map[int]string{}
	for i := 1; i <= 2; i++ {
		name := fmt.Sprintf("n%d", i)
		mac := site.Add(name, byte(i))
		site.Ordered(name)
		token[i], install[i] = agentOf(t, site, mac, byte(i))
	}
	a.SetAgentRate(0.001, 64) // a slow machine must not refill the bucket while we empty it
	beat := func(i int) func() *http.Request {
		return func() *http.Request {
			body := `{"schema":1,"install":"` + install[i] + `","clock":{"boot":"` + registrytest.Boot(byte(i)) + `","offset_ms":1,"time":"2026-01-01T00:00:00Z"}}`
			req, err := http.NewRequestWithContext(t.Context(), "POST", srv.URL+"/v1/agent/heartbeat", strings.NewReader(body))
			if err != nil {
				t.Error(err)
			}
			req.Header.Set("Authorization", "Bearer "+token[i])
			return req
		}
	}
	if got := flood(t, 800, beat(1), client); got[200] != 64 || got[429] != 736 {
		t.Errorf("800 heartbeats at once = %v, want 64 taken and the others refused", got)
	}
	if got := flood(t, 8, beat(2), client); got[200] != 8 {
		t.Errorf("a neighbour's 8 heartbeats = %v", got)
	}
	hello := func() *http.Request {
		req, err := http.NewRequestWithContext(t.Context(), "POST", srv.URL+"/v1/agent/hello", strings.NewReader(`{"schema":1,"env":"installer","clock":{"boot":"`+registrytest.Boot(7)+`"}}`))
		if err != nil {
			t.Error(err)
		}
		return req
	}
	a.SetHelloRate(0.001, 64)
	if got := flood(t, 800, hello, client); got[401] != 64 || got[429] != 736 {
		t.Errorf("800 hellos without credentials = %v, want 64 looked at and the others refused", got)
	}
	if status, p := ask(t, client, "POST", srv.URL+"/v1/agent/hello", "", "{}"); status != 429 || p.Code != proto.CodeTooMany || !strings.Contains(p.Detail, "127.0.0.1") {
		t.Errorf("the next hello = %d %+v", status, p)
	}
	if got := flood(t, 8, beat(2), client); got[200] != 8 {
		t.Errorf("heartbeats with a token, from the address that floods = %v", got)
	}
}

// TestHonestAgentIsNeverLimited: three agents of one machine, each at its greatest pace for an hour, are never refused.
func TestHonestAgentIsNeverLimited(t *testing.T) {
	const gap = 20 * time.Millisecond // of the agent between two requests
	l := api.NewLimiter(api.InstallRate, api.InstallBurst)
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for at := time.Duration(0); at < time.Hour; at += gap {
		for range 3 {
			if !l.Take("one", begin.Add(at)) {
				t.Fatalf("refused after %v", at)
			}
		}
	}
}

// TestLimiterIsBounded: a million callers need no more room than the bound, do not shut out those who are known, and are
// forgotten.
func TestLimiterIsBounded(t *testing.T) {
	l := api.NewLimiter(1, 10)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 3 * api.MaxBuckets {
		l.Take(strconv.Itoa(i), now)
	}
	if n := l.Size(); n > api.MaxBuckets+1 {
		t.Errorf("%d buckets, at most %d are kept", n, api.MaxBuckets+1)
	}
	if !l.Take("1", now) || l.Take("newcomer", now) {
		t.Error("one who is known is refused, or the newcomers' bucket never ends")
	}
	if now = now.Add(time.Minute); !l.Take("newcomer", now) || l.Size() > 2 {
		t.Errorf("a minute later there are %d buckets, want those of who came since", l.Size())
	}
}
