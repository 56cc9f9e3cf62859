// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"provost/proto"
)

// eventsOfInstall is how many events an agent sends in an install of the fixture.
const eventsOfInstall = 14 + 2*steps

// failing is how many nodes of the fixture go by one that ends failed.
const failing = 1000

// fixture makes, unless it is there, the data directory of a site with nodes that were all installed once, through the same
// registry and store as in a collector of that version. Their installs have ended and are packed, and all events are still in the feed.
func fixture(ctx context.Context, dir string, nodes int, version string) error {
	if _, err := os.Stat(filepath.Join(dir, "provost.db")); err == nil {
		return nil
	}
	begin := time.Now()
	s, err := openSite(ctx, dir, version)
	if err != nil {
		return err
	}
	err = s.fill(ctx, nodes)
	if err == nil {
		s.Checkpoint(ctx)
		for range 2 { // what is quiet since the last round is packed
			err = errors.Join(err, s.Retain(ctx))
		}
	}
	if err = errors.Join(err, s.close()); err != nil {
		return fmt.Errorf("making a site of %d nodes: %w", nodes, errors.Join(err, os.RemoveAll(dir)))
	}
	slog.Info("made a site", "nodes", nodes, "events", nodes*eventsOfInstall, "took", time.Since(begin).Round(time.Second))
	return nil
}

// fill installs the nodes, many at a time, so that many share a commit.
func (s *site) fill(ctx context.Context, nodes int) error {
	const step, agents = 500, 256
	for from := 0; from < nodes; from += step {
		to := min(from+step, nodes)
		if err := s.order(ctx, from, to); err != nil {
			return err
		}
		var next atomic.Int64
		next.Store(int64(from))
		var failed atomic.Pointer[error]
		var wg sync.WaitGroup
		for range agents {
			wg.Go(func() {
				for i := int(next.Add(1)) - 1; i < to; i = int(next.Add(1)) - 1 {
					if err := s.live(ctx, i); err != nil {
						failed.CompareAndSwap(nil, &err)
						return
					}
				}
			})
		}
		wg.Wait()
		if e := failed.Load(); e != nil {
			return *e
		}
	}
	return nil
}

// live is the life of one agent.
func (s *site) live(ctx context.Context, i int) error {
	installer, installed := journey(i%failing == failing-1)
	for b, events := range [][]proto.Event{1: installer, 2: installed} {
		if len(events) == 0 {
			continue
		}
		h, err := s.hello(ctx, i, b, "")
		if err != nil {
			return err
		}
		q := &proto.EventsRequest{Schema: proto.Schema, Install: h.Install, Journal: journalID(i, b), Clock: clockOf(i, b)}
		for n, e := range events {
			e.Source, e.Install, e.Journal, e.Seq, e.Boot = proto.SourceAgent, h.Install, q.Journal, uint64(n+1), q.Clock.Boot
			e.OffsetMS = int64(1000 + n*500)
			e.Time = q.Clock.Time.Add(-time.Duration(q.Clock.OffsetMS-e.OffsetMS) * time.Millisecond).UTC()
			e.Message = fmt.Sprintf("%s %d %s", e.Journal, n, filler)
			raw, err := json.Marshal(e)
			if err != nil {
				return err
			}
			q.Events = append(q.Events, raw)
		}
		a, err := s.Events(ctx, h.Install, q)
		if err != nil {
			return err
		}
		if want := uint64(len(events) + 1); a.Next != want || len(a.Refused) > 0 {
			return fmt.Errorf("%s: record %d is wanted next after %d: %+v", name(i), a.Next, want-1, a.Refused)
		}
	}
	return nil
}

var filler = strings.Repeat("a line that a step prints, with a path in it: /usr/share/doc/packages; ", 3)

// journey is the events of an install, of the installer and of the installed system. One that fails ends with its first
// failing step.
func journey(fails bool) (installer, installed []proto.Event) {
	to := &installer
	add := func(e proto.Event) { *to = append(*to, e) }
	stage := func(name string) { add(proto.Event{Kind: proto.KindStage, Stage: name}) }
	add(proto.Event{Kind: proto.KindAgentStart, Stage: "agent-started"})
	stage("installer-started")
	plan, _ := compute{}.Prepare("compute", proto.NodeSpec{}) // it refuses nothing
	n := 0
	for _, phase := range []proto.Phase{proto.PhasePre, proto.PhasePost, proto.PhaseFirstboot} {
		if phase == proto.PhaseFirstboot {
			add(proto.Event{Kind: proto.KindSealed, Stage: "sealed"})
			to = &installed
			add(proto.Event{Kind: proto.KindAgentStart, Stage: "disk-booted"})
		}
		add(proto.Event{Kind: proto.KindRunStart, Phase: phase, Stage: string(phase) + "-started"})
		for ; n < len(plan.Steps) && plan.Steps[n].Phase == phase; n++ {
			end := proto.Event{Kind: proto.KindStepEnd, Phase: phase, Step: plan.Steps[n].Name, Try: 1, Outcome: proto.OutcomeOK, DurationMS: 400, Log: plan.Steps[n].Name + ".log"}
			add(proto.Event{Kind: proto.KindStepStart, Phase: phase, Step: plan.Steps[n].Name, Try: 1})
			if fails && phase == proto.PhasePost {
				end.Outcome, end.Exit, end.Tail = proto.OutcomeFailed, 127, []string{"dnf: command not found"}
				add(end)
				add(proto.Event{Kind: proto.KindRunEnd, Phase: phase, Outcome: proto.OutcomeFailed, Step: end.Step, Try: 1, Exit: 127})
				return installer, nil
			}
			add(end)
		}
		add(proto.Event{Kind: proto.KindRunEnd, Phase: phase, Outcome: proto.OutcomeOK, Stage: string(phase) + "-done"})
		if phase == proto.PhasePre {
			stage("partitioned")
			stage("packages-started")
			stage("packages-done")
		}
	}
	stage("booted")
	return installer, installed
}
