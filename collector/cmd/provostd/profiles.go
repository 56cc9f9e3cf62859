// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"provost/collector/internal/answer"
	"provost/collector/internal/profile"
	"provost/collector/internal/registry"
	"provost/collector/internal/sequence"
	"provost/proto"
)

// profiles shows a set of profiles to the registry and the API.
type profiles struct {
	set  *profile.Set
	logs func() []string // the sorts of the frontend's logs that are read now, as sequence.Visible knows them; nil: none

	frozen *snapshots // nil: each script is read when it is asked for
}

// snapshots are what was read of profiles, by name.
type snapshots struct {
	mu     sync.Mutex
	byName map[string]snapshot
}

// snapshot is a profile's steps and their scripts.
type snapshot struct {
	steps   []proto.Step
	scripts map[string][]byte
}

// Frozen implements registry.Profiles.
func (p profiles) Frozen() registry.Profiles {
	p.frozen = &snapshots{byName: map[string]snapshot{}}
	return p
}

func (p profiles) snapshot(f *profile.Profile) (snapshot, error) {
	read := func() (snapshot, error) {
		steps, scripts, err := f.Snapshot(p.set.Scripts())
		return snapshot{steps, scripts}, err
	}
	if p.frozen == nil {
		return read()
	}
	p.frozen.mu.Lock()
	defer p.frozen.mu.Unlock()
	s, ok := p.frozen.byName[f.Name]
	if ok {
		return s, nil
	}
	s, err := read()
	if err == nil {
		p.frozen.byName[f.Name] = s
	}
	return s, err
}

// sequence is a profile's, of which only those stages are awaited that somebody here could report.
func (p profiles) sequence(f *profile.Profile) sequence.Sequence {
	sources := []string{"agent", "operator"}
	if f.Boot == profile.BootProvost {
		sources = append(sources, "boot")
	}
	if p.logs != nil {
		sources = append(sources, p.logs()...)
	}
	if slices.ContainsFunc(f.Trust, func(s proto.Source) bool { return strings.HasPrefix(string(s), "compat:") }) {
		sources = append(sources, "compat")
	}
	return p.set.SequenceOf(f).Visible(sources...)
}

func (p profiles) Names() []string { return p.set.Names() }

func (p profiles) Has(name string) bool {
	_, ok := p.set.Profile(name)
	return ok
}

func (p profiles) Info(name string) (proto.ProfileInfo, bool) {
	f, ok := p.set.Profile(name)
	if !ok {
		return proto.ProfileInfo{}, false
	}
	return f.Info(), true
}

// Prepare implements registry.Profiles.
func (p profiles) Prepare(name string, n proto.NodeSpec) (*registry.Prepared, error) {
	bad := func(err error) error {
		return proto.NewProblem(422, proto.CodeBadProfile, err.Error(), "mend profile "+name+" or what it names, then give the order again")
	}
	f, ok := p.set.Profile(name)
	if !ok {
		return nil, proto.NewProblem(404, proto.CodeUnknownProfile, "there is no profile "+name, "provost profile list shows every profile")
	}
	s, err := p.snapshot(f)
	if err != nil {
		return nil, bad(err)
	}
	recipe, err := p.set.Answer(f, n.Groups)
	if err != nil {
		return nil, bad(err)
	}
	vars := p.set.ArgVars(f, n.Groups)
	if err := tryOut(f, vars, recipe, n); err != nil {
		return nil, bad(err)
	}
	rescue, err := f.Rescue()
	if err != nil {
		return nil, bad(fmt.Errorf("profile %s: %w", f.Name, err))
	}
	return &registry.Prepared{Steps: s.steps, Scripts: s.scripts, Recipe: registry.Recipe{
		Profile: f.Name, Kind: f.Kind, Family: f.Family, Boot: f.Boot, Loader: f.Loader, Attempts: f.Attempts, OnFailure: f.OnFailure, HoldLimit: f.HoldLimit,
		SealWait: f.SealWait, Deadline: f.Deadline, Trust: f.Trust, Sequence: p.sequence(f), Kernel: f.Kernel, Initrds: f.Initrds,
		LocalBoot: f.LocalBoot, Args: f.Args, Vars: vars, Answer: recipe, RescueKeys: rescue,
	}}, nil
}

// tryOut makes the kernel arguments and answer files of a node: what cannot be made is better found now than by a node
// that waits for it.
func tryOut(f *profile.Profile, vars map[string]string, recipe *answer.Recipe, n proto.NodeSpec) error {
	const id, images = "01ARZ3NDEKTSV4RRFFQ69G5FAV", "http://provostd/images"
	d := profile.ArgData{Images: images, Node: n.Name, Install: id, Attempt: 1, MAC: n.MACs[0], Groups: n.Groups, Attrs: n.Attrs}
	if recipe != nil {
		d.Answer = "http://provostd/boot/answer/"
		_, err := recipe.Render(answer.Data{Node: answer.Node{Name: n.Name, MAC: n.MACs[0], IP: n.IP, Serial: n.Serial, Groups: n.Groups, Attrs: n.Attrs},
			Install: id, Images: images, Callback: "http://provostd/boot/callback", URLs: []string{"https://provostd:8440"}, Pin: "sha256:" + strings.Repeat("0", 64)})
		if err != nil {
			return fmt.Errorf("answer file of %s: %w", n.Name, err)
		}
	}
	with, err := profile.Recall(f.Name, f.Args, vars)
	if err == nil {
		_, err = with.KernelArgs(d)
	}
	return err
}
