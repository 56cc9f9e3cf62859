// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"testing"

	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// TestAnnouncedReboots: three reboots that the plan allows are one attempt; a fourth, and a boot that nothing announced, are
// attempts, of which there is none left.
func TestAnnouncedReboots(t *testing.T) {
	for _, tt := range []struct {
		name     string
		boots    int  // that announce a reboot
		announce bool // whether the last one does
		loop     bool
	}{{"three", 3, true, false}, {"a fourth", 4, true, true}, {"none announced", 2, false, true}} {
		t.Run(tt.name, func(t *testing.T) {
			s := registrytest.New(t)
			p := registrytest.Prepared("compute", registrytest.Script{Name: "fw", Phase: proto.PhasePre, Body: "#!/bin/sh\n"})
			p.Steps[0].Reboot = &proto.Reboot{Max: 3}
			s.Profiles.Put("compute", p)
			mac := s.Add("n1", 1)
			s.Ordered("n1")
			for i := range tt.boots {
				d := s.Script(mac)
				s.Script(mac) // a loader asks, too
				if d.Action != proto.BootInstall || d.Attempt != 1 {
					t.Fatalf("boot %d gets %s, attempt %d, want install, 1", i, d.Action, d.Attempt)
				}
				s.Sent(ctx, d.Ticket, "images/vmlinuz", true)
				boot := byte(i + 1)
				h := registrytest.HelloOf(d, registrytest.Boot(boot))
				h.Journal = registrytest.Journal[:15] + string(rune('a'+i))
				a, err := s.Hello(ctx, "", h)
				if err != nil {
					t.Fatalf("boot %d: hello: %v", i, err)
				}
				if got := a.Progress; (got != nil) != (i > 0) || got != nil && len(got.Events) != i {
					t.Errorf("boot %d: progress = %+v, want %d records", i, got, i)
				}
				if tt.announce || i < tt.boots-1 {
					id, err := s.Agent(a.Token)
					if err != nil {
						t.Fatal(err)
					}
					q := request(id, h.Journal, event(1, proto.KindReboot, boot, func(e *proto.Event) { e.Phase, e.Step = proto.PhasePre, "fw" }))
					q.Clock.Boot = registrytest.Boot(boot)
					if _, err := s.Events(ctx, id, q); err != nil {
						t.Fatal(err)
					}
					if _, err := s.Events(ctx, id, q); err != nil { // the answer was lost
						t.Fatal(err)
					}
				}
				s.Restart()
			}
			d := s.Script(mac)
			if loop := d.Action == proto.BootBlock; loop != tt.loop {
				t.Errorf("the next script is for %s, want a block: %t; %s", d.Action, tt.loop, s.Seen("n1").Summary)
			}
			if n := s.Seen("n1"); !tt.loop && (n.Attempt != 1 || n.Cause != nil) {
				t.Errorf("after three reboots: attempt %d, %s", n.Attempt, n.Summary)
			}
		})
	}
}

// TestLateRebootIsNone: the word of an earlier attempt's boot does not open the present one.
func TestLateRebootIsNone(t *testing.T) {
	s := registrytest.New(t)
	p := registrytest.Prepared("compute", registrytest.Script{Name: "fw", Phase: proto.PhasePre, Body: "#!/bin/sh\n"})
	p.Steps[0].Reboot, p.Recipe.Attempts = &proto.Reboot{Max: 3}, 2
	s.Profiles.Put("compute", p)
	mac := s.Add("n1", 1)
	id := s.Ordered("n1")
	for i := range 2 {
		d := s.Script(mac)
		if _, err := s.Hello(ctx, "", registrytest.HelloOf(d, registrytest.Boot(byte(i+1)))); err != nil {
			t.Fatal(err)
		}
	}
	send(t, s, id, event(1, proto.KindReboot, 1, func(e *proto.Event) { e.Phase, e.Step = proto.PhasePre, "fw" }))
	if d := s.Script(mac); d.Action != proto.BootBlock {
		t.Errorf("after a late word of attempt 1 the script is for %s, want block", d.Action)
	}
}
