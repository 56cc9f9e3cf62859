// SPDX-License-Identifier: Apache-2.0

package prototest

import (
	"maps"

	"provost/proto"
)

// changes: by what an on-change step was last done well comes back with each hello of the node, also of its next install, and
// is forgotten when the step starts again.
func changes(s *session) {
	a := s.join()
	if a.Changes == nil || len(a.Changes.Key) < 16 || len(a.Changes.Done) != 0 {
		s.Fatalf("changes at first = %+v, want a key and nothing done", a.Changes)
	}
	key := a.Changes.Key
	start, end := event(1, proto.KindStepStart, Boot1), event(2, proto.KindStepEnd, Boot1)
	for _, e := range []*proto.Event{&start, &end} {
		e.Phase, e.Step, e.Try = proto.PhasePost, "one", 1
	}
	end.Outcome, end.Change = proto.OutcomeOK, a.Changes.Keyed(proto.Digest([]byte("what it depends on")))
	s.deliver(3, start, end)
	want := func(what string, done map[string]string) {
		s.Helper()
		a = s.join()
		if a.Changes == nil || string(a.Changes.Key) != string(key) || !maps.Equal(a.Changes.Done, done) {
			s.Errorf("changes %s = %+v, want %v under the same key", what, a.Changes, done)
		}
	}
	done := map[string]string{"post/one": end.Change}
	want("after the step", done)
	s.id, s.claim = s.Install(s.node, []Script{s.script})
	want("in the next install", done)
	s.deliver(2, start)
	want("after the step has started again", nil)
	bad := event(2, proto.KindNote, Boot1)
	bad.Change = "no digest"
	if got := s.deliver(3, bad); len(got.Refused) != 1 {
		s.Errorf("a change that is no digest: refused %+v, want it alone", got.Refused)
	}
}
