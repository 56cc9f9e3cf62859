// SPDX-License-Identifier: Apache-2.0

package journey_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"provost/proto"
)

// TestStagesOfTheSite: a line of YAML more is a stage more, which the agent reports by its name or an alias, and which has a
// deadline. What no sequence has is recorded all the same, and changes nothing.
func TestStagesOfTheSite(t *testing.T) {
	t.Parallel()
	s := newSite(t, "kernel: images/vmlinuz\nsequence: ours\n", nil, func(s *site) {
		s.write("cfg/sequences/ours.yaml", `family: ours
stages:
  - {name: ordered, within: 15m}
  - {name: agent-started, within: 11m, label: agent runs}
  - {name: bmc-set, within: 23m, label: the BMC has its settings, aliases: [BMC_Okay]}
  - {name: racked, within: 5m, label: it is in the inventory}
  - {name: booted}
`)
	})
	deadline := func(stage string, within time.Duration) {
		t.Helper()
		n := s.seen()
		if n.Deadline == nil || n.Deadline.Stage != stage || n.Deadline.At.Sub(n.Deadline.Since) != within {
			t.Errorf("at stage %s the deadline is %+v, want %s within %s", n.Stage, n.Deadline, stage, within)
		}
	}
	s.boots()
	s.agent(0, "report", "agent-started")
	deadline("bmc-set", 11*time.Minute)
	s.agent(0, "report", "lunch-break", "-m", "nobody's stage")
	deadline("bmc-set", 11*time.Minute)
	s.agent(0, "report", "BMC_Okay", "-m", "by ipmitool")
	deadline("racked", 23*time.Minute)
	if n := s.seen(); n.Stage != "bmc-set" {
		t.Errorf("stage = %s, want bmc-set", n.Stage)
	}
	var list proto.EventList
	if err := json.Unmarshal([]byte(s.provost(0, "timeline", s.node, "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range list.Events {
		if e.Source == proto.SourceAgent {
			got[e.Stage] = e.Message
		}
	}
	if got["lunch-break"] != "nobody's stage" || got["BMC_Okay"] != "by ipmitool" {
		t.Errorf("the agent's events are %v, want both that it reported", got)
	}
	text := s.provost(0, "timeline", s.node)
	for _, want := range []string{"lunch-break", "BMC_Okay", "racked is awaited, until "} {
		if !strings.Contains(text, want) {
			t.Errorf("the timeline lacks %q:\n%s", want, text)
		}
	}
}
