// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"slices"

	"provost/collector/internal/store"
	"provost/proto"
)

// An announced reboot of the installer is no attempt, and of a diskless node no other boot: a step of phase pre or boot asked for it, as its plan allows, and the agent
// recorded that. The next boot gets the same claim, which no boot has then, and is told what was done before.

// announced takes an agent's word that its machine restarts. It counts for the boot that has the attempt's claim, and only as
// often as the plan allows: a node never installs itself for ever.
func (rec *installRecord) announced(e *proto.Event) {
	if !e.Phase.Fleeting() || e.Boot == "" || rec.Bound[rec.Attempt] != e.Boot || rec.Reboots >= rec.MaxReboots {
		return
	}
	delete(rec.Bound, rec.Attempt)
	rec.Reboots++
	rec.Rebooting = true
	rec.Began = e.At // a restart takes its time, which is not counted
}

// maxReboots is how often the steps of phases pre and boot may ask for a restart.
func maxReboots(steps []proto.Step) (n int) {
	for _, s := range steps {
		if s.Phase.Fleeting() && s.Reboot != nil {
			n += s.Reboot.Max
		}
	}
	return n
}

// runKey is where, beside an install's plan, the archive of what its steps keep over reboots is.
func runKey(install string) string { return install + ".run" }

// keepRun keeps it; one that is too large is left out, and the steps begin with an empty directory.
func (c *change) keepRun(install string, run []byte) {
	if len(run) == 0 || len(run) > proto.MaxRun {
		c.tx.Delete(store.Plans, runKey(install))
		return
	}
	c.tx.Put(store.Plans, runKey(install), run)
}

// progress is what an installer did in the boots of this attempt before the one that asks.
func (r *Registry) progress(id string, attempt int, boot string) (*proto.Progress, error) {
	r.pub.RLock()
	in := r.pub.installs[id]
	r.pub.RUnlock()
	if in == nil {
		return nil, nil
	}
	events, err := r.events(in)
	if err != nil {
		return nil, fmt.Errorf("reading what install %s did before its reboot: %w", id, err)
	}
	p := &proto.Progress{Events: []proto.Event{}}
	for _, e := range events {
		if e.Source == proto.SourceAgent && e.Attempt == attempt && e.Boot != boot && slices.Contains(progressKinds, e.Kind) {
			e.Message, e.Tail = "", nil
			p.Events = append(p.Events, e)
		}
	}
	err = r.st.View(func(s *store.Reader) error { p.Run = s.Get(store.Plans, runKey(id)); return nil })
	if err != nil {
		return nil, fmt.Errorf("reading what the steps of install %s keep: %w", id, err)
	}
	return p, nil
}

var progressKinds = []proto.Kind{proto.KindStepStart, proto.KindStepEnd, proto.KindOrder, proto.KindReboot}
