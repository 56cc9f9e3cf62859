// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"slices"
	"strings"

	"provost/collector/internal/boot"
	"provost/proto"
)

// sentCallback and sentFailure mark in installRecord.Sent what callbacks said of a stage: a stage has no colon.
const (
	sentCallback = "callback:"
	sentFailure  = "failure:"
)

// maxCallbacks bounds what one attempt may say by callbacks: the stages that ship are 30.
const maxCallbacks = 64

// behindSeal are the stages after which an installer must not be booted again.
var behindSeal = []string{"sealed", "rebooting", "disk-booted", "firstboot-started", "firstboot-done", "booted"}

// Callback implements boot.Decider: the word of a system without an agent.
//
// Its ticket stands in boot scripts and answer files, which anybody who guesses a MAC can fetch. So it advances stages, and
// makes the node booted or failed only if the profile trusts callbacks. The end of the installer makes the boot action disk
// whoever says so, as the other way round a node would wipe its disk again: the worst that a forger gets is a node that is
// not installed, and a stage that is overdue says that.
func (r *Registry) Callback(ctx context.Context, q boot.Request, cb boot.Callback) error {
	if err := proto.CheckName("stage", cb.Stage); err != nil {
		return badRequest(err)
	}
	gone := problem(404, proto.CodeNotFound, "", "there is no such install, or it is over")
	id, attempt, ok := r.openTicket(cb.Ticket)
	if !ok || id != cb.Install {
		return gone
	}
	r.pub.RLock()
	in := r.pub.installs[id]
	var n *node
	if in != nil {
		n = r.pub.nodes[in.rec.Load().Node]
	}
	r.pub.RUnlock()
	if n == nil {
		return gone
	}
	if err := r.comesFrom(n, q, "callbacks"); err != nil {
		return err
	}
	said := sentCallback + cb.Stage
	if cb.Failed {
		said = sentFailure + cb.Stage
	}
	known := func(rec *installRecord) (bool, error) {
		switch {
		case rec == nil || rec.Superseded:
			return false, gone
		case rec.Attempt != attempt:
			return false, problem(409, proto.CodeConflict, "", "this callback is of attempt %d: it is over", attempt)
		case slices.Contains(rec.Sent, said):
			return true, nil
		case over(in.look()):
			return false, gone
		case len(rec.Sent) >= maxCallbacks:
			return false, problem(429, proto.CodeTooMany, "", "this attempt has said too much by callbacks already")
		}
		return false, nil
	}
	if done, err := known(in.rec.Load()); done || err != nil {
		return err
	}
	return r.update(ctx, func(c *change) error {
		rec := c.record(id)
		if done, err := known(rec); done || err != nil {
			return err
		}
		return c.called(rec.clone(), in.recipe, cb, said)
	})
}

// called writes what a callback said, and what follows from it.
func (c *change) called(rec *installRecord, recipe *Recipe, cb boot.Callback, said string) error {
	rec.Sent = append(rec.Sent, said)
	rec.Progressed = true
	e := proto.Event{Kind: proto.KindStage, Source: proto.SourceCallback, Install: rec.ID, Node: rec.Node, Attempt: rec.Attempt, Stage: cb.Stage,
		Failed: cb.Failed, Message: proto.Clip(strings.ToValidUTF8(cb.Message, "\ufffd"), proto.MaxMessage)}
	if cb.Failed && !slices.Contains(recipe.Trust, proto.SourceCallback) {
		e.Kind, e.Stage, e.Failed, e.Warning = proto.KindNote, "", false, true
		e.Message = proto.Clip("a callback says that "+cb.Stage+" failed: "+e.Message, proto.MaxMessage)
	}
	err := errors.Join(c.append(e), c.putInstall(rec))
	n := c.node(rec.Node)
	if err != nil || n == nil || cb.Failed || n.Install != rec.ID || !slices.Contains(behindSeal, cb.Stage) {
		return err
	}
	if n.BootAction == proto.BootInstall || n.BootAction == proto.BootBlock {
		return c.setBoot(n, proto.BootDisk, proto.SourceBoot, "bootaction-disk", "", "a callback says that the installer is done")
	}
	return nil
}
