// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// event makes one of the n-th boot, seq seconds after its start.
func event(seq uint64, kind proto.Kind, boot byte, edit ...func(*proto.Event)) proto.Event {
	e := proto.Event{Kind: kind, Seq: seq, Boot: registrytest.Boot(boot), OffsetMS: int64(seq) * 1000, Time: time.Unix(int64(seq), 0).UTC()}
	if kind == proto.KindNote {
		e.Message = fmt.Sprintf("note %d", seq)
	}
	for _, f := range edit {
		f(&e)
	}
	return e
}

// request has a clock 60 s after the start of boot 1.
func request(id, journal string, events ...proto.Event) *proto.EventsRequest {
	q := &proto.EventsRequest{Schema: proto.Schema, Install: id, Journal: journal,
		Clock: proto.Clock{Boot: registrytest.Boot(1), OffsetMS: 60_000, Time: time.Unix(60, 0).UTC()}}
	for _, e := range events {
		b, err := json.Marshal(e)
		if err != nil {
			panic(err)
		}
		q.Events = append(q.Events, b)
	}
	return q
}

func send(t testing.TB, s *registrytest.Site, id string, events ...proto.Event) *proto.EventsAnswer {
	t.Helper()
	a, err := s.Events(ctx, id, request(id, registrytest.Journal, events...))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ats gives the computed times of an agent's events by sequence number, as seconds after the site's first moment.
func ats(t testing.TB, s *registrytest.Site, node, id string, zero time.Time) map[uint64]float64 {
	t.Helper()
	list, err := s.InstallEvents(node, id)
	if err != nil {
		t.Fatal(err)
	}
	out := map[uint64]float64{}
	for _, e := range list.Events {
		if e.Source == proto.SourceAgent {
			out[e.Seq] = e.At.Sub(zero).Seconds()
		}
	}
	return out
}

func TestEventTimes(t *testing.T) {
	zero := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	setup := func(t *testing.T) (*registrytest.Site, string) {
		s := registrytest.New(t)
		s.Clock.Set(zero)
		s.Add("n1", 1)
		id := s.Ordered("n1")
		s.Clock.Advance(1000 * time.Second)
		return s, id
	}
	t.Run("the same boot", func(t *testing.T) {
		s, id := setup(t) // boot 1 began at 940
		send(t, s, id, event(1, proto.KindNote, 1), event(2, proto.KindNote, 1))
		s.Clock.Advance(100 * time.Second)
		q := request(id, registrytest.Journal, event(3, proto.KindNote, 1))
		q.Clock.OffsetMS = 160_000
		if _, err := s.Events(ctx, id, q); err != nil {
			t.Fatal(err)
		}
		want := map[uint64]float64{1: 941, 2: 942, 3: 943}
		if diff := cmp.Diff(want, ats(t, s, "n1", id, zero)); diff != "" {
			t.Errorf("times (-want +got):\n%s", diff)
		}
	})
	t.Run("an earlier boot that is known", func(t *testing.T) {
		s, id := setup(t)
		send(t, s, id) // the collector learns when boot 1 began
		s.Clock.Advance(1000 * time.Second)
		q := request(id, registrytest.Journal, event(1, proto.KindNote, 1), event(2, proto.KindNote, 2))
		q.Clock = proto.Clock{Boot: registrytest.Boot(2), OffsetMS: 5_000, Time: time.Unix(0, 0)}
		if _, err := s.Events(ctx, id, q); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[uint64]float64{1: 941, 2: 1997}, ats(t, s, "n1", id, zero)); diff != "" {
			t.Errorf("times (-want +got):\n%s", diff)
		}
	})
	t.Run("an earlier boot that is not known: the wall clock, as far off as it is now", func(t *testing.T) {
		s, id := setup(t)
		wall := time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)
		q := request(id, registrytest.Journal, event(1, proto.KindNote, 7, func(e *proto.Event) { e.Time = wall.Add(-300 * time.Second) }))
		q.Clock.Time = wall
		if _, err := s.Events(ctx, id, q); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[uint64]float64{1: 700}, ats(t, s, "n1", id, zero)); diff != "" {
			t.Errorf("times (-want +got):\n%s", diff)
		}
	})
	t.Run("never backwards, before the order, or after the arrival", func(t *testing.T) {
		s, id := setup(t)
		at := func(seq uint64, offset int64) proto.Event {
			return event(seq, proto.KindNote, 1, func(e *proto.Event) { e.OffsetMS = offset })
		}
		ancient := event(5, proto.KindNote, 9, func(e *proto.Event) { e.Time = time.Time{} })
		send(t, s, id, at(1, 50_000), at(2, 10_000), at(3, 55_000), at(4, 999_000), ancient)
		other := request(id, "00000000000000b2", event(1, proto.KindNote, 8, func(e *proto.Event) { e.Time = time.Unix(-1e9, 0) }))
		if _, err := s.Events(ctx, id, other); err != nil {
			t.Fatal(err)
		}
		list, err := s.InstallEvents("n1", id)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Events {
			if e.Journal == "00000000000000b2" && !e.At.Equal(zero) {
				t.Errorf("an event from before the order is at %v, want the order's time", e.At)
			}
		}
		got := ats(t, s, "n1", id, zero)
		delete(got, 0)
		if got[2] != 990 || got[3] != 995 || got[4] != 1000 || got[5] != 1000 {
			t.Errorf("times = %v, want 2:990 3:995 4:1000 5:1000", got)
		}
	})
}

func TestEventsRefusedOneByOne(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	id := s.Ordered("n1")
	raw := func(texts ...string) *proto.EventsRequest {
		q := request(id, registrytest.Journal)
		for _, x := range texts {
			q.Events = append(q.Events, json.RawMessage(x))
		}
		return q
	}
	good := func(seq int) string {
		b, _ := json.Marshal(event(uint64(seq), proto.KindNote, 1))
		return string(b)
	}
	for _, tt := range []struct {
		name    string
		q       *proto.EventsRequest
		next    uint64
		refused []uint64
	}{
		{"no event at all", raw(`"text"`, `null`, `7`), 4, []uint64{1, 2, 3}},
		{"in the middle, its number told by its neighbours", raw(good(4), `[]`, good(6)), 7, []uint64{5}},
		{"before the first number", raw(`{}`, `{"kind":[]}`, good(9)), 10, []uint64{7, 8}},
		{"with a provisional install", raw(`{"seq":10,"kind":"note","message":"x","boot":"` + registrytest.Boot(1) + `","install":"01ARZ3NDEKTSV4RRFFQ69G5FAV","time":"2026-01-01T00:00:00Z"}`), 11, nil},
		{"a forged source", raw(`{"seq":11,"kind":"note","message":"x","boot":"` + registrytest.Boot(1) + `","source":"boot","time":"2026-01-01T00:00:00Z"}`), 12, []uint64{11}},
		{"a gap", raw(good(12), good(14)), 13, nil},
		{"from the past", raw(good(1), good(2)), 13, nil},
	} {
		a, err := s.Events(ctx, id, tt.q)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var refused []uint64
		for _, r := range a.Refused {
			refused = append(refused, r.Seq)
		}
		if a.Next != tt.next || !slices.Equal(refused, tt.refused) {
			t.Errorf("%s: next %d, refused %v, want %d, %v", tt.name, a.Next, refused, tt.next, tt.refused)
		}
	}
	list, err := s.InstallEvents("n1", id)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Events {
		if e.Install != id || e.Node != "n1" {
			t.Errorf("event %d is of install %q, node %q", e.Revision, e.Install, e.Node)
		}
	}
	s.Restart() // what was refused is never wanted again
	if a := send(t, s, id); a.Next != 13 {
		t.Errorf("next after a restart = %d, want 13", a.Next)
	}
}

// TestSuperseded: what an old install's agent says goes into its own history and moves nothing.
func TestSuperseded(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	first := s.Ordered("n1")
	a, err := s.Hello(ctx, "", registrytest.HelloOf(s.Script(mac), registrytest.Boot(1)))
	if err != nil {
		t.Fatal(err)
	}
	second := s.Ordered("n1")
	before := s.Seen("n1")
	send(t, s, first, event(1, proto.KindStage, 1, func(e *proto.Event) { e.Stage, e.Failed = "partitioned", true }),
		event(2, proto.KindSealed, 1, func(e *proto.Event) { e.Stage = "sealed" }))
	if diff := cmp.Diff(before, s.Seen("n1")); diff != "" {
		t.Errorf("the old install changed the node (-before +after):\n%s", diff)
	}
	if got := kinds(t, s, "n1", second); !slices.Equal(got, []string{"ordered"}) {
		t.Errorf("the new install's events = %v", got)
	}
	again, err := s.Hello(ctx, first, &proto.Hello{Schema: 1, Env: proto.EnvInstalled, Clock: proto.Clock{Boot: registrytest.Boot(2)}, Journal: registrytest.Journal})
	if err != nil || again.Install != first || again.Next != 3 || again.Plan != nil || again.Token != "" {
		t.Errorf("hello with a superseded token = %+v, %v: want its own install, next 3, no plan", again, err)
	}
	if _, err := s.Agent(a.Token); err != nil {
		t.Errorf("the superseded token: %v", err)
	}
	if b, err := s.Heartbeat(t.Context(), first, "10.0.0.7", &proto.Heartbeat{Schema: 1, Install: first}); err != nil || len(b.Orders) != 0 {
		t.Errorf("heartbeat of a superseded install = %+v, %v", b, err)
	}
}

// TestArrivalOrder sends the journals of one install in every way that a network can, with restarts in between, and wants
// the same state at the end.
func TestArrivalOrder(t *testing.T) {
	build := func() map[string][]proto.Event { // by journal
		step := func(seq uint64, kind proto.Kind, boot byte, o proto.Outcome) proto.Event {
			return event(seq, kind, boot, func(e *proto.Event) { e.Phase, e.Step, e.Try, e.Outcome = proto.PhasePost, "one", 1, o })
		}
		stage := func(seq uint64, kind proto.Kind, boot byte, name string, phase proto.Phase) proto.Event {
			return event(seq, kind, boot, func(e *proto.Event) {
				e.Stage, e.Phase = name, phase
				if kind == proto.KindRunEnd {
					e.Outcome = proto.OutcomeOK
				}
			})
		}
		return map[string][]proto.Event{
			"00000000000000a1": {
				stage(1, proto.KindAgentStart, 1, "agent-started", ""), stage(2, proto.KindRunStart, 1, "post-started", proto.PhasePost),
				step(3, proto.KindStepStart, 1, ""), step(4, proto.KindStepEnd, 1, proto.OutcomeOK),
				stage(5, proto.KindRunEnd, 1, "post-done", proto.PhasePost), stage(6, proto.KindSealed, 1, "sealed", ""),
			},
			"00000000000000b2": {
				stage(1, proto.KindAgentStart, 2, "disk-booted", ""), stage(2, proto.KindRunStart, 2, "firstboot-started", proto.PhaseFirstboot),
				stage(3, proto.KindRunEnd, 2, "firstboot-done", proto.PhaseFirstboot), stage(4, proto.KindStage, 2, "booted", ""),
			},
		}
	}
	run := func(t testing.TB, s *registrytest.Site, choose func(journals []string) (journal string, from, n int, restart bool)) proto.Node {
		mac := s.Add("n1", 1)
		s.Ordered("n1")
		d := s.Script(mac)
		if _, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(1))); err != nil {
			t.Fatal(err)
		}
		s.Clock.Advance(100 * time.Second)
		all := build()
		next := map[string]int{"00000000000000a1": 0, "00000000000000b2": 0}
		for {
			var open []string
			for _, j := range slices.Sorted(maps.Keys(all)) {
				if next[j] < len(all[j]) {
					open = append(open, j)
				}
			}
			if len(open) == 0 {
				break
			}
			j, from, n, restart := choose(open)
			from = min(from, len(all[j])-1)
			q := request(d.Install, j, all[j][from:min(from+n, len(all[j]))]...)
			a, err := s.Events(ctx, d.Install, q)
			if err != nil {
				t.Fatal(err)
			}
			if want := uint64(next[j]) + 1; a.Next < want {
				t.Fatalf("next went back from %d to %d", want, a.Next)
			}
			next[j] = int(a.Next) - 1
			if restart {
				s.Checkpoint(ctx)
				s.Restart()
			}
		}
		s.Restart()
		return s.Seen("n1")
	}
	final := func(n proto.Node) proto.Node {
		n.Install, n.Revision, n.Since, n.LastSeen = "", 0, time.Time{}, time.Time{}
		return n
	}
	want := final(run(t, registrytest.New(t), func(open []string) (string, int, int, bool) { return open[0], 0, 99, false }))
	if want.Summary != "booted" || want.BootAction != proto.BootDisk {
		t.Fatalf("the plain run ends as %s with boot action %s, want booted, disk", want.Summary, want.BootAction)
	}
	few(t, 40)
	rapid.Check(t, func(rt *rapid.T) {
		s := registrytest.New(t)
		s.T = rapidTB{t, rt}
		calls := 0
		got := final(run(s.T, s, func(open []string) (string, int, int, bool) {
			calls++
			if calls > 60 { // enough chaos: deliver what is left
				return open[0], 0, 99, false
			}
			return rapid.SampledFrom(open).Draw(rt, "journal"), rapid.IntRange(0, 6).Draw(rt, "from"), rapid.IntRange(0, 4).Draw(rt, "n"),
				rapid.IntRange(0, 40).Draw(rt, "restart") == 0
		}))
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Errorf("another state (-want +got):\n%s", diff)
		}
	})
}

// rapidTB is a test's TB whose failures are rapid's, so that it can make the case smaller.
type rapidTB struct {
	testing.TB
	rt *rapid.T
}

func (r rapidTB) Fatal(args ...any)                 { r.rt.Fatal(args...) }
func (r rapidTB) Fatalf(format string, args ...any) { r.rt.Fatalf(format, args...) }
func (r rapidTB) Errorf(format string, args ...any) { r.rt.Errorf(format, args...) }

// TestEncoding: an event in the store is what proto.Event is as JSON, although it is encoded in two parts.
func TestEncoding(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1.example-7", 1)
	id := s.Ordered("n1.example-7")
	send(t, s, id, event(1, proto.KindAgentStart, 1, func(e *proto.Event) { e.Message = "before an attempt" }))
	s.Script(mac)
	send(t, s, id, event(2, proto.KindStepEnd, 1, func(e *proto.Event) {
		e.Phase, e.Step, e.Try, e.Outcome, e.Exit = proto.PhasePost, "one", 1, proto.OutcomeFailed, 127
		e.Message, e.Tail = "<\"\\\u2028\xff>\n", []string{"a", ""}
	}), event(3, proto.KindNote, 1, func(e *proto.Event) { e.Message = "" }), event(4, proto.KindNote, 1, func(e *proto.Event) { e.Install = "" }))
	entries, err := s.Store.Events(0, 100)
	if err != nil || len(entries) < 6 {
		t.Fatalf("%d events, %v", len(entries), err)
	}
	for _, x := range entries {
		var e proto.Event
		if err := json.Unmarshal(x.Value, &e); err != nil {
			t.Fatalf("%v in %s", err, x.Value)
		}
		want, err := json.Marshal(&e)
		if err != nil || string(want) != string(x.Value) || e.Revision != x.Revision || e.Node != "n1.example-7" || e.Install != id {
			t.Errorf("event %d is %s, want %s, %v", x.Revision, x.Value, want, err)
		}
	}
}

// TestJournalsAreBounded: a journal for each boot, and no more than that; those that are known go on.
func TestJournalsAreBounded(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	id := s.Ordered("n1")
	s.Clock.Advance(100 * time.Second)
	journal := func(n int) string { return fmt.Sprintf("%016x", n) }
	try := func(n int, seq uint64) string {
		_, err := s.Events(ctx, id, request(id, journal(n), event(seq, proto.KindNote, 1)))
		return code(err)
	}
	for n := range 64 {
		if got := try(n, 1); got != "" {
			t.Fatalf("journal %d: %s", n+1, got)
		}
	}
	for range 2 {
		if got := try(64, 1); got != proto.CodeJournals {
			t.Errorf("journal 65 = %q, want %s", got, proto.CodeJournals)
		}
		if got := try(7, 2); got != "" {
			t.Errorf("a journal that is known = %q", got)
		}
		s.Restart()
	}
}
