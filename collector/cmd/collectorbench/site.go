// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"provost/collector/internal/auth"
	"provost/collector/internal/lifecycle"
	"provost/collector/internal/registry"
	"provost/collector/internal/store"
	"provost/proto"
)

// joinKey lets the agents of a site in.
const joinKey = "pvj_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// steps is how many an install of the site has, each with a script of its own.
const steps = 23

// site is a collector's inside without its listeners: the real store, registry and CA, one profile.
type site struct {
	*registry.Registry
	store *store.Store
	logs  *store.Logs
	ca    *auth.CA
}

// openSite opens a site below dir, as provostd lays it out. version is what it says to be.
func openSite(ctx context.Context, dir, version string) (*site, error) {
	s := &site{}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	err := os.MkdirAll(dir, 0o750)
	if err == nil {
		s.ca, err = auth.OpenCA(filepath.Join(dir, "ca"))
	}
	if err == nil {
		s.store, err = store.Open(filepath.Join(dir, "provost.db"), store.Options{Log: log})
	}
	if err == nil {
		s.logs, err = store.OpenLogs(filepath.Join(dir, "logs"))
	}
	if err == nil {
		s.Registry, err = registry.Open(ctx, registry.Options{Store: s.store, Logs: s.logs, Profiles: compute{}, Signer: s.ca, JoinKey: joinKey,
			Pin: s.ca.Pin, Log: log, Version: version, Retention: registry.Retention{Events: math.MaxInt / 4, Bytes: math.MaxInt64 / 4}})
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) close() error {
	var errs []error
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.logs != nil {
		errs = append(errs, s.logs.Close())
	}
	return errors.Join(errs...)
}

// name and mac are those of a node by its number.
func name(i int) string { return fmt.Sprintf("n%06d", i+1) }

func mac(i int) string {
	return fmt.Sprintf("02:50:57:%02x:%02x:%02x", i>>16&0xff, i>>8&0xff, i&0xff)
}

// bootID is the b-th kernel boot of a node.
func bootID(i, b int) string { return fmt.Sprintf("%08x-0000-4000-8000-%012x", b, i) }

// journalID is the b-th journal of a node.
func journalID(i, b int) string { return fmt.Sprintf("%08x%08x", b, i) }

// order makes nodes and an install of each.
func (s *site) order(ctx context.Context, from, to int) error {
	var names []string
	ctx = registry.By(ctx, registry.Caller{})
	for i := from; i < to; i++ {
		names = append(names, name(i))
		spec := proto.NodeSpec{Name: name(i), MACs: []string{mac(i)}, Profile: "compute", Groups: []string{fmt.Sprintf("rack%d", i/64)}}
		if _, err := s.AddNode(ctx, spec); err != nil {
			return err
		}
	}
	return s.Order(ctx, names, proto.InstallOrder{Label: "nightly", Reason: "measuring"}, "bench")
}

// hello lets the agent of a node's b-th boot in.
func (s *site) hello(ctx context.Context, i, b int, token string) (*proto.HelloAnswer, error) {
	h := &proto.Hello{Schema: proto.Schema, Version: "bench", Env: proto.EnvInstaller, Clock: clockOf(i, b), MACs: []string{mac(i)}, JoinKey: joinKey, Journal: journalID(i, b)}
	if b > 1 {
		h.Env = proto.EnvInstalled
	}
	install := ""
	if token != "" {
		var err error
		if install, err = s.Agent(token); err != nil {
			return nil, err
		}
	}
	return s.Hello(ctx, install, h)
}

func clockOf(i, b int) proto.Clock {
	return proto.Clock{Boot: bootID(i, b), OffsetMS: 60_000, Time: time.Now()}
}

// compute is the site's only profile.
type compute struct{}

// Has implements registry.Profiles.
func (compute) Has(profile string) bool { return profile == "compute" }

// Prepare implements registry.Profiles.
func (compute) Prepare(profile string, _ proto.NodeSpec) (*registry.Prepared, error) {
	minutes := func(n int) proto.Duration { return proto.Duration(time.Duration(n) * time.Minute) }
	var q lifecycle.Sequence
	q.Family = "generic"
	for _, stage := range proto.Stages {
		q.Stages = append(q.Stages, lifecycle.Stage{Name: stage, Within: minutes(30), Optional: true, HeartbeatExtends: true})
	}
	p := &registry.Prepared{Scripts: map[string][]byte{}, Recipe: registry.Recipe{Profile: profile, Kind: "disk", Family: "generic", Boot: "external", Attempts: 3,
		OnFailure: proto.OnFailureHold, HoldLimit: proto.Duration(proto.DefaultHoldLimit), SealWait: proto.Duration(proto.DefaultSealWait),
		Deadline: minutes(90), Trust: []proto.Source{proto.SourceAgent, proto.SourceBoot}, Sequence: q, LocalBoot: "exit"}}
	for i := range steps {
		b := fmt.Appendf(nil, "#!/bin/sh\necho step %d\n", i)
		phase := proto.PhasePost
		if i < 2 {
			phase = proto.PhasePre
		} else if i >= 20 {
			phase = proto.PhaseFirstboot
		}
		step := proto.Step{Name: fmt.Sprintf("step-%02d", i+1), Phase: phase, Digest: proto.Digest(b), Size: int64(len(b))}.WithDefaults()
		p.Steps = append(p.Steps, step)
		p.Scripts[step.Digest] = b
	}
	return p, nil
}

// Frozen implements registry.Profiles.
func (c compute) Frozen() registry.Profiles { return c }

// Names and Info are what the API asks of it.
func (compute) Names() []string { return []string{"compute"} }

// Info implements api.Profiles.
func (compute) Info(name string) (proto.ProfileInfo, bool) {
	return proto.ProfileInfo{Schema: proto.Schema, Name: name}, name == "compute"
}
