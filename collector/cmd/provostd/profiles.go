// SPDX-License-Identifier: Apache-2.0

package main

import (
	"provost/collector/internal/profile"
	"provost/collector/internal/registry"
	"provost/proto"
)

// profiles shows a set of profiles to the registry and the API.
type profiles struct{ set *profile.Set }

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
	steps, scripts, err := f.Snapshot(p.set.Scripts())
	if err != nil {
		return nil, bad(err)
	}
	// Arguments that cannot be made are better found now than by a node that waits for its boot script.
	_, err = f.KernelArgs(profile.ArgData{Images: "http://provostd/images", Node: n.Name, Install: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Attempt: 1,
		MAC: n.MACs[0], Groups: n.Groups, Attrs: n.Attrs})
	if err != nil {
		return nil, bad(err)
	}
	return &registry.Prepared{Steps: steps, Scripts: scripts, Recipe: registry.Recipe{
		Profile: f.Name, Kind: f.Kind, Family: f.Family, Boot: f.Boot, Attempts: f.Attempts, OnFailure: f.OnFailure, HoldLimit: f.HoldLimit,
		SealWait: f.SealWait, Deadline: f.Deadline, Trust: f.Trust, Sequence: p.set.Sequence(f.Family), Kernel: f.Kernel, Initrds: f.Initrds,
		LocalBoot: f.LocalBoot, Args: f.Args, Vars: f.Vars,
	}}, nil
}
