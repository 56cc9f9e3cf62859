// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"provost/collector/internal/registry"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

func TestHistory(t *testing.T) {
	s := registrytest.New(t)
	by := registry.By(ctx, registry.Caller{Actor: "root (uid 0), login alice", Client: "provost/v1"})
	id := held(t, s) // its own orders are nobody's but "test"
	began := s.Clock.Now()
	s.Clock.Advance(time.Hour)
	profile := "compute"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.PatchNodes(by, []string{"n1"}, proto.NodePatch{AddGroups: []string{"g"}, Profile: &profile}))
	p := registrytest.Prepared("compute", registrytest.Script{Name: "one", Phase: proto.PhasePost, Body: "#!/bin/sh\necho mended\n"})
	s.Profiles.Put("compute", p)
	must(s.Command(by, []string{"n1"}, proto.VerbRetry, proto.NodeOrder{Step: "one", Reason: "mended"}, "op"))
	must(s.Command(by, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{}, "op"))
	must(s.SetBootAction(by, []string{"n1"}, proto.BootDisk, "op", "look"))
	if err := s.Command(by, []string{"n1"}, proto.VerbForce, proto.NodeOrder{}, "op"); err == nil {
		t.Fatal("force without a step was taken")
	}
	must(s.Order(by, []string{"n1"}, proto.InstallOrder{Label: "l", Reason: "again"}, "op"))
	must(s.Command(by, []string{"n1"}, proto.VerbAbort, proto.NodeOrder{}, "op"))
	_, err := s.RenameNode(by, "n1", "m1")
	must(err)
	s.Restart()

	n := s.Seen("m1")
	old := proto.HistoryEntry{Install: id, Ordinal: 1, Profile: "compute", Client: "provost/v1", Actor: "op"}
	make := func(order string, f func(*proto.HistoryEntry)) proto.HistoryEntry {
		e := old
		e.Order, e.At = order, s.Clock.Now()
		f(&e)
		return e
	}
	node := func(e *proto.HistoryEntry) {
		e.Install, e.Ordinal, e.Profile, e.Actor = "", 0, "", "root (uid 0), login alice"
	}
	steps := []proto.HistoryStep{{Name: "one", Phase: proto.PhasePost, Digest: p.Steps[0].Digest}}
	want := []proto.HistoryEntry{
		make("rename", func(e *proto.HistoryEntry) { node(e); e.Detail = "was n1" }),
		make("abort", func(e *proto.HistoryEntry) { e.Install, e.Ordinal, e.Label = n.Install, 2, "l" }),
		make("install", func(e *proto.HistoryEntry) {
			e.Install, e.Ordinal, e.Label, e.Reason, e.Plan, e.Steps = n.Install, 2, "l", "again", 1, steps
		}),
		make("boot", func(e *proto.HistoryEntry) { node(e); e.Actor, e.Detail, e.Reason = "op", "disk", "look" }),
		make("abort", func(*proto.HistoryEntry) {}),
		make("retry", func(e *proto.HistoryEntry) { e.Step, e.Reason, e.Plan, e.Steps = "one", "mended", 2, steps }),
		make("set", func(e *proto.HistoryEntry) { node(e); e.Detail = "groups g" }),
	}
	h, err := s.History("m1", began.Add(time.Minute), true)
	must(err)
	if diff := cmp.Diff(want, h.Entries, cmpopts.IgnoreFields(proto.HistoryEntry{}, "Collector")); diff != "" || h.Node != "m1" {
		t.Errorf("History since (-want +got):\n%s", diff)
	}
	h, err = s.History("m1", time.Time{}, false)
	must(err)
	if len(h.Entries) != 9 || h.Entries[7].Order != "install" || h.Entries[8].Order != "add" || h.Entries[7].Steps != nil || h.Entries[7].Plan != 1 {
		t.Errorf("History of all, without plans = %+v", h.Entries)
	}
	if _, err := s.History("never", time.Time{}, false); code(err) != proto.CodeUnknownNode {
		t.Errorf("History of a node that never was = %v", err)
	}
	must(s.RemoveNodes(by, []string{"m1"}, "sold"))
	s.Restart()
	removed := make("rm", func(e *proto.HistoryEntry) {
		e.Reason, e.Actor, e.Install, e.Ordinal, e.Label = "sold", "root (uid 0), login alice", n.Install, 2, "l"
		e.Detail = "MAC 52:54:00:00:00:01, failed(abort)"
	})
	h, err = s.History("m1", time.Time{}, true)
	must(err)
	if diff := cmp.Diff([]proto.HistoryEntry{removed}, h.Entries, cmpopts.IgnoreFields(proto.HistoryEntry{}, "Collector")); diff != "" {
		t.Errorf("History of a removed node (-want +got):\n%s", diff)
	}
	s.Clock.Advance(time.Second)
	s.Add("m1", 1)
	h, err = s.History("m1", time.Time{}, false)
	must(err)
	if len(h.Entries) != 2 || h.Entries[0].Order != "add" || h.Entries[1].Order != "rm" {
		t.Errorf("History of a new node of the same name = %+v, want that it was added, and one removed before", h.Entries)
	}
	if h, err = s.History("m1", s.Clock.Now(), false); err != nil || len(h.Entries) != 1 {
		t.Errorf("History of it since then = %+v, %v", h.Entries, err)
	}
}

// TestRemovalsAreBounded: of the nodes of one name that were removed the last 16 are known.
func TestRemovalsAreBounded(t *testing.T) {
	s := registrytest.New(t)
	for i := range 20 {
		s.Add("n1", 1)
		if err := s.RemoveNodes(ctx, []string{"n1"}, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		s.Clock.Advance(time.Second)
	}
	s.Restart()
	h, err := s.History("n1", time.Time{}, false)
	if err != nil || len(h.Entries) != 16 || h.Entries[0].Reason != "19" || h.Entries[15].Reason != "4" {
		t.Errorf("History = %+v, %v, want the removals 19 to 4", h.Entries, err)
	}
}

// TestHistoryIsBounded: the oldest go, also from the disk, and a rename keeps the rest.
func TestHistoryIsBounded(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	for i := range proto.MaxHistory + 5 {
		v := fmt.Sprint(i)
		if err := s.PatchNodes(ctx, []string{"n1"}, proto.NodePatch{Serial: &v}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.RenameNode(ctx, "n1", "m1"); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	h, err := s.History("m1", time.Time{}, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Entries) != proto.MaxHistory || h.Entries[0].Order != "rename" || h.Entries[999].Detail != "serial 5 → 6" {
		t.Errorf("%d entries, from %+v to %+v", len(h.Entries), h.Entries[len(h.Entries)-1], h.Entries[0])
	}
	kept := 0
	if err := s.Store.Scan("history", func(string, []byte) error { kept++; return nil }); err != nil || kept != proto.MaxHistory {
		t.Errorf("%d values on the disk, %v, want %d", kept, err, proto.MaxHistory)
	}
}
