// SPDX-License-Identifier: Apache-2.0

package lifecycle_test

import (
	"testing"

	"provost/collector/internal/lifecycle"
	"provost/proto"
)

// TestStuckByItself: an agent that says what its installer waits for needs no guesses beside that; a deadline does.
func TestStuckByItself(t *testing.T) {
	for source, guesses := range map[proto.Source]bool{"": false, proto.SourceDeadline: true} {
		var s lifecycle.State
		for _, e := range begin().attempt(1).agent().add(proto.Event{Kind: proto.KindStalled, Source: source, Stage: "post-started"}).events {
			s.Apply(&e)
		}
		v := s.View(inputs())
		if v.Summary != "stalled(post-started)" || v.Stuck == nil || v.Stuck.Stage != "post-started" || v.Stuck.Last != "agent-started" {
			t.Fatalf("%q: %s, stuck %+v", source, v.Summary, v.Stuck)
		}
		if got := len(v.Stuck.Likely) > 0; got != guesses {
			t.Errorf("%q: likely %q, guesses wanted: %v", source, v.Stuck.Likely, guesses)
		}
	}
}
