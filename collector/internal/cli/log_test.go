// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"testing"

	"provost/collector/internal/cli"
	"provost/proto"
)

// TestLastStepLog: a step that ran in several boots has several logs, and the newest is the one that is meant.
func TestLastStepLog(t *testing.T) {
	in := &proto.Install{Steps: []proto.StepInfo{{Name: "look"}, {Name: "look-r3"}, {Name: "no"}}}
	for _, name := range []string{"look.log", "look-r2.log", "look-r10.log", "look-a2.log", "look-a2-r1.log", "look-r3.log", "lookout.log", "look-rx.log", "agent.log"} {
		in.Logs = append(in.Logs, proto.LogInfo{Name: name})
	}
	for step, want := range map[string]string{"look": "look-a2-r1.log", "look-r3": "look-r3.log", "no": "", "lookout": "lookout.log"} {
		if got := cli.LastStepLog(in, step); got != want {
			t.Errorf("log of %s = %q, want %q", step, got, want)
		}
	}
	in.Logs = in.Logs[:3]
	if got := cli.LastStepLog(in, "look"); got != "look-r10.log" {
		t.Errorf("log of look = %q, want that of the tenth restart", got)
	}
}
