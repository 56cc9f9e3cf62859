// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/boot"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// asks fetches a boot script as a machine that says who it is.
func asks(t *testing.T, s *registrytest.Site, mac, serial, uuid string) boot.Decision {
	t.Helper()
	d, err := s.Boot(ctx, boot.Request{MAC: mac, Method: "GET", Host: "10.0.0.1:8480", Serial: serial, UUID: uuid})
	if err != nil {
		t.Fatalf("Boot of %s: %v", mac, err)
	}
	return d
}

func siteFor(t *testing.T, unknown string, most int) *registrytest.Site {
	s := registrytest.New(t)
	s.Unknown, s.MaxDiscovered = unknown, most
	s.Restart()
	return s
}

func listed(s *registrytest.Site) (out []string) {
	for _, n := range s.Nodes(nil) {
		out = append(out, n.Name)
	}
	return out
}

func TestUnknownIgnored(t *testing.T) {
	for _, policy := range []string{"", "ignore"} {
		s := siteFor(t, policy, 0)
		if d := asks(t, s, registrytest.MAC(9), "S9", ""); !d.UnknownMAC || d.Action != proto.BootDisk {
			t.Errorf("%q: decision = %+v, want the disk", policy, d)
		}
		if got := listed(s); len(got) > 0 {
			t.Errorf("%q: there are nodes %v", policy, got)
		}
	}
}

// TestUnknownDiscovered: an unknown machine is listed, waits, is adopted with what it said of itself, and was never installed.
func TestUnknownDiscovered(t *testing.T) {
	s := siteFor(t, "discover", 0)
	mac := registrytest.MAC(9)
	if _, err := s.Boot(ctx, boot.Request{MAC: mac, Method: "HEAD", Host: "h", Serial: "S9"}); err != nil || len(listed(s)) > 0 {
		t.Errorf("HEAD = %v, and lists %v", err, listed(s))
	}
	for range 2 {
		d := asks(t, s, mac, " S9\x1b ", "4C4C4544-0000-1000-8000-000000000009")
		text := strings.Join(append(d.Reason, d.Hint...), "\n")
		if d.Action != proto.BootBlock || !strings.Contains(text, "S9") || !strings.Contains(text, "4c4c4544-") || !strings.Contains(text, "provost node adopt "+mac+" NAME") {
			t.Errorf("decision = %+v, want a screen that says who it is and what to type", d)
		}
	}
	n := s.Seen("52-54-00-00-00-09")
	if n.Status != proto.StatusDiscovered || n.Serial != "S9" || n.Install != "" || n.BootAction != proto.BootDisk {
		t.Errorf("node = %+v", n)
	}
	if got := code(s.Order(ctx, []string{n.Name}, proto.InstallOrder{Profile: "compute"}, "op")); got != proto.CodeUnknownNode {
		t.Errorf("an install of a discovered machine = %q", got)
	}
	s.Profiles.Put("discover", registrytest.Prepared("discover"))
	if d := asks(t, s, mac, "S9", "4C4C4544-0000-1000-8000-000000000009"); d.Action != proto.BootRescue || d.Node != "" || d.Claim != "" || d.Kernel == "" {
		t.Errorf("with a profile discover the decision is %+v", d)
	}
	if _, err := s.AddNode(ctx, proto.NodeSpec{Name: "n9", MACs: []string{mac}, Serial: n.Serial, Profile: "compute"}); err != nil {
		t.Fatal(err)
	}
	if d := asks(t, s, mac, "S9", ""); d.Action != proto.BootDisk || d.Node != "n9" {
		t.Errorf("the adopted one gets %+v", d)
	}
	if got := listed(s); len(got) != 1 {
		t.Errorf("nodes = %v, want n9 alone", got)
	}
}

// TestUnknownGetsProfile: it becomes a node, and its disk is safe until somebody orders an install.
func TestUnknownGetsProfile(t *testing.T) {
	s := siteFor(t, "compute", 0)
	mac, name := registrytest.MAC(9), "52-54-00-00-00-09"
	for range 3 {
		if d := asks(t, s, mac, "S9", ""); d.Action != proto.BootDisk || d.UnknownMAC || d.Node != name {
			t.Errorf("decision = %+v, want the disk", d)
		}
	}
	if n := s.Seen(name); n.Status != proto.StatusDefined || n.Profile != "compute" || n.Serial != "S9" || n.Install != "" {
		t.Errorf("node = %+v", n)
	}
	s.Ordered(name)
	if d := asks(t, s, mac, "S9", ""); d.Action != proto.BootInstall {
		t.Errorf("after an order the decision is %+v", d)
	}
}

// TestUnknownBroken: a mistake in the site's settings for strangers keeps none of them from its disk, and is said.
func TestUnknownBroken(t *testing.T) {
	mac := registrytest.MAC(9)
	holds := func(s *registrytest.Site, trouble string) {
		t.Helper()
		if d := asks(t, s, mac, "", ""); !d.UnknownMAC || d.Action != proto.BootDisk {
			t.Errorf("decision = %+v, want the disk", d)
		}
		if got := s.UnknownTrouble(); !strings.Contains(got, trouble) {
			t.Errorf("the trouble is %q, want %q", got, trouble)
		}
	}
	s := siteFor(t, "nothing", 0)
	holds(s, `unknown-nodes: nothing: unknown machines boot from disk: there is no profile "nothing"`)
	s.Profiles.Put("nothing", registrytest.Prepared("nothing"))
	if d := asks(t, s, mac, "", ""); d.UnknownMAC || s.UnknownTrouble() != "" {
		t.Errorf("with the profile: %+v, trouble %q", d, s.UnknownTrouble())
	}

	s = siteFor(t, "discover", 0)
	broken := registrytest.Prepared("discover")
	broken.Recipe.Kernel = ""
	s.Profiles.Put("discover", broken)
	holds(s, "there is no kernel for a rescue")
	s.Profiles.Put("discover", registrytest.Prepared("discover"))
	if d := asks(t, s, mac, "", ""); d.Action != proto.BootRescue || s.UnknownTrouble() != "" {
		t.Errorf("with a profile that is right: %+v, trouble %q", d, s.UnknownTrouble())
	}
}

// TestFloodOfStrangers: made-up addresses fill neither the database nor push out what an operator has said anything of.
func TestFloodOfStrangers(t *testing.T) {
	for _, policy := range []string{"discover", "compute"} {
		t.Run(policy, func(t *testing.T) {
			s := siteFor(t, policy, 8)
			s.Add("n1", 1)
			asks(t, s, registrytest.MAC(2), "", "")
			if policy == "compute" { // an operator has looked at it
				group := []string{"g"}
				if err := s.PatchNodes(ctx, []string{"52-54-00-00-00-02"}, proto.NodePatch{AddGroups: group}); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 40 {
				s.Clock.Advance(time.Second)
				asks(t, s, registrytest.MAC(byte(100+i)), "", "")
			}
			got := listed(s)
			want := 9
			if policy == "compute" {
				want = 10
			}
			if len(got) != want || s.Seen("n1").Name != "n1" {
				t.Errorf("%d nodes: %v, want %d", len(got), got, want)
			}
			if _, err := s.Node("52-54-00-00-00-8b"); err != nil { // the last one
				t.Error(err)
			}
			if _, err := s.Node("52-54-00-00-00-02"); (err == nil) != (policy == "compute") {
				t.Errorf("the oldest: %v", err)
			}
			var m strings.Builder
			s.WriteMetrics(&m)
			if !strings.Contains(m.String(), "provost_unknown_machines_dropped_total 3") {
				t.Errorf("what was dropped is not counted:\n%s", m.String())
			}
			last := ""
			for i := range 2000 { // at once
				last = fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8, i&255)
				asks(t, s, last, "", "")
			}
			if _, err := s.Node(strings.ReplaceAll(last, ":", "-")); err == nil || len(listed(s)) != want {
				t.Errorf("2000 strangers at once, all of them taken; there are %d nodes, want %d", len(listed(s)), want)
			}
			s.Clock.Advance(time.Second)
			asks(t, s, last, "", "")
			if _, err := s.Node(strings.ReplaceAll(last, ":", "-")); err != nil {
				t.Errorf("a second later: %v", err)
			}
		})
	}
}

// TestMovedCards: a card or board that moved is said, and never makes one machine be installed as another.
func TestMovedCards(t *testing.T) {
	const u1, u2, u3 = "4c4c4544-0000-1000-8000-000000000001", "4c4c4544-0000-1000-8000-000000000002", "4c4c4544-0000-1000-8000-000000000003"
	moved := func(t *testing.T, s *registrytest.Site, name, want string) {
		t.Helper()
		got := strings.Join(s.Seen(name).Warnings, "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("warnings of %s = %q, want %q", name, got, want)
		}
		h, err := s.History(name, time.Time{}, false)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, e := range h.Entries {
			if e.Order == "moved" && strings.Contains(e.Detail, want) {
				n++
			}
		}
		if want != "" && n != 1 || want == "" && n != 0 {
			t.Errorf("the history of %s has it %d times", name, n)
		}
	}
	setup := func(t *testing.T) *registrytest.Site {
		s := siteFor(t, "discover", 0)
		s.Add("n1", 1)
		s.Add("n2", 2)
		asks(t, s, registrytest.MAC(1), "S1", u1)
		asks(t, s, registrytest.MAC(2), "S2", u2)
		moved(t, s, "n1", "")
		return s
	}
	t.Run("the same, in other words", func(t *testing.T) {
		s := setup(t)
		asks(t, s, registrytest.MAC(1), "S1", strings.ToUpper(u1))
		asks(t, s, registrytest.MAC(1), "", "")
		asks(t, s, registrytest.MAC(1), "To be filled by O.E.M.", "00000000-0000-0000-0000-000000000000")
		moved(t, s, "n1", "")
	})
	t.Run("a new card", func(t *testing.T) {
		s := setup(t)
		for range 3 {
			if d := asks(t, s, registrytest.MAC(7), "S1", u1); d.Action != proto.BootDisk || d.Node != "n1" {
				t.Errorf("decision = %+v, want the disk of n1", d)
			}
		}
		moved(t, s, "n1", "by the MAC "+registrytest.MAC(7))
		if got := listed(s); len(got) != 2 {
			t.Errorf("nodes = %v", got)
		}
		id := s.Ordered("n1")
		d := asks(t, s, registrytest.MAC(7), "S1", u1)
		if d.Action != proto.BootBlock || !strings.Contains(strings.Join(d.Hint, "\n"), "provost node set n1 --mac "+registrytest.MAC(7)) {
			t.Errorf("with an order the decision is %+v, want a screen", d)
		}
		if n := s.Seen("n1"); n.Attempt != 0 || n.Install != id {
			t.Errorf("an unlisted card began an attempt: %+v", n)
		}
		if err := s.PatchNodes(ctx, []string{"n1"}, proto.NodePatch{MACs: &[]string{registrytest.MAC(1), registrytest.MAC(7)}}); err != nil {
			t.Fatal(err)
		}
		if n := s.Seen("n1"); len(n.Warnings) > 0 {
			t.Errorf("warnings after node set = %v", n.Warnings)
		}
		if d := asks(t, s, registrytest.MAC(7), "S1", u1); d.Action != proto.BootInstall {
			t.Errorf("after node set the decision is %+v", d)
		}
	})
	t.Run("another's card", func(t *testing.T) {
		s := setup(t)
		if d := asks(t, s, registrytest.MAC(1), "S2", u2); d.Action != proto.BootDisk {
			t.Errorf("decision = %+v", d)
		}
		moved(t, s, "n1", "which is that of n2")
		s.Ordered("n1")
		for range 2 {
			_, err := s.Boot(ctx, boot.Request{MAC: registrytest.MAC(1), Method: "GET", Host: "h", Serial: "S2", UUID: u2})
			if code(err) != proto.CodeConflict {
				t.Errorf("the machine of n2 with the card of n1 = %v, want that it is refused", err)
			}
		}
		if n := s.Seen("n1"); n.Attempt != 0 {
			t.Errorf("it began attempt %d", n.Attempt)
		}
	})
	t.Run("a new board", func(t *testing.T) {
		s := setup(t)
		id := s.Ordered("n1")
		if d := asks(t, s, registrytest.MAC(1), "S3", u3); d.Action != proto.BootInstall {
			t.Errorf("decision = %+v, want the install", d)
		}
		moved(t, s, "n1", "has the serial number S3")
		found := false
		list, err := s.InstallEvents("n1", id)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Events {
			found = found || e.Kind == proto.KindNote && e.Source == proto.SourceBoot && strings.Contains(e.Message, "S3")
		}
		if !found {
			t.Error("the install has no event of it")
		}
	})
	t.Run("a number that two have", func(t *testing.T) {
		s := siteFor(t, "ignore", 0)
		s.Add("n1", 1)
		s.Add("n2", 2)
		asks(t, s, registrytest.MAC(1), "CHASSIS", "")
		asks(t, s, registrytest.MAC(2), "CHASSIS", "")
		if d := asks(t, s, registrytest.MAC(3), "CHASSIS", ""); !d.UnknownMAC {
			t.Errorf("decision = %+v", d)
		}
		moved(t, s, "n1", "")
		moved(t, s, "n2", "")
	})
}
