// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"provost/collector/internal/profile"
	"provost/collector/internal/registry"
	"provost/proto"
)

// site is the profiles of the configuration directory as they were when they were last read.
type site struct {
	dir     string
	logs    func() []string // see profiles
	reading sync.Mutex      // one reload at a time
	now     atomic.Pointer[reading]
}

// reading is one look at the configuration directory. It does not change.
type reading struct {
	profiles
	problems []string // of the files that were left out
}

// openSite reads what is right; what is wrong is left out and told.
func openSite(dir string, logs func() []string) (*site, error) {
	set, err := profile.Load(dir)
	if set == nil {
		return nil, err
	}
	s := &site{dir: dir, logs: logs}
	s.now.Store(&reading{profiles{set: set, logs: logs}, problemsOf(err)})
	return s, nil
}

// problemsOf gives the lines of a joined error.
func problemsOf(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// reload reads the directory anew, checks everything in it, and only then takes it; what is wrong leaves the old profiles as
// they are. Installs that are ordered keep what they have.
func (s *site) reload() (*proto.ReloadAnswer, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	set, err := profile.Load(s.dir)
	if err == nil {
		err = set.Check()
	}
	if err != nil {
		return nil, proto.NewProblem(422, proto.CodeBadProfile, err.Error(), "nothing was changed; mend the files in "+s.dir+", then provost reload")
	}
	old := s.now.Load().set
	a := &proto.ReloadAnswer{Schema: proto.Schema, ConfigDir: s.dir, Profiles: len(set.Names()), Added: []string{}, Changed: []string{}, Removed: []string{}}
	for _, name := range set.Names() {
		was, ok := old.Profile(name)
		is, _ := set.Profile(name)
		switch {
		case !ok:
			a.Added = append(a.Added, name)
		case !same(old, was, set, is):
			a.Changed = append(a.Changed, name)
		}
	}
	for _, name := range old.Names() {
		if !slices.Contains(set.Names(), name) {
			a.Removed = append(a.Removed, name)
		}
	}
	s.now.Store(&reading{profiles{set: set, logs: s.logs}, nil})
	return a, nil
}

// same reports whether two readings of a profile make the same installs, but for its scripts, which every order reads anew.
func same(a *profile.Set, was *profile.Profile, b *profile.Set, is *profile.Profile) bool {
	before, errA := a.Answer(was, nil)
	after, errB := b.Answer(is, nil)
	return errA == nil && errB == nil && reflect.DeepEqual(was, is) && reflect.DeepEqual(before, after) &&
		reflect.DeepEqual(a.SequenceOf(was), b.SequenceOf(is))
}

// reloadOnHangup reloads at each SIGHUP until ctx ends, and logs what came of it.
func (s *site) reloadOnHangup(ctx context.Context, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
		case <-ctx.Done():
			return
		}
		if a, err := s.reload(); err != nil {
			log.Error("profiles were not reloaded, the old ones stay", "dir", s.dir, "error", err)
		} else {
			log.Info("profiles were reloaded", "dir", s.dir, "profiles", a.Profiles, "added", a.Added, "changed", a.Changed, "removed", a.Removed)
		}
	}
}

// The registry and the API ask for the profiles of the moment.

func (s *site) Names() []string                            { return s.now.Load().Names() }
func (s *site) Has(name string) bool                       { return s.now.Load().Has(name) }
func (s *site) Info(name string) (proto.ProfileInfo, bool) { return s.now.Load().Info(name) }
func (s *site) Prepare(name string, n proto.NodeSpec) (*registry.Prepared, error) {
	return s.now.Load().Prepare(name, n)
}
func (s *site) Frozen() registry.Profiles { return s.now.Load().Frozen() }
func (s *site) problems() []string        { return s.now.Load().problems }
