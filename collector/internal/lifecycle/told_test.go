// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"testing"

	"provost/collector/internal/lifecycle"
	"provost/proto"
)

// TestTold: a system without an agent is booted by another's word, if the profile trusts that one and the word is of this
// attempt.
func TestTold(t *testing.T) {
	told := func(s *story, stage string) *story {
		return s.add(proto.Event{Kind: proto.KindStage, Source: proto.SourceCallback, Stage: stage})
	}
	for _, tt := range []struct {
		name              string
		story             *story
		trusted, doubtful proto.Status
	}{
		{"told", told(told(new(story).ordered().attempt(1), "sealed"), "booted"), proto.StatusBooted, proto.StatusFirstboot},
		{"not yet", told(new(story).ordered().attempt(1), "sealed"), proto.StatusRebooting, proto.StatusRebooting},
		{"of an earlier attempt", told(new(story).ordered().attempt(1), "booted").attempt(2), proto.StatusPXEBooting, proto.StatusPXEBooting},
		{"again in this attempt", told(told(new(story).ordered().attempt(1), "booted").attempt(2), "booted"), proto.StatusBooted, proto.StatusFirstboot},
		{"failed first", told(new(story).ordered().attempt(1).add(proto.Event{Kind: proto.KindStage, Source: proto.SourceCallback, Stage: "sealed", Failed: true}), "booted"),
			proto.StatusFailed, proto.StatusFirstboot},
	} {
		for _, trust := range []bool{true, false} {
			in, want := inputs(), tt.doubtful
			if trust {
				in.Trust, want = append(in.Trust, proto.SourceCallback), tt.trusted
			}
			var forward, backward lifecycle.State
			for i := range tt.story.events {
				forward.Apply(&tt.story.events[i])
				backward.Apply(&tt.story.events[len(tt.story.events)-1-i])
			}
			if got := forward.View(in).Status; got != want {
				t.Errorf("%s, trust %t: %s, want %s", tt.name, trust, got, want)
			}
			if got := backward.View(in).Status; got != want {
				t.Errorf("%s, trust %t, in reverse: %s, want %s", tt.name, trust, got, want)
			}
		}
	}
}
