// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"

	"provost/proto"
)

// decides reports whether an install's status may rest on an event: it is taken even from an agent that has said far too
// much already.
func decides(e *proto.Event) bool {
	switch e.Kind {
	case proto.KindAgentStart, proto.KindRunEnd, proto.KindHold, proto.KindOrder, proto.KindSealed, proto.KindReboot:
		return true
	case proto.KindStepEnd:
		return e.Outcome != proto.OutcomeOK
	case proto.KindStage:
		return e.Failed || e.Stage == "booted"
	}
	return false
}

// fill is how many events an install has, and their bytes.
type fill struct {
	events int
	bytes  int64
}

func (in *install) fill() fill {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.filled()
}

// filled is fill for whoever holds in.mu.
func (in *install) filled() fill { return fill{in.packed.Count + len(in.revisions), in.bytes} }

// fill gives what an install has, with everything decided so far.
func (c *change) fill(id string) fill {
	if f, ok := c.taken[id]; ok {
		return f
	}
	return c.install(id).taken
}

// refuse says why an event is one too many; nil if it is not.
func (t Retention) refuse(f fill, e *proto.Event, bad bool) error {
	switch {
	case f.events >= 2*t.Events || f.bytes >= 2*t.Bytes:
		return fmt.Errorf("the install has %d events with %d bytes: no more are taken", f.events, f.bytes)
	case (f.events >= t.Events || f.bytes >= t.Bytes) && (bad || !decides(e)):
		return fmt.Errorf("the install has %d events with %d bytes: only those that decide its status are taken now", f.events, f.bytes)
	}
	return nil
}

// pass notes how far a journal was passed over without an event that says so.
func (rec *installRecord) pass(journal string, m mark) {
	rec.Refused++
	if _, ok := rec.Passed[journal]; !ok && len(rec.Passed) >= maxBoots {
		return // a restart asks for those again, and refuses them again
	}
	if rec.Passed == nil {
		rec.Passed = map[string]mark{}
	}
	rec.Passed[journal] = m
}

// passed moves the journals to where the record says that they were passed over.
func (in *install) passed(rec *installRecord) {
	if len(rec.Passed) == 0 {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.resting {
		return // wake does it
	}
	for j, m := range rec.Passed {
		if m.Next > in.journals[j].Next {
			if in.journals == nil {
				in.journals = map[string]mark{}
			}
			in.journals[j] = m
		}
	}
}
