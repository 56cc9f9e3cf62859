// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"provost/agent/internal/journal"
	"provost/agent/internal/proc"
	"provost/agent/internal/report"
	"provost/agent/internal/run"
	"provost/proto"
	"provost/proto/prototest"
)

// world is a machine and a collector in virtual time, with a network between them that is a function.
type world struct {
	*testing.T
	c     *prototest.Collector
	dir   report.Dir
	j     *journal.Journal
	id    string
	plan  *proto.Plan
	ca    string
	begin time.Time

	mu       sync.Mutex
	network  func(*http.Request) (*http.Response, error)
	requests int
}

func newWorld(t *testing.T, steps ...proto.Step) *world {
	t.Helper()
	w := &world{T: t, c: prototest.NewHandler(t), dir: report.Dir(filepath.Join(t.TempDir(), "state")), begin: time.Now()}
	w.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(w.ca, w.c.Authority.CertPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	var scripts []prototest.Script
	for _, s := range steps {
		s.Phase = proto.PhasePre
		scripts = append(scripts, prototest.Script{Step: s, Body: "#!/bin/sh\n"})
	}
	w.c.Define(proto.NodeSpec{Name: "n1", MACs: []string{"52:54:00:00:00:01"}})
	w.id, _ = w.c.Install("n1", scripts)
	var err error
	if w.plan, err = proto.DecodePlan(w.c.Plan(w.id).Payload); err != nil {
		t.Fatal(err)
	}
	if err := w.dir.Make(); err != nil {
		t.Fatal(err)
	}
	if err := w.dir.AddScript([]byte("#!/bin/sh\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.dir.SetToken(w.c.Token(w.id, prototest.Boot1)); err != nil {
		t.Fatal(err)
	}
	if w.j, err = journal.Open(string(w.dir), func() (time.Time, string, time.Duration) {
		return time.Now(), prototest.Boot1, time.Since(w.begin)
	}, journal.Options{Install: w.id}); err != nil {
		t.Fatal(err)
	}
	return w
}

// RoundTrip is the network.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests++
	network := w.network
	w.mu.Unlock()
	return network(r)
}

func (w *world) set(network func(*http.Request) (*http.Response, error)) (requests int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	requests, w.requests, w.network = w.requests, 0, network
	return requests
}

// works hands requests to the collector.
func (w *world) works(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = io.NopCloser(strings.NewReader(""))
	}
	w.c.ServeHTTP(rec, r)
	return rec.Result(), nil
}

// hangs never gives an answer, as a network that takes everything and gives nothing.
func hangs(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func refuses(*http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
}

// send runs the sender until stop.
func (w *world) send() (stop func()) {
	w.Helper()
	s, err := report.New(report.Config{
		Dir: w.dir, Journal: w.j, URLs: []string{"https://10.0.0.1:8440"}, CA: w.ca, Node: "n1",
		Hello: func() proto.Hello { return proto.Hello{Version: "test", Env: proto.EnvInstaller, Node: "n1"} },
		Clock: func() proto.Clock {
			return proto.Clock{Boot: prototest.Boot1, OffsetMS: time.Since(w.begin).Milliseconds(), Time: time.Now()}
		},
		Say: func(string) {},
	})
	if err != nil {
		w.Fatal(err)
	}
	s.SetTransport(w)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	return func() { cancel(); <-done }
}

// install runs the plan's steps, each of which takes the time that its name says, and gives how long that took.
func (w *world) install() time.Duration {
	w.Helper()
	began := time.Now()
	r, err := run.Run(context.Background(), run.Deps{
		Journal: w.j, Plan: w.plan, PlanDigest: strings.Repeat("d", 64), StateDir: string(w.dir), Boot: prototest.Boot1, Script: w.dir.Script,
		Acknowledged: func(seq uint64) bool { return report.Delivered(w.dir, w.j, nil, seq, nil) },
		Exec: func(_ context.Context, s proc.Spec) proc.Result {
			fmt.Fprintf(s.Output, "%s\n", s.Name)
			d, err := time.ParseDuration(strings.TrimPrefix(s.Name, "s-"))
			if err != nil {
				w.Error(err)
			}
			time.Sleep(d)
			return proc.Result{Outcome: proto.OutcomeOK, Duration: d}
		},
	}, run.Options{Phase: proto.PhasePre, WaitFile: w.dir.Path("wait")})
	if err != nil || r.Outcome != proto.OutcomeOK {
		w.Errorf("Run = %+v, %v, want ok", r, err)
	}
	return time.Since(began)
}

func named(durations ...string) []proto.Step {
	var out []proto.Step
	for _, d := range durations {
		out = append(out, proto.Step{Name: "s-" + d})
	}
	return out
}

// TestStepsNeverWaitForTheNetwork: with a network that never answers, the plan takes the time of its steps to the
// nanosecond. Time is virtual: whatever waited for the network would show.
func TestStepsNeverWaitForTheNetwork(t *testing.T) {
	for name, network := range map[string]func(*http.Request) (*http.Response, error){"hangs": hangs, "refuses": refuses} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, named("1s", "90s", "7m", "333ms", "1h", "20ms")...)
				defer w.j.Close()
				w.set(network)
				stop := w.send()
				defer stop()
				time.Sleep(time.Second)
				const want = time.Second + 90*time.Second + 7*time.Minute + 333*time.Millisecond + time.Hour + 20*time.Millisecond
				if got := w.install(); got != want {
					t.Errorf("the plan took %s, its steps %s", got, want)
				}
				if n := w.set(network); n < 10 {
					t.Errorf("the sender made %d requests: it did not even try", n)
				}
				if n := len(w.c.Events(w.id)); n != 0 {
					t.Errorf("%d events arrived over a network that is dead", n)
				}
			})
		})
	}
}

// TestCollectorGoneForADay: the collector is gone for the whole install and for a day after it. Then everything arrives,
// once and in order, and with the logs.
func TestCollectorGoneForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, named("10m", "1s", "20m", "3s", "5m")...)
		defer w.j.Close()
		w.set(refuses)
		stop := w.send()
		defer stop()
		w.install()
		if _, err := w.j.Append(proto.Event{Kind: proto.KindSealed, Stage: "sealed"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if n := w.set(w.works); n < 24*60 || n > 24*60*12 { // the wait is 15 s on average, and never longer than 30 s
			t.Errorf("the sender tried %d times in a day", n)
		}
		last, err := w.j.Last()
		if err != nil {
			t.Fatal(err)
		}
		logs := w.j.Logs()
		back := time.Now()
		for !report.Delivered(w.dir, w.j, nil, last, logs) && time.Since(back) < time.Hour {
			time.Sleep(time.Second)
		}
		if d := time.Since(back); d > time.Minute {
			t.Errorf("delivered %s after the collector was back, want a minute at most", d)
		}
		events := w.c.Events(w.id)
		if len(events) != int(last) || last < 13 {
			t.Fatalf("%d events arrived of %d:\n%s", len(events), last, prototest.Describe(events))
		}
		for i, e := range events {
			if e.Seq != uint64(i+1) {
				t.Errorf("event %d is number %d:\n%s", i+1, e.Seq, prototest.Describe(events))
				break
			}
		}
		for _, l := range logs {
			if got := w.c.Log(w.id, l.Name); int64(len(got)) != l.Size {
				t.Errorf("log %s has %d bytes there, want %d", l.Name, len(got), l.Size)
			}
		}
	})
}
