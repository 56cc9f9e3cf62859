// SPDX-License-Identifier: Apache-2.0

package agentsuite

import (
	"fmt"
	"time"

	"provost/proto"
	"provost/proto/prototest"
)

// talker prints talks lines.
const (
	talker = "s09"
	talks  = 5000
)

// planned is one step of the suite's plan, and how it ends.
type planned struct {
	name    string
	body    string
	outcome proto.Outcome
	alter   func(*proto.Step)
}

func warn(s *proto.Step) { s.OnFailure = "warn" }

// plan has 20 steps that end in every way there is, of which none ends the phase.
var plan = []planned{
	// at most 4 minutes, in which the suite prepares its fault
	{"s01", `echo yes > "$D/started"; i=0; while [ ! -e "$D/go" ] && [ $i -lt 2400 ]; do sleep 0.1; i=$((i+1)); done`, proto.OutcomeOK, nil},
	{"s02", "", proto.OutcomeOK, nil},
	{"s03", "exit 3", proto.OutcomeFailed, warn},
	{"s04", "", proto.OutcomeOK, nil},
	{"s05", "kill -9 $$", proto.OutcomeSignal, warn},
	{"s06", "", proto.OutcomeOK, nil},
	{"s07", "exec sleep 60", proto.OutcomeTimeout, func(s *proto.Step) {
		limit, none := proto.Duration(time.Second), proto.Duration(0)
		s.Timeout, s.Grace = &limit, &none
		warn(s)
	}},
	{"s08", "", proto.OutcomeOK, nil},
	{talker, fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i; done", talks), proto.OutcomeOK, nil},
	{"s10", "", proto.OutcomeOK, nil},
	{"s11", "exit 4", proto.OutcomeOK, func(s *proto.Step) { s.SuccessCodes = []int{0, 4} }},
	{"s12", "", proto.OutcomeOK, nil},
	{"s13", "", proto.OutcomePreflight, warn},
	{"s14", "", proto.OutcomeOK, nil},
	{"s15", `echo stage=own >> "$PROVOST_STATUS"`, proto.OutcomeOK, nil},
	{"s16", "", proto.OutcomeOK, nil},
	{"s17", "sleep 0.3", proto.OutcomeOK, nil},
	{"s18", "", proto.OutcomeOK, nil},
	{"s19", "", proto.OutcomeOK, nil},
	{"s20", `echo yes > "$D/last"`, proto.OutcomeOK, nil},
}

// steps gives the plan for a directory in which its steps leave their traces.
func steps(dir string) []prototest.Script {
	var out []prototest.Script
	for _, p := range plan {
		no := false
		limit := proto.Duration(5 * time.Minute)
		s := proto.Step{Name: p.name, Phase: proto.PhasePre, Chroot: &no, Timeout: &limit}
		if p.alter != nil {
			p.alter(&s)
		}
		shell := "/bin/sh"
		if p.outcome == proto.OutcomePreflight {
			shell = "/no/such/shell"
		}
		body := fmt.Sprintf("#!%s\nD='%s'\necho %s >> \"$D/ran\"\n%s\n", shell, dir, p.name, p.body)
		out = append(out, prototest.Script{Step: s, Body: body})
	}
	return out
}

// story is what the collector hears of the plan.
func story() []string {
	out := []string{"run-start"}
	for _, p := range plan {
		out = append(out, "step-start "+p.name)
		if p.name == "s15" {
			out = append(out, "stage s15 own")
		}
		out = append(out, "step-end "+p.name+" "+string(p.outcome))
	}
	return append(out, "run-end ok")
}
