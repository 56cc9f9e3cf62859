// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"time"

	"provost/collector/internal/evidence"
	"provost/collector/internal/profile"
	"provost/proto"
)

// On a site that boots its nodes by itself (boot: external) the loop guard observes: it counts the boots of the installer, by
// the hellos of agents and by what the frontend's logs say that firmware and boot loaders fetched. It cannot stop the node,
// and says so.

const (
	// againAfter is how long after a kernel was sent, or started, another fetch by the firmware is another boot. No machine is
	// through its firmware again sooner; machines that write logs differ by less, and a fetch is logged a little late.
	againAfter = 10 * time.Second
	// kernelAgain is how long after a kernel another one is another boot, and not a boot loader that tries again.
	kernelAgain = time.Minute
)

// stopIt is what an operator can do about a loop that Provost only sees.
const stopIt = "Provost cannot stop this node, because the site boots it: set its next boot to disk in your PXE configuration"

// anew is what a line of a log says of a new boot of the installer.
type anew int

const (
	sameBoot   anew = iota
	perhapsNew      // firmware or boot loader began again: it may be about to boot the disk
	newBoot         // the installer's kernel was sent again
)

// bootsAnew decides whether an observation, made at a moment, is of another boot of the installer than the current attempt's.
//
// A boot loader or a boot script alone is none, but for the first: most sites boot from the network always, and tell the boot
// loader to go to the disk. Behind the seal nothing is.
func (in *install) bootsAnew(rec *installRecord, o *evidence.Observation, at time.Time, said heard) anew {
	if in.recipe.Boot != profile.BootExternal || o.Problem != "" || !o.Loader || said.Sealed || said.answers(o) {
		return sameBoot
	}
	if rec.Attempt == 0 {
		return newBoot
	}
	var after time.Time
	switch started, ok := rec.epoch(rec.Bound[rec.Attempt]); {
	case ok: // it said hello
		after = started.Add(againAfter)
	case rec.Rebooting || said.Kernel.IsZero():
		return sameBoot
	case o.Stage == evidence.Kernel && said.Again.IsZero():
		after = said.Kernel.Add(kernelAgain)
	default:
		after = said.Kernel.Add(againAfter)
	}
	switch {
	case !at.After(after):
		return sameBoot
	case o.Stage == evidence.Kernel:
		return newBoot
	case said.Again.IsZero():
		return perhapsNew
	}
	return sameBoot
}

// hearLoader takes what a line of a log says of a boot: the next attempt, or that one may begin. rec is a copy.
func (c *change) hearLoader(in *install, rec *installRecord, o *noted, at time.Time, said *heard) error {
	source := proto.Source("log:" + o.Source)
	file := proto.Clip(o.Detail, 256)
	switch in.bootsAnew(rec, &o.Observation, at, *said) {
	case newBoot:
		if !said.Again.IsZero() && said.Again.Before(at) {
			at = said.Again // it began with the boot loader
		}
		err := c.observeAttempt(rec, proto.Event{Source: source, Time: o.Time, At: at}, fmt.Sprintf("the installer's kernel was sent again (%s)", file))
		if err != nil {
			return err
		}
		rec.Began = at // the line may be old
		*said = heard{Attempt: rec.Attempt, Open: said.Open, Mended: said.Mended}
	case perhapsNew:
		said.Again = at
		err := c.append(proto.Event{Kind: proto.KindNote, Source: source, Install: rec.ID, Node: rec.Node, Attempt: rec.Attempt, Time: o.Time, At: at, Warning: true,
			Message: fmt.Sprintf("%s was sent again, and the installer never said that it was done: if it is the installer that boots again, set the node's next boot to disk in your PXE configuration", file)})
		if err != nil {
			return err
		}
	}
	if o.Stage == evidence.Kernel && o.Problem == "" && said.Kernel.IsZero() {
		said.Kernel = at
	}
	return nil
}

// observeAttempt counts a boot of the installer that our boot server did not start; e says by whose word, and when it began.
// It cannot be prevented here: one too many is said to be a loop, and goes on.
func (c *change) observeAttempt(rec *installRecord, e proto.Event, what string) error {
	if rec.Attempt >= rec.Allowed && !rec.Looped {
		rec.Looped = true
		err := c.append(proto.Event{Kind: proto.KindLoop, Source: e.Source, Install: rec.ID, Node: rec.Node, Attempt: rec.Attempt,
			Message: fmt.Sprintf("%s after %s without an end; %s", what, attempts(rec.Attempt), stopIt)})
		if err != nil {
			return err
		}
	}
	if e.At.Before(rec.Ordered) {
		e.At = rec.Ordered
	}
	return c.attempt(rec, e, !rec.Looped)
}

// learnIdentity keeps what a machine says of itself, for logs that name it by that: no boot script of ours was asked for by it.
func (c *change) learnIdentity(id string, h *proto.Hello) error {
	rec := c.record(id)
	n, said := c.node(rec.Node), identityOf(h.Serial, h.UUID)
	if n == nil || n.Install != id || c.install(id).recipe.Boot != profile.BootExternal || said.empty() || n.Identity != (identity{}) {
		return nil
	}
	now := *n
	now.Identity = said
	return c.putNode(&now)
}
