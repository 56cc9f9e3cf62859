// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"slices"
	"testing"

	"provost/collector/internal/lifecycle"
	"provost/proto"
)

// TestKnownFailuresOfOthers has the stories that other systems' status tools are known to tell wrongly. Those about lines of
// logs and their rotation are in package evidence, those about exit statuses in package cli.
func TestKnownFailuresOfOthers(t *testing.T) {
	failing := func() *story { // a postscript that is not there: 127, and the run goes on to its end
		s := (&story{}).ordered().attempt(1).agent().post().begin("otherpkgs", 1)
		s.end("otherpkgs", 1, proto.OutcomeFailed, 127)
		return s.add(proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhasePost, Outcome: proto.OutcomeFailed, Step: "otherpkgs", Exit: 127})
	}
	booted := func() *story {
		s := (&story{}).ordered().attempt(1).agent().post()
		s.add(proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhasePost, Outcome: proto.OutcomeOK, Stage: "post-done"})
		s.add(proto.Event{Kind: proto.KindSealed, Stage: "sealed"})
		s.boot = bootB
		s.add(proto.Event{Kind: proto.KindRunStart, Phase: proto.PhaseFirstboot, Stage: "firstboot-started"})
		return s.add(proto.Event{Kind: proto.KindRunEnd, Phase: proto.PhaseFirstboot, Outcome: proto.OutcomeOK, Stage: "firstboot-done"})
	}
	late := func(s *story, stage string, src proto.Source) *story {
		return s.add(proto.Event{Kind: proto.KindStage, Source: src, Stage: stage})
	}
	for _, tt := range []struct {
		name  string
		story *story
		want  string
	}{
		{"success is reported although a postscript returned 127", failing(), "failed(otherpkgs=127)"},
		{"the frontend's logs saw the node boot after that", late(late(failing(), "kernel-sent", "log:dnsmasq"), "booted", "log:dnsmasq"), "failed(otherpkgs=127)"},
		{"a late installing overwrites booted", late(booted(), "agent-started", "log:http"), "booted"},
		{"the status keeps installing after a finish", late(late(booted(), "partitioned", "log:http"), "bootscript-sent", "log:http"), "booted"},
	} {
		for _, order := range []string{"as it happened", "backwards: the failed status before the script's start"} {
			events := slices.Clone(tt.story.events)
			if order != "as it happened" {
				slices.Reverse(events)
			}
			var s lifecycle.State
			for i := range events {
				s.Apply(&events[i])
			}
			if got := s.View(inputs()).Summary; got != tt.want {
				t.Errorf("%s, %s: %s, want %s", tt.name, order, got, tt.want)
			}
		}
	}
}
