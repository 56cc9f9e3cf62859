// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/boot"
	"provost/collector/internal/lifecycle"
	"provost/collector/internal/registry"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// diskless is a site with one diskless node, "d1", of the profile "ram", whose MAC it gives.
func diskless(t *testing.T) (*registrytest.Site, string) {
	t.Helper()
	s := registrytest.New(t)
	s.Profiles.Put("ram", ram("#!/bin/sh\necho one\n"))
	mac := registrytest.MAC(7)
	if _, err := s.AddNode(context.Background(), proto.NodeSpec{Name: "d1", MACs: []string{mac}, Profile: "ram"}); err != nil {
		t.Fatal(err)
	}
	s.Ordered("d1")
	return s, mac
}

func ram(body string) *registry.Prepared {
	p := registrytest.Prepared("ram", registrytest.Script{Name: "bmc", Phase: proto.PhaseBoot, Body: body})
	p.Recipe.Kind, p.Recipe.Attempts = "diskless", 2
	p.Steps[0].Run, p.Steps[0].Persists = proto.RunOnChange, "outside"
	p.Recipe.Sequence = lifecycle.Sequence{Family: "diskless", Stages: []lifecycle.Stage{{Name: "ordered"}, {Name: "bootscript-sent"}, {Name: "kernel-sent"},
		{Name: "agent-started"}, {Name: "boot-started"}, {Name: "boot-done"}, {Name: "booted"}}}
	return p
}

// netboots is one boot of the node up to its agent's hello.
func netboots(t *testing.T, s *registrytest.Site, mac, bootID string) (boot.Decision, *proto.HelloAnswer) {
	t.Helper()
	s.Clock.Advance(time.Minute)
	d := s.Script(mac)
	if d.Action != proto.BootNetboot || d.Claim == "" || d.Kernel == "" {
		t.Fatalf("Boot = %+v, want netboot with kernel and claim", d)
	}
	a, err := s.Hello(context.Background(), "", registrytest.HelloOf(d, bootID))
	if err != nil {
		t.Fatal(err)
	}
	return d, a
}

// tells sends events of one boot as its agent does.
func tells(t *testing.T, s *registrytest.Site, install, bootID string, events ...proto.Event) {
	t.Helper()
	tellsAs(t, s, install, registrytest.Journal, bootID, events...)
}

func tellsAs(t *testing.T, s *registrytest.Site, install, journal, bootID string, events ...proto.Event) {
	t.Helper()
	s.Clock.Advance(30 * time.Second) // since the boot script
	q := &proto.EventsRequest{Schema: proto.Schema, Install: install, Journal: journal, Clock: proto.Clock{Boot: bootID, OffsetMS: 20_000}}
	for i, e := range events {
		e.Seq, e.Boot, e.OffsetMS = uint64(i+1), bootID, int64(i)
		raw, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		q.Events = append(q.Events, raw)
	}
	a, err := s.Events(context.Background(), install, q)
	if err != nil || len(a.Refused) > 0 {
		t.Fatalf("Events = %+v, %v", a, err)
	}
}

var (
	up    = proto.Event{Kind: proto.KindAgentStart, Stage: "agent-started"}
	begin = proto.Event{Kind: proto.KindRunStart, Phase: proto.PhaseBoot, Stage: "boot-started"}
	start = proto.Event{Kind: proto.KindStepStart, Phase: proto.PhaseBoot, Step: "bmc", Try: 1}
	done  = proto.Event{Kind: proto.KindStepEnd, Phase: proto.PhaseBoot, Step: "bmc", Try: 1, Outcome: proto.OutcomeOK, Change: proto.Digest([]byte("x"))}
	bad   = proto.Event{Kind: proto.KindStepEnd, Phase: proto.PhaseBoot, Step: "bmc", Try: 1, Outcome: proto.OutcomeFailed, Exit: 3}
	end   = proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhaseBoot, Outcome: proto.OutcomeOK, Stage: "boot-done"}
)

// TestDisklessEachBootIsAnInstall: with the plan of that time; booted is said by the system itself.
func TestDisklessEachBootIsAnInstall(t *testing.T) {
	s, mac := diskless(t)
	first := s.Seen("d1").Install
	d, a := netboots(t, s, mac, registrytest.Boot(1))
	if d.Install != first || a.Attempt != 1 || a.BootAction != proto.BootNetboot {
		t.Errorf("first boot: %+v, %+v, want install %s that was ordered", d, a, first)
	}
	tells(t, s, d.Install, registrytest.Boot(1), up, begin, start)
	if n := s.Seen("d1"); n.Status != proto.StatusFirstboot {
		t.Errorf("status while the steps run = %s, want firstboot", n.Summary)
	}
	tells(t, s, d.Install, registrytest.Boot(1), up, begin, start, done, end)
	if n := s.Seen("d1"); n.Status != proto.StatusBooted || n.BootAction != proto.BootNetboot || len(n.Warnings) > 0 {
		t.Errorf("after phase boot: %+v, want booted", n)
	}

	s.Profiles.Put("ram", ram("#!/bin/sh\necho two\n"))
	d2, a2 := netboots(t, s, mac, registrytest.Boot(2))
	if d2.Install == first || a2.Ordinal != a.Ordinal+1 {
		t.Errorf("second boot = install %s number %d, want another than %s", d2.Install, a2.Ordinal, first)
	}
	plan, err := proto.DecodePlan(a2.Plan.Payload)
	if err != nil || plan.Steps[0].Digest != proto.Digest([]byte("#!/bin/sh\necho two\n")) || plan.Install != d2.Install {
		t.Errorf("plan of the second boot = %+v, %v, want the profile of now", plan, err)
	}
	if n := s.Seen("d1"); n.Status == proto.StatusBooted {
		t.Errorf("status at the second boot = %s, want it to begin anew", n.Summary)
	}
	// firmware, its boot loader and a second card ask again: that is one boot
	s.Profiles.Put("ram", ram("#!/bin/sh\necho three\n"))
	third := s.Script(mac)
	if third.Install == d2.Install || third.Attempt != 1 {
		t.Fatalf("a script after the hello = %+v, want another boot", third)
	}
	n := third.Install
	if again := s.Script(mac); again.Install != n {
		t.Errorf("a second fetch before the kernel gave install %s, want %s", again.Install, n)
	}
	s.Restart()
	if again := s.Script(mac); again.Install != n || again.Action != proto.BootNetboot {
		t.Errorf("after a restart of the collector Boot = %+v, want install %s", again, n)
	}
}

// TestDisklessNeverBecomesAnInstall: a profile that breaks, or is one for disks now, changes nothing until somebody orders.
func TestDisklessNeverBecomesAnInstall(t *testing.T) {
	for name, p := range map[string]*registry.Prepared{"broken": nil, "of a disk": registrytest.Prepared("ram", registrytest.Script{Name: "wipe", Phase: proto.PhasePost, Body: "x"})} {
		t.Run(name, func(t *testing.T) {
			s, mac := diskless(t)
			d, a := netboots(t, s, mac, registrytest.Boot(1))
			tells(t, s, d.Install, registrytest.Boot(1), up, begin, start, done, end)
			s.Profiles.Put("ram", p)
			d2, a2 := netboots(t, s, mac, registrytest.Boot(2))
			was, _ := proto.DecodePlan(a.Plan.Payload)
			is, err := proto.DecodePlan(a2.Plan.Payload)
			if err != nil || len(is.Steps) != 1 || is.Steps[0].Digest != was.Steps[0].Digest || is.Install != d2.Install {
				t.Errorf("plan = %+v, %v, want that of the boot before", is, err)
			}
			in, err := s.Install("d1", d2.Install)
			if err != nil || !strings.Contains(in.Reason, "as the boot before: profile ram") {
				t.Errorf("Install = %+v, %v, want the reason why", in, err)
			}
		})
	}
}

// TestDisklessLoop: boots that come to no end are counted, within a time, until one does.
func TestDisklessLoop(t *testing.T) {
	s, mac := diskless(t)
	netboots(t, s, mac, registrytest.Boot(1))
	d, _ := netboots(t, s, mac, registrytest.Boot(2))
	tells(t, s, d.Install, registrytest.Boot(2), up, begin, start, done, end) // this one does
	netboots(t, s, mac, registrytest.Boot(3))
	s.Clock.Advance(2 * time.Hour)
	netboots(t, s, mac, registrytest.Boot(4))
	netboots(t, s, mac, registrytest.Boot(5))
	s.Clock.Advance(time.Minute)
	got := s.Script(mac)
	n := s.Seen("d1")
	if got.Action != proto.BootBlock || n.Summary != "failed(loop=3)" || !strings.Contains(n.Cause.Message, "after 2 boots within 1h that came to no end") {
		t.Errorf("the third boot in a row = %s, %s, %+v, want block and failed(loop=3)", got.Action, n.Summary, n.Cause)
	}
	if err := s.SetBootAction(context.Background(), []string{"d1"}, proto.BootInstall, "op", ""); err == nil || !strings.Contains(err.Error(), "diskless") {
		t.Errorf("boot install of a diskless node = %v, want a refusal", err)
	}
	if err := s.SetBootAction(context.Background(), []string{"d1"}, proto.BootNetboot, "op", ""); err != nil {
		t.Fatal(err)
	}
	d, _ = netboots(t, s, mac, registrytest.Boot(6))
	tells(t, s, d.Install, registrytest.Boot(6), up, begin, end)
	if n := s.Seen("d1"); n.Status != proto.StatusBooted {
		t.Errorf("after the block was lifted: %s, want booted", n.Summary)
	}
	s.Add("n9", 9)
	s.Ordered("n9")
	if err := s.SetBootAction(context.Background(), []string{"n9"}, proto.BootNetboot, "op", ""); err == nil {
		t.Error("boot netboot of a node with a disk = nil, want a refusal")
	}
}

// TestDisklessAnnouncedReboots: a restart that a step of phase boot asked for, as its plan allows, is the same boot with the
// same claim, is told what was done, and is no step to a loop; one more than that begins another.
func TestDisklessAnnouncedReboots(t *testing.T) {
	s, mac := diskless(t)
	p := ram("#!/bin/sh\nexit 64\n")
	p.Steps[0].Reboot = &proto.Reboot{Max: 3}
	s.Profiles.Put("ram", p)
	s.Ordered("d1")
	asks := done
	asks.Exit = proto.ExitReboot
	restart := proto.Event{Kind: proto.KindReboot, Phase: proto.PhaseBoot, Step: "bmc", Try: 1, Exit: proto.ExitReboot}
	var first string
	for i := range 4 { // two boots that come to no end are a loop
		id := registrytest.Boot(byte(i + 1))
		s.Clock.Advance(time.Minute)
		d := s.Script(mac)
		s.Sent(context.Background(), d.Ticket, "images/vmlinuz", true)
		h := registrytest.HelloOf(d, id)
		h.Journal = registrytest.Journal[:15] + string(rune('a'+i))
		a, err := s.Hello(context.Background(), "", h)
		if err != nil || d.Action != proto.BootNetboot {
			t.Fatalf("boot %d: %s, %v", i, d.Action, err)
		}
		if first == "" {
			first = d.Install
		}
		if d.Install != first || a.Attempt != 1 {
			t.Errorf("boot %d is attempt %d of install %s, want 1 of %s", i, a.Attempt, d.Install, first)
		}
		if got := a.Progress; (got != nil) != (i > 0) || got != nil && len(got.Events) != 3*i {
			t.Errorf("boot %d: progress = %+v, want %d records", i, got, 3*i)
		}
		tellsAs(t, s, d.Install, h.Journal, id, up, begin, start, asks, restart)
		s.Restart()
	}
	d := s.Script(mac)
	if d.Install == first || d.Action != proto.BootNetboot {
		t.Errorf("after a fourth restart: %s, install %s, want another boot", d.Action, d.Install)
	}
}

// TestChanges: what on-change steps did is remembered over installs, forgotten when the step starts, and by force.
func TestChanges(t *testing.T) {
	s, mac := diskless(t)
	p, more := ram("#!/bin/sh\necho one\n"), registrytest.Prepared("ram", registrytest.Script{Name: "other", Phase: proto.PhaseBoot, Body: "#!/bin/sh\n"})
	p.Steps = append(p.Steps, more.Steps...)
	maps.Copy(p.Scripts, more.Scripts)
	s.Profiles.Put("ram", p)
	d, a := netboots(t, s, mac, registrytest.Boot(1))
	if a.Changes == nil || len(a.Changes.Key) < 32 || len(a.Changes.Done) != 0 {
		t.Fatalf("changes of the first boot = %+v, want a key and nothing done", a.Changes)
	}
	want := func(a *proto.HelloAnswer, what string, keys ...string) {
		t.Helper()
		if a.Changes == nil || !slices.Equal(slices.Sorted(maps.Keys(a.Changes.Done)), keys) {
			t.Errorf("%s: changes = %+v, want %q", what, a.Changes, keys)
		}
	}
	tells(t, s, d.Install, registrytest.Boot(1), up, begin, start, done, end)
	s.Restart()
	d2, a := netboots(t, s, mac, registrytest.Boot(2))
	want(a, "after a good end", "boot/bmc")
	if a.Changes.Done["boot/bmc"] != done.Change {
		t.Errorf("change = %s, want %s", a.Changes.Done["boot/bmc"], done.Change)
	}
	tells(t, s, d2.Install, registrytest.Boot(2), up, begin, end)
	// an older install's words come late
	late := &proto.EventsRequest{Schema: proto.Schema, Install: d.Install, Journal: registrytest.Journal, Clock: proto.Clock{Boot: registrytest.Boot(1)}}
	e := start
	e.Seq, e.Boot, e.Try = 6, registrytest.Boot(1), 2
	raw, _ := json.Marshal(e)
	late.Events = append(late.Events, raw)
	if _, err := s.Events(context.Background(), d.Install, late); err != nil {
		t.Fatal(err)
	}
	d3, a := netboots(t, s, mac, registrytest.Boot(3))
	want(a, "after an older install's start", "boot/bmc")
	tells(t, s, d3.Install, registrytest.Boot(3), up, begin, start, bad)
	_, a = netboots(t, s, mac, registrytest.Boot(4))
	want(a, "after a failure")

	// force, of a node that is up
	d5 := s.Seen("d1").Install
	tells(t, s, d5, registrytest.Boot(4), up, begin, start, done, end)
	if err := s.Command(context.Background(), []string{"d1"}, proto.VerbForce, proto.NodeOrder{Step: "other"}, "op"); err != nil {
		t.Fatal(err)
	}
	_, a = netboots(t, s, mac, registrytest.Boot(5))
	want(a, "after force of another step", "boot/bmc")
	tells(t, s, s.Seen("d1").Install, registrytest.Boot(5), up, begin, end)
	if err := s.Command(context.Background(), []string{"d1"}, proto.VerbForce, proto.NodeOrder{Step: "bmc"}, "op"); err != nil {
		t.Fatal(err)
	}
	d6, a := netboots(t, s, mac, registrytest.Boot(6))
	want(a, "after force")
	if hb, err := s.Heartbeat(t.Context(), d6.Install, "10.0.0.7", &proto.Heartbeat{Schema: proto.Schema, Install: d6.Install}); err != nil || len(hb.Orders) != 0 {
		t.Errorf("Heartbeat = %+v, %v, want no order left over", hb, err)
	}
}
