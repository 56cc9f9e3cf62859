// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"provost/collector/internal/answer"
	"provost/collector/internal/boot"
	"provost/collector/internal/profile"
	"provost/proto"
)

const stageAnswer = "answer-sent"

// Answer implements boot.Decider: one answer file of an attempt, made anew each time from what was kept when the install
// was ordered. It is to be had until the installer is done.
func (r *Registry) Answer(_ context.Context, q boot.Request, install, ticket, file string) ([]byte, error) {
	gone := problem(404, proto.CodeNotFound, "", "there is no such answer file, or its install is over")
	id, attempt, ok := r.openTicket(ticket)
	if !ok || id != install {
		return nil, gone
	}
	r.pub.RLock()
	in := r.pub.installs[id]
	var n *node
	if in != nil {
		n = r.pub.nodes[in.rec.Load().Node]
	}
	r.pub.RUnlock()
	if n == nil || in.recipe.Answer == nil {
		return nil, gone
	}
	if rec := in.rec.Load(); rec.Attempt != attempt || rec.looking() {
		return nil, gone
	}
	if err := r.comesFrom(n, q, "answer files"); err != nil {
		return nil, err
	}
	return r.answerFile(in, n, q, file)
}

// Loading implements boot.Decider: what an attempt boots, for the boot loader that it has loaded. It begins no attempt.
func (r *Registry) Loading(_ context.Context, q boot.Request, install, ticket string) (boot.Decision, error) {
	gone := problem(404, proto.CodeNotFound, "", "there is no such boot, or it is over")
	id, attempt, ok := r.openTicket(ticket)
	if !ok || id != install {
		return boot.Decision{}, gone
	}
	r.pub.RLock()
	in := r.pub.installs[id]
	var n *node
	if in != nil {
		n = r.pub.nodes[in.rec.Load().Node]
	}
	r.pub.RUnlock()
	if n == nil || n.Install != id || n.BootAction != proto.BootInstall || in.rec.Load().Attempt != attempt {
		return boot.Decision{}, gone
	}
	if err := r.comesFrom(n, q, "boot files"); err != nil {
		return boot.Decision{}, err
	}
	q.MAC = in.rec.Load().card(n.Spec)
	return r.decision(n, q)
}

// AnswerOf implements boot.Decider: to a machine of a site that boots its nodes by itself, while an install of it is
// ordered. Its word is not proven: it gets nothing from another address than its node has, where one is known.
func (r *Registry) AnswerOf(_ context.Context, q boot.Request, file string) ([]byte, string, error) {
	gone := problem(404, proto.CodeNotFound, "", "there is no such answer file, or its install is over")
	var n *node
	r.pub.RLock()
	for _, mac := range q.MACs {
		m := r.pub.nodes[r.pub.macs[mac]]
		if m != nil && n != nil && m != n {
			r.pub.RUnlock()
			return nil, "", problem(409, proto.CodeConflict, "", "the machine has cards of %s and of %s: it is not clear which one it is", n.Spec.Name, m.Spec.Name)
		}
		if m != nil {
			n = m
		}
	}
	r.pub.RUnlock()
	if n == nil && len(q.MACs) == 0 {
		n = r.owner(identityOf(q.Serial, ""), "")
	}
	if n == nil || n.Discovered {
		return nil, "", gone
	}
	r.pub.RLock()
	in := r.pub.installs[n.Install]
	r.pub.RUnlock()
	if in == nil || in.recipe.Boot != profile.BootExternal || in.recipe.Answer == nil || r.fromElsewhere(n, q.RemoteAddr) {
		return nil, "", gone
	}
	if i := slices.IndexFunc(n.Spec.MACs, func(mac string) bool { return slices.Contains(q.MACs, mac) }); i >= 0 {
		q.MAC = n.Spec.MACs[i] // the machine may not have the others
	}
	b, err := r.answerFile(in, n, q, file)
	return b, r.ticket(in.id, in.rec.Load().Attempt), err
}

// comesFrom refuses a request with a ticket from another address than its node is known to have: boot scripts are for everybody
// who knows a MAC, and what a ticket opens may hold secrets. what is asked for.
func (r *Registry) comesFrom(n *node, q boot.Request, what string) error {
	if !r.fromElsewhere(n, q.RemoteAddr) {
		return nil
	}
	return problem(403, proto.CodeForbidden, "if it has another address now: provost node set "+n.Spec.Name+" --ip …; behind NAT set check-address: false in provostd.yaml",
		"%s has the address %s: its %s are for that one", n.Spec.Name, n.Spec.IP, what)
}

// fromElsewhere reports whether a request comes from another address than its node is known to have.
func (r *Registry) fromElsewhere(n *node, remote string) bool {
	if r.opt.AnyAddress || n.Spec.IP == "" {
		return false
	}
	from, errFrom := netip.ParseAddrPort(remote)
	want, errWant := netip.ParseAddr(n.Spec.IP)
	return errFrom != nil || errWant != nil || from.Addr().Unmap() != want.Unmap()
}

// answerFile makes a file of an install that is under way. q.MAC is empty, or the card to install by if it is not the one that
// asked for the boot script.
func (r *Registry) answerFile(in *install, n *node, q boot.Request, file string) ([]byte, error) {
	gone := problem(404, proto.CodeNotFound, "", "there is no such answer file, or its install is over")
	rec := in.rec.Load()
	if v := in.look(); rec.Superseded || rec.Erased || v.Sealed || over(v) {
		return nil, gone
	}
	spec, err := r.specOf(in, n)
	if err != nil {
		return nil, err
	}
	urls := r.opt.URLs
	if len(urls) == 0 {
		urls = []string{q.AgentURL()}
	}
	q.MAC = cmp.Or(q.MAC, rec.card(spec))
	files, err := in.recipe.Answer.Render(answerData(spec, in.id, q, r.ticket(in.id, rec.Attempt), urls, r.opt.Pin()))
	if err != nil {
		return nil, problem(422, proto.CodeBadProfile, "mend the profile, its template or the node's attributes, then order the install again",
			"answer file of %s: %v", spec.Name, err)
	}
	b, ok := files[file]
	if !ok {
		return nil, gone
	}
	return b, nil
}

// specOf is a node as an install of it was ordered: what can be said of it may have changed since then.
func (r *Registry) specOf(in *install, n *node) (proto.NodeSpec, error) {
	plan, err := r.plan(in)
	if err != nil || plan == nil { // erased: the node as it is now
		return n.Spec, err
	}
	spec := n.Spec
	spec.Attrs, spec.Groups = plan.Attrs, plan.Groups
	return spec, nil
}

// answerData is what a template is told; q.MAC is the card to install by.
func answerData(n proto.NodeSpec, install string, q boot.Request, ticket string, urls []string, pin string) answer.Data {
	return answer.Data{Node: answer.Node{Name: n.Name, MAC: q.MAC, IP: n.IP, Serial: n.Serial, Groups: n.Groups, Attrs: n.Attrs}, Install: install,
		Images: q.Images(), Callback: q.Callbacks(install, ticket), URLs: urls, Pin: pin}
}

// Render gives what a node's installer gets, for eyes: of the install that is under way, or else what an order would give
// now. host is the boot server's HOST:PORT and urls are the collector's, as the node reaches them.
func (r *Registry) Render(name, host string, urls []string) (*proto.RenderedNode, error) {
	r.pub.RLock()
	n := r.pub.nodes[name]
	var in *install
	if n != nil {
		in = r.pub.installs[n.Install]
	}
	r.pub.RUnlock()
	if n == nil || n.Discovered {
		return nil, unknownNode(name)
	}
	const none = "00000000000000000000000000" // an install that is not ordered yet
	id, attempt, spec, mac := none, 1, n.Spec, n.Spec.MACs[0]
	var recipe *Recipe
	out := &proto.RenderedNode{Schema: proto.Schema, Node: name, Files: []proto.RenderedFile{}}
	if in != nil {
		if v := in.look(); !v.Sealed && !over(v) && !in.rec.Load().Erased {
			var err error
			if spec, err = r.specOf(in, n); err != nil {
				return nil, err
			}
			rec := in.rec.Load()
			recipe, id, attempt, mac = in.recipe, in.id, max(rec.Attempt, 1), rec.card(spec)
			out.Install = id
		}
	}
	if recipe == nil {
		if n.Spec.Profile == "" {
			return nil, problem(422, proto.CodeBadProfile, "provost node set "+name+" --profile P", "node %s has no profile", name)
		}
		if err := r.checkProfile(n.Spec.Profile); err != nil {
			return nil, err
		}
		p, err := r.opt.Profiles.Prepare(n.Spec.Profile, n.Spec)
		if err != nil {
			return nil, err
		}
		recipe = &p.Recipe
	}
	out.Profile = recipe.Profile
	bad := func(err error) error {
		return problem(422, proto.CodeBadProfile, "mend the profile, its template or the node's attributes", "%v", err)
	}
	q := boot.Request{Host: host, MAC: mac}
	args, err := r.kernelArgs(recipe, n.Spec, id, attempt, q, "********")
	if err != nil {
		return nil, bad(err)
	}
	out.Args = args
	if recipe.Kernel != "" {
		d := boot.Decision{Action: proto.BootInstall, Node: name, Install: id, Attempt: attempt, Kernel: recipe.Kernel, Initrds: recipe.Initrds, Args: args,
			Ticket: "masked", Claim: "masked", Pin: r.opt.Pin(), URLs: urls}
		recipe.loads(&d)
		if recipe.diskless() {
			d.Action = proto.BootNetboot
		}
		scripts := boot.Render(d, q, 0)
		for _, file := range slices.Sorted(maps.Keys(scripts)) {
			out.Scripts = append(out.Scripts, proto.RenderedFile{Name: file, Text: scripts[file]})
		}
	}
	if recipe.Answer == nil {
		return out, nil
	}
	files, err := recipe.Answer.RenderMasked(answerData(spec, id, q, "********", urls, r.opt.Pin()))
	if err != nil {
		return nil, bad(fmt.Errorf("answer file of %s: %w", name, err))
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		out.Files = append(out.Files, proto.RenderedFile{Name: file, Text: string(files[file])})
	}
	return out, nil
}

// kernelArgs makes the profile's arguments from what was kept of it.
func (r *Registry) kernelArgs(recipe *Recipe, spec proto.NodeSpec, install string, attempt int, q boot.Request, ticket string) (string, error) {
	p, err := profile.Recall(recipe.Profile, recipe.Args, recipe.Vars)
	if err != nil {
		return "", fmt.Errorf("reading the kernel arguments of install %s: %w", install, err)
	}
	d := profile.ArgData{Images: q.TicketImages(ticket), Node: spec.Name, Install: install, Attempt: attempt, MAC: q.MAC, Groups: spec.Groups, Attrs: spec.Attrs}
	if recipe.Answer != nil {
		file, err := recipe.Answer.File()
		if err != nil {
			return "", err
		}
		d.Answer = q.Answer(install, ticket, file)
	}
	return p.KernelArgs(d)
}

// sentStage is the stage that the fetch of a file stands for.
func (rc *Recipe) sentStage(file string) string {
	switch {
	case file == rc.Kernel:
		return stageKernel
	case strings.HasPrefix(file, boot.AnswerPrefix):
		return stageAnswer
	case slices.Contains(rc.Initrds, file):
		return stageInitrd
	}
	return stageImage
}
