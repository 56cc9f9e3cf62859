// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"provost/agent/internal/proc"
	"provost/proto"
)

// changing is a node with one on-change step in a target, and what the step depends on.
func changing(t *testing.T) *bench {
	t.Helper()
	b := newBench(t, proto.Step{Name: "a", Phase: proto.PhasePost, Run: proto.RunOnChange, Inputs: []string{"/etc/in", "/etc/other"}})
	b.opts.Phase, b.opts.Root = proto.PhasePost, t.TempDir()
	b.put("etc/os-release", "ID=one\n")
	b.put("etc/in", "in\n")
	return b
}

func (b *bench) put(name, text string) {
	b.t.Helper()
	path := filepath.Join(b.opts.Root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// anew makes the next run one of another install: the journal does not know the step.
func (b *bench) anew() { b.plan.Install = proto.NewID(time.Now()) }

// TestOnChange: the step runs when anything that it depends on is not as at its last success, and only then. Whatever was
// changed, and in whatever order, whether the step then succeeded or not.
func TestOnChange(t *testing.T) {
	checks := 0
	rapid.Check(t, func(rt *rapid.T) {
		if checks++; checks > 15 && os.Getenv("PROVOST_SOAK") == "" { // each takes as many syncs of the disk as an install
			return
		}
		b := changing(t)
		defer os.RemoveAll(b.opts.Root)
		defer os.RemoveAll(b.state)
		type world struct{ script, env, attr, in, other, os int }
		var now, done world
		ever := false
		for range rapid.IntRange(1, 6).Draw(rt, "runs") {
			for range rapid.IntRange(0, 2).Draw(rt, "changes") {
				v := rapid.IntRange(0, 2).Draw(rt, "value")
				switch rapid.IntRange(0, 5).Draw(rt, "what") {
				case 0:
					now.script = v
				case 1:
					now.env = v
				case 2:
					now.attr = v
				case 3:
					now.in = v
				case 4:
					now.other = v
				case 5:
					now.os = v
				}
			}
			n := strconv.Itoa
			b.plan.Steps[0] = b.script(b.plan.Steps[0], "#!/bin/sh\n: "+n(now.script)+"\n")
			b.plan.Steps[0].Env = map[string]string{"E": n(now.env)}
			b.plan.Attrs = map[string]string{"a": n(now.attr)}
			b.put("etc/in", n(now.in))
			if now.other == 0 {
				os.Remove(filepath.Join(b.opts.Root, "etc/other"))
			} else {
				b.put("etc/other", n(now.other))
			}
			b.put("etc/os-release", n(now.os))
			good := rapid.Bool().Draw(rt, "good")
			b.play = func(context.Context, string, int) proc.Result {
				if good {
					return proc.Result{}
				}
				return proc.Result{Outcome: proto.OutcomeFailed, Exit: 1}
			}
			if rapid.Bool().Draw(rt, "another install") {
				b.anew()
			}
			b.run()
			if ran, want := len(b.ran) > 0, !ever || now != done; ran != want {
				rt.Fatalf("it ran: %t, want %t; last done with %+v, now %+v", ran, want, done, now)
			}
			if len(b.ran) > 0 {
				done, ever = now, good // one that failed may have done half of it
			}
		}
	})
}

func TestOnChangeSkips(t *testing.T) {
	b := changing(t)
	b.run()
	b.anew()
	r := b.run()
	events := b.events()
	i := slices.IndexFunc(events, func(e proto.Event) bool { return e.Kind == proto.KindStepEnd && e.Outcome == proto.OutcomeSkipped })
	if i < 0 || !strings.Contains(events[i].Message, "nothing has changed since its last success, 20") || r.Outcome != proto.OutcomeOK || len(r.Warnings) > 0 {
		t.Errorf("Run = %+v, events %+v, want a skip that says why", r, events)
	}
	b.anew()
	b.opts.Force = "a"
	if b.run(); len(b.ran) != 1 {
		t.Errorf("with --force ran %v, want a", b.ran)
	}
	b.opts.Force = ""
	b.anew()
	if err := os.WriteFile(filepath.Join(b.opts.Root, "var/lib/provost/changes.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b.run(); len(b.ran) != 1 {
		t.Errorf("with a damaged record ran %v, want a", b.ran)
	}
	b.anew()
	b.plan.Steps[0].Inputs = []string{"/etc"}
	if r := b.run(); r.Cause == nil || r.Cause.Outcome != proto.OutcomePreflight || !strings.Contains(r.Cause.Message, "input /etc: it is no file") {
		t.Errorf("with a directory for an input: %+v, want preflight", r.Cause)
	}
	// a link is what it leads to, within the target
	b.anew()
	b.plan.Steps[0].Inputs = []string{"/etc/link"}
	if err := os.Symlink("/etc/in", filepath.Join(b.opts.Root, "etc/link")); err != nil {
		t.Fatal(err)
	}
	b.run()
	b.put("etc/in", "changed\n")
	b.anew()
	if b.run(); len(b.ran) != 1 {
		t.Errorf("after a change behind a link ran %v, want a", b.ran)
	}
}

func TestOnChangeOnAMemoryRoot(t *testing.T) {
	for _, tt := range []struct {
		phase    proto.Phase
		persists string
		want     bool
	}{
		{proto.PhasePre, "", false}, {proto.PhasePre, "root", false}, {proto.PhasePre, "outside", true},
		{proto.PhaseBoot, "root", false}, {proto.PhasePost, "root", true}, {proto.PhaseFirstboot, "", true},
	} {
		s := proto.Step{Name: "a", Phase: tt.phase, Run: proto.RunOnChange, Persists: tt.persists}
		if err := s.Check(); (err == nil) != tt.want || err != nil && !strings.Contains(err.Error(), "where the root is memory") {
			t.Errorf("Check of phase %s, persists %q = %v, want good: %t", tt.phase, tt.persists, err, tt.want)
		}
	}
}

// TestOnChangeOutside: a node without a disk knows of earlier boots what the collector remembers, and nothing else.
func TestOnChangeOutside(t *testing.T) {
	b := newBench(t, proto.Step{Name: "bmc", Phase: proto.PhaseBoot, Run: proto.RunOnChange, Persists: "outside", Inputs: []string{filepath.Join(t.TempDir(), "in")}},
		proto.Step{Name: "every", Phase: proto.PhaseBoot})
	b.opts.Phase = proto.PhaseBoot
	input := b.plan.Steps[0].Inputs[0]
	b.changes = &proto.Changes{Key: []byte("0123456789abcdef0123456789abcdef")}
	n := 0
	// boot is another boot: /run is gone, and the collector tells what it was told.
	boot := func(want ...string) {
		t.Helper()
		n++
		b.anew()
		b.boot = fmt.Sprintf("%08x%s", n, boot1[8:])
		for _, name := range []string{"journal", "logs", "changes.json", "run.json"} {
			if err := os.RemoveAll(filepath.Join(b.state, name)); err != nil {
				t.Fatal(err)
			}
		}
		b.run()
		if !slices.Equal(b.ran, want) {
			t.Errorf("boot %d ran %q, want %q", n, b.ran, want)
		}
		done := map[string]string{}
		for _, e := range b.events() {
			k := proto.ChangeKey(e.Phase, e.Step)
			if e.Kind == proto.KindStepStart {
				delete(b.changes.Done, k)
			} else if e.Change != "" {
				done[k] = e.Change
			}
		}
		for k, v := range b.changes.Done {
			if done[k] == "" {
				done[k] = v
			}
		}
		b.changes = &proto.Changes{Key: b.changes.Key, Done: done}
	}
	boot("bmc", "every")
	boot("every")
	boot("every")
	if err := os.WriteFile(input, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	boot("bmc", "every")
	boot("every")
	b.opts.Force = "bmc"
	boot("bmc", "every")
	b.opts.Force = ""
	boot("every")
	b.plan.Steps[0].SecretEnv = map[string]string{"PIN": "1234"}
	boot("bmc", "every")
	boot("every")
	for _, v := range b.changes.Done {
		if digest := (&proto.Changes{Key: []byte("another key")}).Keyed("x"); len(v) != len(digest) {
			t.Errorf("change %q is no digest", v)
		}
	}
	// within one boot: what has changed since the skip runs, once
	b.ran = nil
	if b.run(); len(b.ran) != 0 {
		t.Errorf("a second run in the same boot ran %q, want nothing", b.ran)
	}
	if err := os.WriteFile(input, []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b.run(); !slices.Equal(b.ran, []string{"bmc"}) {
		t.Errorf("after a change in the same boot ran %q, want bmc", b.ran)
	}
	if b.run(); len(b.ran) != 0 {
		t.Errorf("and then %q, want nothing", b.ran)
	}
	// one that failed is not taken for the success that the collector knew of when it said hello
	if err := os.WriteFile(input, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.play = func(_ context.Context, step string, _ int) proc.Result {
		if step == "bmc" {
			return failing(1)
		}
		return proc.Result{}
	}
	b.run()
	if b.run(); !slices.Equal(b.ran, []string{"bmc"}) {
		t.Errorf("after a failure ran %q, want bmc again", b.ran)
	}
	// another key, or none: nothing is known
	b.play = func(context.Context, string, int) proc.Result { return proc.Result{} }
	b.changes.Key = []byte("ffffffffffffffffffffffffffffffff")
	boot("bmc", "every")
	b.changes = &proto.Changes{}
	boot("bmc", "every")
}
