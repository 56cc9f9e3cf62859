// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"provost/collector/internal/boot"
	"provost/collector/internal/lifecycle"
	"provost/collector/internal/profile"
	"provost/proto"
)

// Stages that the boot server itself sees.
const (
	stageScript = "bootscript-sent"
	stageKernel = "kernel-sent"
	stageInitrd = "initrd-sent" // of the last one that we serve
	stageImage  = "image-sent"  // anything else below images/
)

// Boot implements boot.Decider: what the machine with this MAC boots.
//
// An attempt begins with a boot script that is fetched after the attempt before it fetched its kernel or said hello: a
// firmware, its boot loader and a machine with two cards may all ask for the same one. When the attempts that the
// profile allows are used up, the node is blocked and the install has failed: a node never installs itself for ever.
func (r *Registry) Boot(ctx context.Context, q boot.Request) (boot.Decision, error) {
	r.pub.RLock()
	n := r.pub.nodes[r.pub.macs[q.MAC]]
	r.pub.RUnlock()
	if n == nil || n.Discovered {
		return r.unknown(ctx, q, n)
	}
	err := r.recognise(ctx, q, n)
	switch {
	case err != nil:
	case q.Method == http.MethodHead:
	case n.BootAction == proto.BootInstall:
		err = r.update(ctx, func(c *change) (err error) {
			n, err = c.askedForScript(c.r.m.macs[q.MAC])
			return err
		})
	case n.BootAction == proto.BootNetboot:
		n, err = r.netboot(ctx, n)
	}
	if err != nil {
		return boot.Decision{}, err
	}
	return r.decision(n, q)
}

// askedForScript counts a fetch of a boot script and gives the node as it is then.
func (c *change) askedForScript(name string) (*node, error) {
	n := c.node(name)
	if n == nil {
		return nil, unknownNode(name)
	}
	rec := c.record(n.Install)
	if n.BootAction != proto.BootInstall || rec == nil {
		return n, nil
	}
	if rec.Rebooting {
		rec = rec.clone()
		rec.Rebooting, rec.Progressed, rec.Sent = false, false, nil
		return n, c.sent(rec, stageScript)
	}
	switch {
	case rec.Attempt > 0 && !rec.Progressed:
		return n, c.sent(rec, stageScript)
	case rec.Attempt < rec.Allowed:
		rec = rec.clone()
		if err := c.attempt(rec, proto.Event{Source: proto.SourceBoot, Stage: stageScript}, true); err != nil {
			return nil, err
		}
		return n, c.sent(rec, stageScript)
	}
	return c.loop(n, rec, rec.Attempt, fmt.Sprintf("the node asked for another boot script after %d attempts without an end", rec.Attempt))
}

// loop ends the install of a node that begins again and again, and blocks it.
func (c *change) loop(n *node, rec *installRecord, count int, why string) (*node, error) {
	looped := rec.clone()
	looped.Looped = true
	err := c.append(proto.Event{Kind: proto.KindLoop, Source: proto.SourceBoot, Install: rec.ID, Node: rec.Node, Attempt: count, Message: why})
	err = errors.Join(err, c.putInstall(looped), c.setBoot(n, proto.BootBlock, proto.SourceBoot, "", "", "the attempts are used up"))
	return c.node(rec.Node), err
}

// sent notes a stage of the current attempt, once.
func (c *change) sent(old *installRecord, stage string) error {
	if slices.Contains(old.Sent, stage) {
		return nil
	}
	rec := old.clone()
	rec.Sent = append(rec.Sent, stage)
	if stage == stageScript { // the attempt's own event says so
		return c.putInstall(rec)
	}
	rec.Progressed = rec.Progressed || stage == stageKernel
	err := c.append(proto.Event{Kind: proto.KindStage, Source: proto.SourceBoot, Install: rec.ID, Node: rec.Node, Stage: stage, Attempt: rec.Attempt})
	return errors.Join(err, c.putInstall(rec))
}

// decision says it in the boot server's words.
func (r *Registry) decision(n *node, q boot.Request) (boot.Decision, error) {
	d := boot.Decision{Action: n.BootAction, Node: n.Spec.Name, LocalBoot: profile.LocalExit}
	r.pub.RLock()
	in := r.pub.installs[n.Install]
	r.pub.RUnlock()
	if n.BootAction == proto.BootRescue {
		return r.rescue(d, n, in, q)
	}
	if in == nil {
		return d, nil
	}
	rec := in.rec.Load()
	d.Install, d.Attempt = rec.ID, rec.Attempt
	if in.recipe.LocalBoot != "" {
		d.LocalBoot = in.recipe.LocalBoot
	}
	switch n.BootAction {
	case proto.BootInstall, proto.BootNetboot:
		d.Attempt = max(rec.Attempt, 1) // of a HEAD before any attempt
		d.Ticket, d.Claim = r.ticket(rec.ID, d.Attempt), r.claim(rec.ID, d.Attempt)
		var err error
		d.Args, err = r.kernelArgs(in.recipe, n.Spec, rec.ID, d.Attempt, q, d.Ticket, q.MAC)
		if err != nil {
			return d, problem(422, proto.CodeBadProfile, "mend the profile or the node's attributes, then order the install again", "%v", err)
		}
		d.Kernel, d.Initrds = in.recipe.Kernel, in.recipe.Initrds
		in.recipe.loads(&d)
		d.Pin, d.URLs = r.opt.Pin(), r.opt.URLs
	case proto.BootBlock:
		d.Reason, d.Hint = blockText(n.Spec.Name, in.look())
	}
	return d, nil
}

// loads says how a decision's kernel is loaded.
func (rc *Recipe) loads(d *boot.Decision) {
	d.Loader = rc.Loader
	if rc.Answer != nil {
		d.Injected = rc.Answer.Injected()
	}
}

func blockText(name string, v *lifecycle.View) (reason, hint []string) {
	reason = []string{name + ": " + v.Summary}
	if v.Cause != nil && v.Cause.Message != "" {
		reason = append(reason, proto.Clip(v.Cause.Message, 256))
	}
	return reason, []string{
		"provost explain " + name + " (why, with the log)",
		"provost install " + name + " (install it again)",
		"provost boot " + name + " install (one more attempt of this install)",
		"provost boot " + name + " disk (boot what is on the disk)",
	}
}

// Sent implements boot.Decider: a file of an attempt was fetched.
func (r *Registry) Sent(ctx context.Context, ticket, file string, complete bool) {
	id, attempt, ok := r.openTicket(ticket)
	if !ok || !complete {
		return
	}
	r.pub.RLock()
	in := r.pub.installs[id]
	r.pub.RUnlock()
	if in == nil {
		return
	}
	stage := in.recipe.sentStage(file)
	if rec := in.rec.Load(); rec.Attempt != attempt || slices.Contains(rec.Sent, stage) {
		return
	}
	err := r.update(ctx, func(c *change) error {
		rec := c.record(id)
		if rec == nil || rec.Attempt != attempt {
			return nil
		}
		if stage == stageInitrd {
			if rec = rec.withInitrd(file); !in.recipe.allInitrds(rec.Sent) {
				return c.putInstall(rec)
			}
		}
		return c.sent(rec, stage)
	})
	if err != nil {
		r.opt.Log.Warn("noting that a boot file was fetched", "install", id, "file", file, "error", err)
	}
}

// sentInitrd marks an initrd in installRecord.Sent: a stage has no colon.
const sentInitrd = "initrd:"

func (rec *installRecord) withInitrd(file string) *installRecord {
	if slices.Contains(rec.Sent, sentInitrd+file) {
		return rec
	}
	rec = rec.clone()
	rec.Sent = append(rec.Sent, sentInitrd+file)
	return rec
}

// allInitrds reports whether every initrd that we serve was sent; others are fetched elsewhere and never seen here.
func (rc *Recipe) allInitrds(sent []string) bool {
	return !slices.ContainsFunc(rc.Initrds, func(name string) bool {
		return !strings.Contains(name, "://") && !slices.Contains(sent, sentInitrd+name)
	})
}
