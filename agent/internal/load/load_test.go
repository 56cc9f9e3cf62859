// SPDX-License-Identifier: Apache-2.0

package load_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/agent/internal/load"
	"provost/agent/internal/report"
	"provost/proto"
	"provost/proto/prototest"
)

// site is a fake collector with installs ordered, and a crowd for it.
func site(t *testing.T, change func(*load.Config)) (*prototest.Collector, map[string]string, *load.Fleet) {
	t.Helper()
	c := prototest.New(t)
	cfg := load.Config{
		URLs: []string{c.URL()}, CA: "sha256:" + proto.Digest(c.Authority.CertDER), JoinKey: c.JoinKey, Dir: t.TempDir(), Prefix: "n",
		Agents: 6, Steps: 23, Logs: 4, Lines: 8, Over: time.Second, Ramp: 100 * time.Millisecond,
		Timing: report.Timing{Poll: 10 * time.Millisecond, Initial: 10 * time.Millisecond, Cap: 100 * time.Millisecond},
	}
	change(&cfg)
	f, err := load.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	installs := map[string]string{}
	for i := range cfg.Agents {
		name := load.Name("n", i)
		c.Define(proto.NodeSpec{Name: name, MACs: []string{load.MAC(i)}})
		installs[name], _ = c.Install(name, []prototest.Script{{Step: proto.Step{Name: "a", Phase: proto.PhasePost}, Body: "#!/bin/sh\n"}})
	}
	return c, installs, f
}

// TestFleet: every agent installs and boots, through lost answers and a collector that is away, and everything arrives.
func TestFleet(t *testing.T) {
	c, installs, f := site(t, func(*load.Config) {})
	var n atomic.Int64
	c.SetFault(func(r *http.Request) prototest.Fault {
		if n.Add(1)%7 == 0 {
			return prototest.Fault{Kind: prototest.FaultLost}
		}
		return prototest.Fault{}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	back := make(chan struct{})
	time.AfterFunc(300*time.Millisecond, func() {
		defer close(back)
		c.Stop()
		time.Sleep(100 * time.Millisecond)
		c.Start()
	})
	err := f.Run(ctx)
	<-back
	if err != nil {
		t.Fatal(err)
	}
	if faults, n := f.Faults(); n != 0 {
		t.Errorf("Faults = %v", faults)
	}
	if w := f.Window(); w.Events != f.Events() || f.Events() != 6*60 || w.P50 <= 0 || w.P99 < w.P50 || w.Max < w.P99 {
		t.Errorf("Window = %+v, want %d events with their latencies", w, f.Events())
	}
	a := f.Acknowledged()
	for node, id := range installs {
		events := c.Events(id)
		acked := map[string]uint64{}
		for i, e := range events {
			events[i].Revision = uint64(i + 1)
			acked[e.Journal] = a.Journals[node+"/"+e.Journal]
		}
		if len(events) != 60 || len(acked) != 2 {
			t.Errorf("%s: %d events of %d journals, want 60 of 2", node, len(events), len(acked))
		}
		if faults := load.VerifyEvents(events, acked); faults != nil {
			t.Errorf("%s: %v", node, faults)
		}
		logs := 0
		for key, size := range a.Logs {
			if name, ok := strings.CutPrefix(key, node+"/"); ok {
				logs++
				if got := c.Log(id, name); !bytes.Equal(got, load.LogText(node, name, 8*64)) || size != 8*64 {
					t.Errorf("%s: log %s has %d bytes, acknowledged %d; want 512", node, name, len(got), size)
				}
			}
		}
		if logs != 4 {
			t.Errorf("%s: %d logs, want 4", node, logs)
		}
	}
}

// TestForgetfulCollector: one that acknowledges what it does not keep is found out, though everything is there in the
// end.
func TestForgetfulCollector(t *testing.T) {
	c, _, f := site(t, func(c *load.Config) { c.Agents, c.Steps, c.Logs = 1, 1, 0 })
	var lied atomic.Bool
	c.SetFault(func(r *http.Request) prototest.Fault {
		if r.URL.Path != "/v1/agent/events" || lied.Swap(true) {
			return prototest.Fault{}
		}
		var q proto.EventsRequest
		if b, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(b, &q) != nil {
			return prototest.Fault{Kind: prototest.FaultReset}
		}
		return prototest.Fault{Kind: prototest.FaultStatus, Status: 200, Body: fmt.Sprintf(`{"next":%d}`, len(q.Events)+1)}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := f.Run(ctx); err != nil {
		t.Fatal(err)
	}
	faults, n := f.Faults()
	if n == 0 || !strings.Contains(faults[0], "wants record 1 of journal") {
		t.Errorf("Faults = %q, %d; want record 1, which was acknowledged, to be missed", faults, n)
	}
}

func TestDrain(t *testing.T) {
	c, _, f := site(t, func(c *load.Config) { c.Over = 4 * time.Second })
	done := make(chan error, 1)
	go func() { done <- f.Run(t.Context()) }()
	begun := func() bool {
		for _, seq := range f.Acknowledged().Journals {
			if seq > 0 {
				return true
			}
		}
		return false
	}
	for end := time.Now().Add(time.Minute); !begun(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no event is acknowledged within a minute")
		}
	}
	c.Stop()
	time.Sleep(300 * time.Millisecond) // events come about that nobody takes
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if took, err := f.Drain(short); err == nil {
		t.Errorf("Drain without a collector = %s, want an error", took)
	}
	c.Start()
	if _, err := f.Drain(t.Context()); err != nil {
		t.Errorf("Drain = %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRunEnds(t *testing.T) {
	_, _, f := site(t, func(c *load.Config) { c.Over = time.Hour })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := f.Run(ctx); err != context.DeadlineExceeded {
		t.Errorf("Run = %v, want its context's error", err)
	}
	_, _, f = site(t, func(c *load.Config) { c.CA = filepath.Join(os.TempDir(), "no-such-file") })
	if err := f.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "agent of n0000") {
		t.Errorf("Run without a CA = %v, want the agent's error", err)
	}
}

func TestVerifyEvents(t *testing.T) {
	const a, b = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"
	good := func() []proto.Event {
		var out []proto.Event
		for i, r := range []struct {
			journal string
			seq     uint64
		}{{a, 1}, {a, 2}, {"", 0}, {b, 1}, {a, 3}} {
			e := proto.Event{Source: proto.SourceOperator, Revision: uint64(10 * i)}
			if r.journal != "" {
				e = proto.Event{Source: proto.SourceAgent, Journal: r.journal, Seq: r.seq, Message: load.Message(r.journal, r.seq), Revision: uint64(10 * i)}
			}
			out = append(out, e)
		}
		slices.Reverse(out) // whatever the order of the answer is
		return out
	}
	at := func(events []proto.Event, journal string, seq uint64) *proto.Event {
		return &events[slices.IndexFunc(events, func(e proto.Event) bool { return e.Journal == journal && e.Seq == seq })]
	}
	for _, tt := range []struct {
		name  string
		acked map[string]uint64
		spoil func([]proto.Event) []proto.Event
		want  []string
	}{
		{"all", map[string]uint64{a: 3, b: 1}, nil, nil},
		{"more than was acknowledged", map[string]uint64{a: 1}, nil, nil},
		{"the end is missing", map[string]uint64{a: 4, b: 1}, nil, []string{"journal " + a + " ends with record 3, all up to 4 were acknowledged"}},
		{"a journal is missing", map[string]uint64{"cccccccccccccccc": 1}, nil,
			[]string{"journal cccccccccccccccc ends with record 0, all up to 1 were acknowledged"}},
		{"doubled", map[string]uint64{a: 3}, func(l []proto.Event) []proto.Event {
			e := *at(l, a, 3)
			e.Revision = 99
			return append(l, e)
		}, []string{"record 3 of journal " + a + " follows on 3"}},
		{"one revision twice", map[string]uint64{a: 3}, func(l []proto.Event) []proto.Event {
			at(l, b, 1).Revision = 10
			return l
		}, []string{"revision 10 is there twice"}},
		{"a gap", map[string]uint64{a: 3}, func(l []proto.Event) []proto.Event {
			return slices.DeleteFunc(l, func(e proto.Event) bool { return e.Journal == a && e.Seq == 2 })
		}, []string{"record 3 of journal " + a + " follows on 1"}},
		{"out of order", map[string]uint64{a: 3}, func(l []proto.Event) []proto.Event {
			at(l, a, 3).Revision, at(l, a, 2).Revision = 10, 40
			return l
		}, []string{"record 3 of journal " + a + " follows on 1", "record 2 of journal " + a + " follows on 3", "journal " + a + " ends with record 2, all up to 3 were acknowledged"}},
		{"another event's content", map[string]uint64{b: 1}, func(l []proto.Event) []proto.Event {
			at(l, b, 1).Message = load.Message(a, 1)
			return l
		}, []string{fmt.Sprintf("record 1 of journal %s is not what was sent: %q", b, proto.Clip(load.Message(a, 1), 60))}},
		{"refused", map[string]uint64{b: 1}, func(l []proto.Event) []proto.Event {
			*at(l, b, 1) = proto.Event{Source: proto.SourceAuth, Journal: b, Seq: 1, Revision: 30, Message: "no"}
			return l
		}, []string{"record 1 of journal " + b + " was refused: no"}},
	} {
		events := good()
		if tt.spoil != nil {
			events = tt.spoil(events)
		}
		if d := cmp.Diff(tt.want, load.VerifyEvents(events, tt.acked)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}
