// SPDX-License-Identifier: Apache-2.0

package prototest

import (
	"bytes"
	"time"

	"provost/proto"
)

// rebooted remembers an announced reboot: the next boot of the installer is this attempt's, too.
func (in *install) rebooted(e proto.Event, run []byte) {
	if e.Kind == proto.KindReboot && e.Phase.Fleeting() {
		in.bound, in.run, in.reboots = "", run, in.reboots+1
	}
}

// progress is what an installer is told of its earlier boots; nil if there was no announced reboot.
func (in *install) progress(boot string) *proto.Progress {
	if in.reboots == 0 {
		return nil
	}
	p := &proto.Progress{Events: []proto.Event{}, Run: in.run}
	for _, e := range in.events {
		switch e.Kind {
		case proto.KindStepStart, proto.KindStepEnd, proto.KindOrder, proto.KindReboot:
			if e.Boot != boot {
				e.Message, e.Tail, e.At = "", nil, time.Now().UTC()
				p.Events = append(p.Events, e)
			}
		}
	}
	return p
}

// Reboots counts the announced reboots of an install.
func (c *Collector) Reboots(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.installs[id].reboots
}

// reboot: an announced reboot of the installer is the same attempt; its claim can be bound once more, and what was done
// comes back.
func reboot(s *session) {
	step := Script{proto.Step{Name: "fw", Phase: proto.PhasePre, Reboot: &proto.Reboot{Max: 1}}, "#!/bin/sh\nexit 192\n"}
	s.id, s.claim = s.Install(s.node, []Script{step})
	first := s.join()
	if first.Progress != nil {
		s.Errorf("progress of the first boot = %+v, want none", first.Progress)
	}
	start, end, re := event(1, proto.KindStepStart, Boot1), event(2, proto.KindStepEnd, Boot1), event(3, proto.KindReboot, Boot1)
	for _, e := range []*proto.Event{&start, &end, &re} {
		e.Phase, e.Step, e.Try = proto.PhasePre, "fw", 1
	}
	end.Outcome, end.Exit, end.Again, end.Message = proto.OutcomeOK, proto.ExitRebootAgain, true, "once more"
	re.Exit = end.Exit
	q := s.request(journal1, start, end, re)
	q.Run = []byte("what steps keep")
	s.taken(s.call("POST", "/v1/agent/events", s.token, q, nil))

	h := s.helloOf(Boot2)
	h.Journal = "00000000000000a2"
	var a proto.HelloAnswer
	s.taken(s.call("POST", "/v1/agent/hello", "", h, &a))
	if a.Attempt != first.Attempt || a.Next != 1 || a.Token == "" {
		s.Errorf("hello after the reboot = %+v, want attempt %d and a token", a, first.Attempt)
	}
	if a.Progress == nil || len(a.Progress.Events) != 3 || !bytes.Equal(a.Progress.Run, q.Run) {
		s.Fatalf("progress after the reboot = %+v, want the three records and what steps keep", a.Progress)
	}
	if e := a.Progress.Events[1]; e.Kind != proto.KindStepEnd || e.Step != "fw" || !e.Again || e.Boot != Boot1 || e.At.IsZero() || e.Message != "" {
		s.Errorf("record 2 of the progress = %+v, want the end of fw, without its message", e)
	}
	third := s.helloOf("33333333-3333-4333-8333-333333333333") // nothing announced that one
	s.refused(409, proto.CodeContested)(s.call("POST", "/v1/agent/hello", "", third, nil))
}
