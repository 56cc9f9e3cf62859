// SPDX-License-Identifier: Apache-2.0

// Package registrytest makes registries for tests: over a real store in a temporary directory, with a real CA, profiles
// that a test writes down, and a clock that it sets. It must not be linked into a program.
package registrytest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"provost/collector/internal/auth"
	"provost/collector/internal/boot"
	"provost/collector/internal/lifecycle"
	"provost/collector/internal/registry"
	"provost/collector/internal/store"
	"provost/proto"
)

// JoinKey is every site's.
const JoinKey = "pvj_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// Site is a registry with what it stands on.
type Site struct {
	*registry.Registry
	T        testing.TB
	Dir      string
	Store    *store.Store
	Logs     *store.Logs
	CA       *auth.CA
	Profiles *Profiles
	Clock    *Clock

	Retention     registry.Retention // of the next Open, as what follows
	AnyAddress    bool
	Evidence      registry.Evidence
	Unknown       string
	MaxDiscovered int
}

// New makes a site with one profile, "compute".
func New(t testing.TB) *Site {
	t.Helper()
	s := At(t, t.TempDir())
	s.Open()
	t.Cleanup(func() {
		if err := s.Store.Close(); err != nil {
			t.Error(err)
		}
		s.Logs.Close()
	})
	return s
}

// At makes a site in a directory, which may be another's, and leaves it to the test to open and close it.
func At(t testing.TB, dir string) *Site {
	t.Helper()
	s := &Site{T: t, Dir: dir, Profiles: NewProfiles(), Clock: &Clock{}}
	s.Clock.Set(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	var err error
	if s.CA, err = auth.OpenCA(filepath.Join(s.Dir, "ca")); err != nil {
		t.Fatal(err)
	}
	return s
}

// Open opens the site's store and registry, as after a start.
func (s *Site) Open() {
	s.T.Helper()
	log := slog.New(slog.NewTextHandler(logWriter{s.T}, nil))
	long := func(d time.Duration) {
		if d > 40*store.MaxView { // a machine with much to do may stop in it
			s.T.Errorf("a read transaction lived for %v", d)
		}
	}
	var err error
	if s.Store, err = store.Open(filepath.Join(s.Dir, "provost.db"), store.Options{Log: log, LongView: long}); err != nil {
		s.T.Fatal(err)
	}
	if s.Logs, err = store.OpenLogs(filepath.Join(s.Dir, "logs")); err != nil {
		s.T.Fatal(err)
	}
	s.Registry, err = registry.Open(context.Background(), registry.Options{Store: s.Store, Logs: s.Logs, Profiles: s.Profiles, Signer: s.CA, JoinKey: JoinKey,
		Pin: s.CA.Pin, Now: s.Clock.Now, Log: log, Retention: s.Retention, AnyAddress: s.AnyAddress, Evidence: s.Evidence, Unknown: s.Unknown, MaxDiscovered: s.MaxDiscovered})
	if err != nil {
		s.T.Fatal(err)
	}
}

// Restart closes everything and opens it again.
func (s *Site) Restart() {
	s.T.Helper()
	if err := s.Store.Close(); err != nil {
		s.T.Fatal(err)
	}
	s.Logs.Close()
	s.Open()
}

// Add adds a node with a MAC that ends in n, and the profile compute.
func (s *Site) Add(name string, n byte) string {
	s.T.Helper()
	mac := MAC(n)
	if _, err := s.AddNode(context.Background(), proto.NodeSpec{Name: name, MACs: []string{mac}, Profile: "compute"}); err != nil {
		s.T.Fatal(err)
	}
	return mac
}

// MAC is an Ethernet address that ends in n.
func MAC(n byte) string {
	const hex = "0123456789abcdef"
	return "52:54:00:00:00:" + string(hex[n>>4]) + string(hex[n&15])
}

// Ordered orders an install of a node and gives its id.
func (s *Site) Ordered(name string) string {
	s.T.Helper()
	if err := s.Order(context.Background(), []string{name}, proto.InstallOrder{}, "test"); err != nil {
		s.T.Fatal(err)
	}
	return s.Seen(name).Install
}

// Seen gives a node as everybody sees it.
func (s *Site) Seen(name string) proto.Node {
	s.T.Helper()
	n, err := s.Node(name)
	if err != nil {
		s.T.Fatal(err)
	}
	return n
}

// InstallEvents gives every event of an install, by time.
func (s *Site) InstallEvents(name, id string) (proto.EventList, error) {
	v, lines, err := s.EventLines(name, id)
	list := proto.EventList{Schema: proto.Schema, Install: v, Events: make([]proto.Event, len(lines))}
	for i, line := range lines {
		err = errors.Join(err, json.Unmarshal(line, &list.Events[i]))
	}
	return list, err
}

// Script fetches a boot script by GET.
func (s *Site) Script(mac string) boot.Decision {
	s.T.Helper()
	d, err := s.Boot(context.Background(), boot.Request{MAC: mac, Method: "GET", Host: "10.0.0.1:8480"})
	if err != nil {
		s.T.Fatal(err)
	}
	return d
}

// HelloOf is a hello of the installer with what a boot script gave.
func HelloOf(d boot.Decision, bootID string) *proto.Hello {
	return &proto.Hello{Schema: proto.Schema, Version: "test", Env: proto.EnvInstaller, Clock: proto.Clock{Boot: bootID, OffsetMS: 10_000},
		Node: d.Node, Install: d.Install, Claim: d.Claim, Journal: Journal}
}

// Journal is the agent's, and Boot makes the n-th kernel boot id.
const Journal = "00000000000000a1"

// Boot makes a kernel boot id.
func Boot(n byte) string {
	const hex = "0123456789abcdef"
	return "00000000-0000-4000-8000-0000000000" + string(hex[n>>4]) + string(hex[n&15])
}

// Profiles are a site's. The zero Steps of a profile are one step, "one".
type Profiles struct {
	mu   sync.Mutex
	All  map[string]*registry.Prepared
	Live int // how often Prepare was called of other than Frozen ones
}

// still are Profiles that are Frozen.
type still struct{ *Profiles }

func (p still) Prepare(name string, _ proto.NodeSpec) (*registry.Prepared, error) {
	return p.prepare(name)
}

// NewProfiles gives the profile "compute".
func NewProfiles() *Profiles {
	p := &Profiles{All: map[string]*registry.Prepared{}}
	p.Put("compute", Prepared("compute", Script{"one", proto.PhasePost, "#!/bin/sh\necho one\n"}))
	return p
}

// Script is a step with its script.
type Script struct {
	Name  string
	Phase proto.Phase
	Body  string
}

// Sequence is a short one that has every kind of stage.
var Sequence = lifecycle.Sequence{Family: "generic", Stages: []lifecycle.Stage{
	{Name: "ordered"}, {Name: "dhcp-discover", Optional: true}, {Name: "bootscript-sent", Within: minutes(2)}, {Name: "kernel-sent", Within: minutes(2), Optional: false},
	{Name: "agent-started", Within: minutes(10), HeartbeatExtends: true}, {Name: "post-started", Within: minutes(40), HeartbeatExtends: true},
	{Name: "post-done", Within: minutes(10)}, {Name: "sealed", Within: minutes(10)}, {Name: "bootaction-disk", Optional: true},
	{Name: "disk-booted", Within: minutes(10)}, {Name: "firstboot-started", Within: minutes(10)}, {Name: "firstboot-done", Within: minutes(5)}, {Name: "booted"},
}}

func minutes(n int) proto.Duration { return proto.Duration(time.Duration(n) * time.Minute) }

// Prepared makes what a profile gives.
func Prepared(name string, scripts ...Script) *registry.Prepared {
	p := &registry.Prepared{Scripts: map[string][]byte{}, Recipe: registry.Recipe{Profile: name, Kind: "disk", Family: "generic", Boot: "provost", Attempts: 1,
		OnFailure: proto.OnFailureHold, HoldLimit: proto.Duration(proto.DefaultHoldLimit), SealWait: proto.Duration(proto.DefaultSealWait),
		Deadline: minutes(90), Trust: []proto.Source{proto.SourceAgent, proto.SourceBoot}, Sequence: Sequence,
		Kernel: "images/vmlinuz", Initrds: []string{"images/initrd", "overlay"}, Args: "quiet", LocalBoot: "exit"}}
	for _, s := range scripts {
		b := []byte(s.Body)
		step := proto.Step{Name: s.Name, Phase: s.Phase, Digest: proto.Digest(b), Size: int64(len(b))}.WithDefaults()
		p.Steps = append(p.Steps, step)
		p.Scripts[step.Digest] = b
	}
	return p
}

// Put sets a profile.
func (p *Profiles) Put(name string, v *registry.Prepared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.All[name] = v
}

// Has implements registry.Profiles.
func (p *Profiles) Has(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.All[name] != nil
}

// Prepare implements registry.Profiles.
func (p *Profiles) Prepare(name string, _ proto.NodeSpec) (*registry.Prepared, error) {
	p.mu.Lock()
	p.Live++
	p.mu.Unlock()
	return p.prepare(name)
}

func (p *Profiles) prepare(name string) (*registry.Prepared, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v := p.All[name]; v != nil {
		copied := *v
		return &copied, nil
	}
	return nil, os.ErrNotExist
}

// Frozen implements registry.Profiles.
func (p *Profiles) Frozen() registry.Profiles { return still{p} }

// Names and Info are what the API shows.
func (p *Profiles) Names() (names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.All {
		names = append(names, name)
	}
	return names
}

// Info gives a profile as the API shows it.
func (p *Profiles) Info(name string) (proto.ProfileInfo, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.All[name]
	if v == nil {
		return proto.ProfileInfo{}, false
	}
	return proto.ProfileInfo{Schema: proto.Schema, Name: name, Kind: v.Recipe.Kind, Family: v.Recipe.Family, Boot: v.Recipe.Boot, Attempts: v.Recipe.Attempts,
		OnFailure: v.Recipe.OnFailure, Deadline: v.Recipe.Deadline, Steps: v.Steps}, true
}

// Clock is a time that a test sets.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now gives the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Set sets it.
func (c *Clock) Set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

// Advance moves it on.
func (c *Clock) Advance(d time.Duration) { c.Set(c.Now().Add(d)) }

// logWriter sends the log to the test's.
type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}
