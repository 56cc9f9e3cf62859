// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"fmt"
	"slices"

	"provost/proto"
)

// lineSize is the length of every line of a simulated log.
const lineSize = 64

// journey is what happens in every simulated install: two journals, of the installer and of the installed system, and
// the logs. Nodes share it: it has no identity and no times.
type journey struct {
	installer, installed []proto.Event
	logs                 []logSpec
}

// logSpec is one log: half of it is there when its step starts, all of it when the step has ended.
type logSpec struct {
	name      string
	size      int64
	installed bool // of a step in the installed system
	start     int  // index of the step-start in its journal; the step-end follows
}

// newJourney makes an install of 14 + 2 × steps events. logs of the steps, evenly spread, have a log of lines lines.
func newJourney(steps, logs, lines int) *journey {
	j := &journey{}
	phases := []struct {
		phase proto.Phase
		steps int
		after []string // stages that the installer tells of then
	}{
		{proto.PhasePre, steps / 10, []string{"partitioned", "packages-started", "packages-done"}},
		{proto.PhasePost, steps - steps/10 - steps/6, nil},
		{proto.PhaseFirstboot, steps / 6, nil},
	}
	to := &j.installer
	add := func(e proto.Event) { *to = append(*to, e) }
	stage := func(name string) { add(proto.Event{Kind: proto.KindStage, Stage: name}) }
	add(proto.Event{Kind: proto.KindAgentStart, Stage: "agent-started"})
	stage("installer-started")
	step := 0
	for _, p := range phases {
		if p.phase == proto.PhaseFirstboot {
			add(proto.Event{Kind: proto.KindSealed, Stage: "sealed"})
			to = &j.installed
			add(proto.Event{Kind: proto.KindAgentStart, Stage: "disk-booted"})
		}
		add(proto.Event{Kind: proto.KindRunStart, Phase: p.phase, Stage: string(p.phase) + "-started"})
		for range p.steps {
			step++
			name := fmt.Sprintf("step-%02d", step)
			end := proto.Event{Kind: proto.KindStepEnd, Phase: p.phase, Step: name, Try: 1, Outcome: proto.OutcomeOK, DurationMS: 100}
			if step*logs/steps > (step-1)*logs/steps {
				end.Log = name + ".log"
				j.logs = append(j.logs, logSpec{end.Log, int64(lines) * lineSize, to == &j.installed, len(*to)})
			}
			add(proto.Event{Kind: proto.KindStepStart, Phase: p.phase, Step: name, Try: 1})
			add(end)
		}
		add(proto.Event{Kind: proto.KindRunEnd, Phase: p.phase, Outcome: proto.OutcomeOK, Stage: string(p.phase) + "-done"})
		for _, s := range p.after {
			stage(s)
		}
	}
	stage("booted")
	return j
}

// events is the number of events of an install.
func (j *journey) events() int { return len(j.installer) + len(j.installed) }

// message is the text of every event. It begins with the event's place, so that the collector's copy can be told from
// every other event, and makes the event some 500 bytes long.
func message(journal string, seq uint64) string {
	return fmt.Sprintf("%s %d %s", journal, seq, filler)
}

const filler = "the last line that a step of ordinary talkativeness prints before it ends, with a path or two in it: /usr/share/doc/packages and /var/lib"

// logText is the first size bytes of a log.
func logText(node, name string, size int64) []byte {
	var b bytes.Buffer
	for i := 0; int64(b.Len()) < size; i++ {
		line := fmt.Sprintf("%s %s line %d ", node, name, i)
		b.WriteString(line)
		b.Write(bytes.Repeat([]byte{'.'}, max(lineSize-1-len(line), 0)))
		b.WriteByte('\n')
	}
	return slices.Clip(b.Bytes()[:size])
}
