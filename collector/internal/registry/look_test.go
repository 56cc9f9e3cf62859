// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/answer"
	"provost/collector/internal/boot"
	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// lost is a site whose node n1 was in its one attempt when the collector heard the last of it: hello, and what events says.
func lost(t *testing.T, silence time.Duration, change func(*registrytest.Site), events ...proto.Event) (s *registrytest.Site, mac, id string) {
	t.Helper()
	s = registrytest.New(t)
	p := registrytest.Prepared("compute")
	p.Recipe.Args = "console=ttyS0 inst.ks={{ .Answer }}"
	p.Recipe.Answer = &answer.Recipe{Name: "kickstart-x.tmpl", Text: "x", Profile: "compute"}
	s.Profiles.Put("compute", p)
	if change != nil {
		change(s)
	}
	mac = s.Add("n1", 1)
	id = s.Ordered("n1")
	d := s.Script(mac)
	if _, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(1))); err != nil {
		t.Fatal(err)
	}
	tells(t, s, id, registrytest.Boot(1), append([]proto.Event{{Kind: proto.KindAgentStart, Stage: "agent-started"}}, events...)...)
	s.Clock.Advance(silence)
	return s, mac, id
}

var (
	postStarted = proto.Event{Kind: proto.KindRunStart, Phase: proto.PhasePost, Stage: "post-started"}
	postDone    = proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhasePost, Stage: "post-done", Outcome: proto.OutcomeOK}
	postFailed  = proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhasePost, Outcome: proto.OutcomeFailed, Cause: proto.CauseStep, Step: "one"}
)

// looks fetches a script that only looks, and says hello from there.
func looks(t *testing.T, s *registrytest.Site, mac, bootID string) boot.Decision {
	t.Helper()
	d := s.Script(mac)
	if !d.Look || d.Action != proto.BootInstall || d.Attempt != 2 || d.Args != "console=ttyS0" || len(d.Injected) > 0 || d.Claim == "" {
		t.Fatalf("decision = %+v, want a look without anything that installs", d)
	}
	if again := s.Script(mac); !again.Look || again.Claim != d.Claim {
		t.Errorf("fetched again it is %+v", again)
	}
	if _, err := s.Answer(ctx, boot.Request{Host: "h"}, d.Install, d.Ticket, "ks.cfg"); code(err) != proto.CodeNotFound {
		t.Errorf("its answer file = %v, want none", err)
	}
	s.Sent(ctx, d.Ticket, d.Kernel, true)
	if _, err := s.Hello(ctx, "", registrytest.HelloOf(d, bootID)); err != nil {
		t.Fatal(err)
	}
	return d
}

const otherJournal = "00000000000000b2"

// TestLookFindsTheSeal: the install of which only the seal was lost is as good as any other.
func TestLookFindsTheSeal(t *testing.T) {
	for name, site := range map[string]func() (*registrytest.Site, string, string){
		"post is done":                  func() (*registrytest.Site, string, string) { return lost(t, time.Minute, nil, postStarted, postDone) },
		"silent for longer than a seal": func() (*registrytest.Site, string, string) { return lost(t, 16*time.Minute, nil, postStarted) },
		"overdue": func() (*registrytest.Site, string, string) {
			s, mac, id := lost(t, 5*time.Hour, nil, postStarted)
			if _, err := s.Expire(ctx); err != nil {
				t.Fatal(err)
			}
			s.Clock.Advance(time.Minute)
			return s, mac, id
		},
	} {
		s, mac, id := site()
		s.Restart()
		looks(t, s, mac, registrytest.Boot(2))
		if n := s.Seen("n1"); n.Status == proto.StatusFailed || n.Attempt != 2 {
			t.Errorf("%s: while it looks the node is %s, attempt %d", name, n.Summary, n.Attempt)
		}
		tellsAs(t, s, id, otherJournal, registrytest.Boot(2), proto.Event{Kind: proto.KindAgentStart, Stage: "agent-started"}, proto.Event{Kind: proto.KindSealed, Stage: "sealed"})
		if n := s.Seen("n1"); n.BootAction != proto.BootDisk || n.Status != proto.StatusRebooting {
			t.Errorf("%s: after the seal: boot action %s, %s", name, n.BootAction, n.Summary)
		}
		if d := s.Script(mac); d.Action != proto.BootDisk {
			t.Errorf("%s: the next script is for %s", name, d.Action)
		}
	}
}

// TestLookFindsNothing: then it is what it would have been without the look, and stays it.
func TestLookFindsNothing(t *testing.T) {
	nothing := proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhasePre, Outcome: proto.OutcomeFailed, Cause: proto.CauseLoop, Message: "no disk has it"}
	holds := func(name string, s *registrytest.Site, mac string) {
		t.Helper()
		for range 2 {
			if d := s.Script(mac); d.Action != proto.BootBlock || !slices.Contains(d.Reason, "n1: failed(loop=2)") {
				t.Errorf("%s: the next script is %+v, want a block", name, d)
			}
			if n := s.Seen("n1"); n.Summary != "failed(loop=2)" || n.BootAction != proto.BootBlock {
				t.Errorf("%s: %s, boot action %s", name, n.Summary, n.BootAction)
			}
		}
	}
	s, mac, id := lost(t, time.Minute, nil, postStarted, postDone)
	looks(t, s, mac, registrytest.Boot(2))
	tellsAs(t, s, id, otherJournal, registrytest.Boot(2), proto.Event{Kind: proto.KindRunStart, Phase: proto.PhasePre}, nothing)
	if n := s.Seen("n1"); n.Summary != "failed(loop=2)" || n.BootAction != proto.BootBlock || n.Cause.Message != "no disk has it" {
		t.Errorf("after the look: %s (%+v), boot action %s", n.Summary, n.Cause, n.BootAction)
	}
	holds("nothing found", s, mac)
	if err := s.SetBootAction(ctx, []string{"n1"}, proto.BootInstall, "op", ""); err != nil {
		t.Fatal(err)
	}
	if d := s.Script(mac); d.Look || d.Attempt != 3 || !strings.Contains(d.Args, "inst.ks=http") {
		t.Errorf("one more attempt that an operator allows = %+v", d)
	}

	s, mac, _ = lost(t, time.Minute, nil, postStarted, postDone)
	looks(t, s, mac, registrytest.Boot(2))
	s.Clock.Advance(24 * time.Hour) // not a word of it
	holds("silent", s, mac)
}

// TestNoLook: where there is nothing to be found, or nobody to look, the node is blocked at once.
func TestNoLook(t *testing.T) {
	for i, c := range []struct {
		why     string
		silence time.Duration
		change  func(*registrytest.Site)
		events  []proto.Event
	}{
		{"it was heard a moment ago", 14 * time.Minute, nil, []proto.Event{postStarted}},
		{"it failed", 2 * time.Hour, nil, []proto.Event{postStarted, postFailed}},
		{"there is no agent in its initrd", 2 * time.Hour, func(s *registrytest.Site) { s.Profiles.All["compute"].Recipe.Initrds = []string{"images/initrd"} }, []proto.Event{postStarted, postDone}},
		{"it is no Linux", 2 * time.Hour, func(s *registrytest.Site) { s.Profiles.All["compute"].Recipe.Loader = "winpe" }, []proto.Event{postStarted, postDone}},
	} {
		s, mac, _ := lost(t, c.silence, c.change, c.events...)
		if d := s.Script(mac); d.Action != proto.BootBlock || d.Look {
			t.Errorf("%d: %s: decision = %+v, want a block", i, c.why, d)
		}
	}
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	s.Ordered("n1")
	d := s.Script(mac)
	s.Sent(ctx, d.Ticket, d.Kernel, true)
	s.Clock.Advance(2 * time.Hour)
	if d := s.Script(mac); d.Action != proto.BootBlock {
		t.Errorf("no agent was ever there: decision = %+v, want a block", d)
	}
	if got := fmt.Sprint(s.Seen("n1").Summary); got != "failed(loop=2)" {
		t.Errorf("summary = %s", got)
	}
}
