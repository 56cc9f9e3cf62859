// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"provost/collector/internal/registry"
	"provost/collector/internal/registry/registrytest"
	"provost/collector/internal/store"
	"provost/proto"
)

// everything is what anybody can see of a site's nodes and installs.
func everything(t testing.TB, s *registrytest.Site) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, n := range s.Nodes(nil) {
		all[n.Name] = n
		installs, err := s.Installs(n.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range installs {
			list, err := s.InstallEvents(n.Name, in.ID)
			if err != nil {
				t.Fatal(err)
			}
			all[n.Name+"/"+in.ID] = list
		}
	}
	return all
}

func retain(t testing.TB, s *registrytest.Site, rounds int) {
	t.Helper()
	for range rounds {
		if err := s.Retain(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// installed runs an install to its end and gives its id.
func installed(t testing.TB, s *registrytest.Site, name string, mac string, boot byte) string {
	t.Helper()
	id := s.Ordered(name)
	s.Script(mac)
	send(t, s, id, event(1, proto.KindAgentStart, boot), event(2, proto.KindNote, boot), event(3, proto.KindSealed, boot))
	if _, err := s.AppendLog(id, "agent.log", 0, []byte("log of "+id)); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestPackAndTrim: an install that was superseded is packed, the feed loses what is older than its window, and nobody who
// asks for an install sees any difference, before and after a restart. Late events still come after the packed ones.
func TestPackAndTrim(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	old := installed(t, s, "n1", mac, 1)
	id := installed(t, s, "n1", mac, 1)
	want := everything(t, s)
	same := func(when string) {
		t.Helper()
		if diff := cmp.Diff(want, everything(t, s)); diff != "" {
			t.Errorf("%s (-want +got):\n%.2000s", when, diff)
		}
	}
	s.Checkpoint(ctx)
	retain(t, s, 2)
	same("packed")
	s.Restart()
	same("packed, after a restart")
	if s.Store.First() != 1 {
		t.Errorf("the feed begins with %d, within its window", s.Store.First())
	}
	s.Clock.Advance(registry.DefaultFeed + time.Minute)
	s.Retention = registry.Retention{}
	s.Checkpoint(ctx)
	retain(t, s, 1)
	last := s.Store.Revision()
	if first := s.Store.First(); first != last {
		t.Errorf("after the window the feed begins with %d, want the newest, %d", first, last)
	}
	want["n1"] = s.Seen("n1") // deadlines have passed
	same("trimmed")
	s.Restart()
	want["n1"] = s.Seen("n1") // the time away moves them
	same("trimmed, after a restart")
	if _, err := s.Watch(1).Next(ctx); !errors.Is(err, store.ErrGone) {
		t.Errorf("a watcher of what was trimmed = %v, want ErrGone", err)
	}
	if a := send(t, s, old, event(3, proto.KindSealed, 1), event(4, proto.KindNote, 1)); a.Next != 5 {
		t.Errorf("a late event of a packed install: next = %d, want 5", a.Next)
	}
	late := kinds(t, s, "n1", old)
	retain(t, s, 2)
	s.Restart()
	if got := kinds(t, s, "n1", old); !cmp.Equal(got, late) || len(late) != 8 {
		t.Errorf("packed again = %v, want %v", got, late)
	}
	if n := s.Seen("n1"); n.Install != id || n.Revision < last {
		t.Errorf("the node has install %s, revision %d, want %s and at least %d", n.Install, n.Revision, id, last)
	}
}

// TestOldInstallsGo: of each node the newest installs stay, with their events and logs, at least the present one.
func TestOldInstallsGo(t *testing.T) {
	s := registrytest.New(t)
	s.Retention.Installs = 2
	s.Restart()
	mac := s.Add("n1", 1)
	var ids []string
	for range 4 {
		ids = append(ids, installed(t, s, "n1", mac, 1))
	}
	if err := os.Mkdir(filepath.Join(s.Dir, "logs", proto.NewID(time.Now())), 0o755); err != nil { // of an order that is under way
		t.Fatal(err)
	}
	orphan := filepath.Join(s.Dir, "logs", proto.NewID(time.Now()))
	if err := os.Mkdir(orphan, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(orphan, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	retain(t, s, 3)
	if err := s.SweepLogs(ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := s.Installs("n1")
		if err != nil || len(got) != 2 || got[0].ID != ids[3] || got[1].ID != ids[2] || got[0].Ordinal != 4 {
			t.Fatalf("Installs = %+v, %v, want the two newest", got, err)
		}
		if _, err := s.InstallEvents("n1", ids[0]); code(err) != proto.CodeNotFound {
			t.Errorf("events of a removed install = %v, want not-found", err)
		}
		logs, err := os.ReadDir(filepath.Join(s.Dir, "logs"))
		if err != nil || len(logs) != 3 {
			t.Errorf("log directories: %v, %v, want two of installs and the young one", logs, err)
		}
		if used := s.Logs.Usage().Used; used != 2*int64(len("log of ")+len(ids[0])) {
			t.Errorf("the logs have %d bytes", used)
		}
		s.Restart()
		if err := s.SweepLogs(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Store.View(func(r *store.Reader) error {
		for _, b := range []store.Bucket{store.Installs, store.Plans, store.States, store.Packed} {
			for _, id := range ids[:2] {
				if r.Get(b, id) != nil {
					t.Errorf("bucket %s still has %s", b, id)
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestTooManyEvents: beyond the bound only what decides is taken, each other record is refused with its reason, and the
// agent goes on after it, also after a restart; at twice the bound nothing is taken.
func TestTooManyEvents(t *testing.T) {
	s := registrytest.New(t)
	s.Retention.Events = 20
	s.Restart()
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	s.Script(mac)
	s.Clock.Advance(2 * time.Minute)
	var seq uint64
	some := func(n int, kind proto.Kind, edit ...func(*proto.Event)) *proto.EventsAnswer {
		var events []proto.Event
		for range n {
			seq++
			events = append(events, event(seq, kind, 1, edit...))
		}
		return send(t, s, id, events...)
	}
	count := func() int { return len(kinds(t, s, "n1", id)) }
	if a := some(18, proto.KindNote); len(a.Refused) != 0 || count() != 20 {
		t.Fatalf("up to the bound: %d refused, %d events", len(a.Refused), count())
	}
	a := some(300, proto.KindNote)
	if len(a.Refused) != 300 || a.Next != seq+1 || a.Refused[7].Code != proto.CodeTooLarge || a.Refused[7].Seq != 26 {
		t.Errorf("beyond the bound: next %d, refused %+v", a.Next, a.Refused[:min(8, len(a.Refused))])
	}
	if count() != 21 || len(s.Seen("n1").Warnings) != 1 {
		t.Errorf("%d events, warnings %q, want one event and one warning more", count(), s.Seen("n1").Warnings)
	}
	some(100, proto.KindNote)
	s.Restart()
	if a := send(t, s, id, event(5, proto.KindNote, 1)); a.Next != seq+1 {
		t.Errorf("after a restart record %d is wanted, want %d", a.Next, seq+1)
	}
	failed := func(e *proto.Event) {
		e.Phase, e.Outcome, e.Cause = proto.PhasePost, proto.OutcomeFailed, proto.CausePlan
	}
	if a := some(1, proto.KindRunEnd, failed); len(a.Refused) != 0 || s.Seen("n1").Status != proto.StatusFailed {
		t.Errorf("what decides: %+v, the node is %s", a.Refused, s.Seen("n1").Status)
	}
	some(100, proto.KindRunEnd, failed)
	if got := count(); got != 40 {
		t.Errorf("%d events in the end, want 40", got)
	}
	want := everything(t, s)
	s.Checkpoint(ctx)
	s.Clock.Advance(time.Hour)
	retain(t, s, 2)
	s.Restart()
	if diff := cmp.Diff(want["n1/"+id], everything(t, s)["n1/"+id]); diff != "" {
		t.Errorf("packed (-want +got):\n%.2000s", diff)
	}
	if a := some(1, proto.KindRunEnd, failed); len(a.Refused) != 1 {
		t.Errorf("after packing and a restart one more is taken: the count was lost")
	}
}

// TestTooManyBytes: the bound in bytes counts what is packed too, also after a restart.
func TestTooManyBytes(t *testing.T) {
	s := registrytest.New(t)
	s.Retention.Bytes = 20_000
	s.Restart()
	mac := s.Add("n1", 1)
	old := installed(t, s, "n1", mac, 1)
	s.Ordered("n1")
	long := func(e *proto.Event) { e.Message = strings.Repeat("x", 2000) }
	seq := uint64(3)
	for round := range 12 {
		seq++
		a := send(t, s, old, event(seq, proto.KindNote, 1, long))
		if got, want := len(a.Refused) == 1, round >= 9; got != want {
			t.Errorf("round %d: refused %v, want %v", round, a.Refused, want)
		}
		s.Checkpoint(ctx)
		retain(t, s, 2)
		s.Restart()
	}
}

// few lets a property be tried less often than the default, unless PROVOST_SOAK=1 or -rapid.checks wants more: each try waits for
// the disk.
func few(t *testing.T, checks int) {
	t.Helper()
	if os.Getenv("PROVOST_SOAK") == "1" || flag.Lookup("rapid.checks").Value.String() != "100" {
		return
	}
	if err := flag.Set("rapid.checks", strconv.Itoa(checks)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { flag.Set("rapid.checks", "100") })
}

// TestRetentionProperty: whatever is ordered, reported, packed, trimmed, cut off, checkpointed and restarted in whatever
// order, every install that is kept has exactly its events, and every agent is asked for its next record.
func TestRetentionProperty(t *testing.T) {
	s := registrytest.New(t)
	few(t, 15)
	nodes := 0
	rapid.Check(t, func(rt *rapid.T) {
		s.Retention = registry.Retention{Feed: 10 * time.Minute, Installs: 3}
		s.Restart()
		nodes++
		name := fmt.Sprintf("p%d", nodes)
		if _, err := s.AddNode(ctx, proto.NodeSpec{Name: name, MACs: []string{fmt.Sprintf("52:54:00:00:%02x:%02x", nodes>>8, nodes&255)}, Profile: "compute"}); err != nil {
			rt.Fatal(err)
		}
		type known struct {
			id   string
			next uint64
		}
		var all []*known
		rt.Repeat(map[string]func(*rapid.T){
			"order": func(*rapid.T) { all = append(all, &known{s.Ordered(name), 1}) },
			"events": func(rt *rapid.T) {
				if len(all) == 0 {
					return
				}
				k := all[rapid.IntRange(max(0, len(all)-3), len(all)-1).Draw(rt, "install")]
				if _, err := s.InstallEvents(name, k.id); err != nil {
					return // removed
				}
				n := uint64(rapid.IntRange(1, 5).Draw(rt, "n"))
				var events []proto.Event
				for i := range n {
					events = append(events, event(k.next+i, proto.KindNote, 1))
				}
				a, err := s.Events(ctx, k.id, request(k.id, registrytest.Journal, events...))
				if err != nil || a.Next != k.next+n {
					rt.Fatalf("next = %+v, %v, want %d", a, err, k.next+n)
				}
				k.next += n
			},
			"retain": func(*rapid.T) { retain(rapidTB{s.T, rt}, s, 1) },
			"retain cut off": func(*rapid.T) {
				s.Retain(&onceContext{Context: ctx, looks: -rapid.IntRange(0, 6).Draw(rt, "looks")}) // its error is the cut
			},
			"checkpoint": func(*rapid.T) { s.Checkpoint(ctx) },
			"restart":    func(*rapid.T) { s.Restart() },
			"wait":       func(*rapid.T) { s.Clock.Advance(4 * time.Minute) },
			"": func(rt *rapid.T) {
				kept, err := s.Installs(name)
				if err != nil || len(kept) < min(len(all), 3) {
					rt.Fatalf("%d installs are kept of %d, %v", len(kept), len(all), err)
				}
				for i, in := range kept {
					k := all[len(all)-1-i]
					if in.ID != k.id {
						rt.Fatalf("install %d is %s, want %s", i, in.ID, k.id)
					}
					list, err := s.InstallEvents(name, k.id)
					if err != nil {
						rt.Fatal(err)
					}
					next := uint64(1)
					for _, e := range list.Events {
						if e.Source == proto.SourceAgent {
							if e.Seq != next {
								rt.Fatalf("record %d, want %d", e.Seq, next)
							}
							next++
						}
					}
					if next != k.next {
						rt.Fatalf("install %s has records up to %d, want %d", k.id, next-1, k.next-1)
					}
				}
			},
		})
	})
}
