// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"testing"

	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// TestBootedOnce: the power goes between the report that the system is up and its acknowledgement. The agent says it again,
// in the same boot or the next, to a collector that may have been restarted: the install has one such event, and is booted.
func TestBootedOnce(t *testing.T) {
	s := registrytest.New(t)
	mac := s.Add("n1", 1)
	id := installed(t, s, "n1", mac, 1)
	stage := func(name string) func(*proto.Event) { return func(e *proto.Event) { e.Stage = name } }
	end := func(e *proto.Event) {
		e.Phase, e.Outcome, e.Stage = proto.PhaseFirstboot, proto.OutcomeOK, "firstboot-done"
	}
	report := func(sender byte) *proto.EventsAnswer {
		t.Helper()
		q := request(id, "00000000000000b2", event(1, proto.KindAgentStart, 2, stage("disk-booted")), event(2, proto.KindRunEnd, 2, end), event(3, proto.KindStage, 2, stage("booted")))
		q.Clock.Boot = registrytest.Boot(sender)
		a, err := s.Events(ctx, id, q)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for i, sender := range []byte{2, 2, 3, 3} {
		if a := report(sender); a.Next != 4 || len(a.Refused) > 0 {
			t.Errorf("report %d: %+v, want that record 4 is wanted next", i+1, a)
		}
		if i == 1 {
			s.Restart()
		}
	}
	list, err := s.InstallEvents("n1", id)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range list.Events {
		if e.Stage == "booted" {
			n++
		}
	}
	if v := s.Seen("n1"); n != 1 || v.Status != proto.StatusBooted {
		t.Errorf("%d events say booted, the node is %s; want one, and booted", n, v.Summary)
	}
}
