// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
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
// firmware, its boot loader and a machine with two cards may all ask for the same one, and a boot loader that could not load
// all of it asks again and says so. When the attempts that the profile allows are used up, the node is blocked and the
// install has failed: a node never installs itself for ever. Only if the last of them may have come to its end unheard,
// there is one more boot, in which the agent looks at the disk and nothing is installed.
func (r *Registry) Boot(ctx context.Context, q boot.Request) (boot.Decision, error) {
	r.pub.RLock()
	n := r.pub.nodes[r.pub.macs[q.MAC]]
	r.pub.RUnlock()
	if n == nil || n.Discovered {
		return r.unknown(ctx, q, n)
	}
	action := n.BootAction
	err := r.recognise(ctx, q, n)
	switch {
	case err != nil:
	case q.Method == http.MethodHead:
	case action == proto.BootInstall:
		err = r.update(ctx, func(c *change) (err error) {
			n, err = c.askedForScript(c.r.m.macs[q.MAC], q)
			return err
		})
	case action == proto.BootNetboot:
		n, err = r.netboot(ctx, n, q)
	}
	if err != nil {
		return boot.Decision{Action: action}, err
	}
	return r.decision(n, q)
}

// maxAgain bounds how often a boot loader that could not load an attempt's files may ask for its script again, for the same
// attempt: each 30 s, this is an hour. Then it is another boot.
const maxAgain = 120

// loadsAgain reports whether a script is asked for by the boot loader of the current attempt, which says so. Once an agent has
// said hello, the machine was through its firmware since.
func (rec *installRecord) loadsAgain(attempt int) bool {
	return attempt > 0 && attempt == rec.Attempt && rec.Bound[attempt] == ""
}

// askedForScript counts a fetch of a boot script and gives the node as it is then.
func (c *change) askedForScript(name string, q boot.Request) (*node, error) {
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
		return n, c.scriptSent(rec, q.MAC)
	}
	switch {
	case rec.Attempt > 0 && !rec.Progressed:
		return n, c.scriptSent(rec, q.MAC)
	case rec.loadsAgain(q.Again) && rec.Again < maxAgain:
		rec = rec.clone()
		rec.Again, rec.MAC = rec.Again+1, q.MAC
		return n, c.putInstall(rec)
	}
	e := proto.Event{Source: proto.SourceBoot, Stage: stageScript}
	rec = rec.clone()
	if rec.Attempt >= rec.Allowed {
		if !c.mayBeSealed(rec) {
			count := rec.Attempt
			if rec.looking() {
				count--
			}
			return c.loop(n, rec, count, "the node asked for another boot script after "+attempts(count)+" without an end")
		}
		rec.Look = rec.Attempt + 1
		e.Message = "the attempt before may have come to its end unheard: this boot looks at the disk, and installs nothing"
	}
	if err := c.attempt(rec, e, true); err != nil {
		return nil, err
	}
	return n, c.scriptSent(rec, q.MAC)
}

// scriptSent notes that a card was sent the current attempt's script. The attempt's own event says so. A firmware that asks by
// one card after the other boots by the last of them.
func (c *change) scriptSent(old *installRecord, mac string) error {
	if old.MAC == mac && slices.Contains(old.Sent, stageScript) {
		return nil
	}
	rec := old.clone()
	rec.MAC = mac
	if !slices.Contains(rec.Sent, stageScript) {
		rec.Sent = append(rec.Sent, stageScript)
	}
	return c.putInstall(rec)
}

// card is the address of the card that the current attempt boots by: the first of the node's, as long as no other one of them
// has asked for its script.
func (rec *installRecord) card(n proto.NodeSpec) string {
	if slices.Contains(n.MACs, rec.MAC) {
		return rec.MAC
	}
	return n.MACs[0]
}

// looking reports whether the current attempt installs nothing: its agent looks whether the disk has the install, sealed.
func (rec *installRecord) looking() bool { return rec.Look > 0 && rec.Look == rec.Attempt }

// looked reports whether an agent says that it has looked, and that there is nothing.
func looked(e *proto.Event) bool { return e.Kind == proto.KindRunEnd && e.Cause == proto.CauseLoop }

// mayBeSealed reports whether the current attempt, of which no seal was heard, may have one all the same, and there is an
// agent in the installer's initrd that can look. An agent waits as long as SealWait for the word that its seal was heard: one
// that was silent for a shorter time, and had not said that the postscripts are done, has sealed nothing.
func (c *change) mayBeSealed(rec *installRecord) bool {
	in := c.install(rec.ID)
	linux := in.recipe.Loader == "" || in.recipe.Loader == profile.LoaderLinux
	if rec.Bound[rec.Attempt] == "" || rec.looking() || !linux || !slices.ContainsFunc(in.recipe.Initrds, func(name string) bool { return strings.Contains(name, "overlay") }) {
		return false
	}
	v := in.look()
	if v.Sealed || v.Cause != nil && !v.Cause.Kind.Inferred() {
		return false
	}
	seq := in.recipe.Sequence
	if done := seq.Index("post-done"); done >= 0 && seq.Index(v.Stage) >= done {
		return true
	}
	heard, _ := rec.epoch(rec.Bound[rec.Attempt]) // its kernel started: it may not have said more than hello
	return c.now.Sub(later(later(heard, v.LastSeen), in.heard())) >= cmp.Or(in.recipe.SealWait.D(), proto.DefaultSealWait)
}

func attempts(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
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
		recipe := in.recipe
		if d.Look = rec.looking(); d.Look {
			recipe = recipe.bare()
		}
		var err error
		d.Args, err = r.kernelArgs(recipe, n.Spec, rec.ID, d.Attempt, q, d.Ticket)
		if err != nil {
			return d, problem(422, proto.CodeBadProfile, "mend the profile or the node's attributes, then order the install again", "%v", err)
		}
		if d.Look {
			d.Args = attended(d.Args)
		}
		d.Kernel, d.Initrds = recipe.Kernel, recipe.Initrds
		recipe.loads(&d)
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
	if rec := in.rec.Load(); rec.Attempt != attempt || slices.Contains(rec.Sent, stage) && !rec.missed(file) {
		return
	}
	err := r.update(ctx, func(c *change) error {
		rec := c.record(id)
		if rec == nil || rec.Attempt != attempt {
			return nil
		}
		if rec.missed(file) {
			rec = rec.clone()
			rec.Sent = append(rec.Sent, sentMended+file)
			e := proto.Event{Kind: proto.KindNote, Source: proto.SourceBoot, Install: id, Node: rec.Node, Attempt: attempt, Topic: file, Message: file + " was sent now"}
			if err := errors.Join(c.append(e), c.putInstall(rec)); err != nil {
				return err
			}
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

// Unsent implements boot.Decider: a file that an attempt asked for and did not get stands in its timeline, once. It is a warning
// if the machine cannot boot without it, until it is sent; installers ask for much that need not be there.
func (r *Registry) Unsent(ctx context.Context, ticket, file, why string) {
	id, attempt, ok := r.openTicket(ticket)
	if !ok {
		return
	}
	r.pub.RLock()
	in := r.pub.installs[id]
	r.pub.RUnlock()
	if in == nil {
		return
	}
	file = proto.Clip(strings.ToValidUTF8(file, "?"), 256)
	mark := sentMissing + file
	known := func(rec *installRecord) bool {
		if rec == nil || rec.Superseded || rec.Attempt != attempt || slices.Contains(rec.Sent, mark) {
			return true
		}
		n := 0
		for _, s := range rec.Sent {
			if strings.HasPrefix(s, sentMissing) {
				n++
			}
		}
		return n >= maxMissing
	}
	if known(in.rec.Load()) {
		return
	}
	err := r.update(ctx, func(c *change) error {
		rec := c.record(id)
		if known(rec) {
			return nil
		}
		rec = rec.clone()
		rec.Sent = append(rec.Sent, mark)
		e := proto.Event{Kind: proto.KindNote, Source: proto.SourceBoot, Install: id, Node: rec.Node, Attempt: attempt, Message: file + " was asked for and not sent: " + why}
		if file == in.recipe.Kernel || slices.Contains(in.recipe.Initrds, file) {
			e.Warning, e.Topic = true, file
		}
		return errors.Join(c.append(e), c.putInstall(rec))
	})
	if err != nil {
		r.opt.Log.Warn("noting that a boot file was not sent", "install", id, "file", file, "error", err)
	}
}

// missed reports whether a file was not sent when it was asked for, and has not been since.
func (rec *installRecord) missed(file string) bool {
	return slices.Contains(rec.Sent, sentMissing+file) && !slices.Contains(rec.Sent, sentMended+file)
}

// Marks of files in installRecord.Sent: a stage has no colon.
const (
	sentInitrd  = "initrd:"
	sentMissing = "missing:"
	sentMended  = "mended:"
)

// maxMissing bounds the files of an attempt of which it is told that they were not sent.
const maxMissing = 16

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
