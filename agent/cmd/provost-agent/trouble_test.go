// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"provost/agent/internal/journal"
	"provost/proto"
	"provost/proto/prototest"
)

// TestDeadWatch: the watch dies under a run. The run reports by itself then, while its step goes on.
func TestDeadWatch(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	wait := m.path("go-on")
	m.id, _ = m.c.InstallPlan("n1", []prototest.Script{step("one", proto.PhasePre, `
echo stage=begun >>"$PROVOST_STATUS"
while [ ! -e "`+wait+`" ]; do
	[ ! -e "`+wait+`.say" ] || { rm "`+wait+`.say"; echo stage=alone >>"$PROVOST_STATUS"; }
	sleep 0.1
done`)}, nil)
	m.write("token", m.c.Token(m.id, prototest.Boot1))
	watch := exec.Command("provost-agent", m.at("watch")...)
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	m.wait(staged("agent-started"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	run := exec.CommandContext(ctx, "provost-agent", m.at("run", "--phase", "pre")...)
	run.Cancel = func() error { return run.Process.Signal(os.Interrupt) }
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	m.wait(staged("begun"))
	watch.Process.Kill()
	watch.Wait()
	m.write("go-on.say", "")
	m.wait(staged("alone"))
	m.write("go-on", "")
	if err := run.Wait(); err != nil {
		t.Errorf("run = %v", err)
	}
	m.wait(func(e proto.Event) bool { return e.Kind == proto.KindRunEnd && e.Outcome == proto.OutcomeOK })
}

// TestNoRoot: a mistyped --root is made by nobody, and nothing is written for it.
func TestNoRoot(t *testing.T) {
	t.Parallel()
	m := newMachine(t, threePhases...)
	m.want(0, m.at("run", "--phase", "pre")...)
	r := m.agent(m.at("run", "--phase", "post", "--root", m.path("traget"))...)
	if r.code != 1 || !strings.Contains(r.err, "is no directory: is the target mounted there?") {
		t.Errorf("run = %d, %s, want 1 and what is wrong", r.code, r.err)
	}
	if r := m.agent(m.at("seal", "--root", m.path("traget"))...); r.code != 0 || !strings.Contains(r.err, "is no directory") {
		t.Errorf("seal = %d, %s, want 0, and what is wrong", r.code, r.err)
	}
	if _, err := os.Lstat(m.path("traget")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the root was made: %v", err)
	}
}

// TestTargetsLinks: a target's links mean what they will mean there; nothing of the token leaves the target through one.
func TestTargetsLinks(t *testing.T) {
	t.Parallel()
	m := newMachine(t, threePhases...)
	target, outside := m.path("target"), m.path("outside")
	m.mkdir("target/var")
	m.mkdir("outside")
	if err := os.Symlink(outside, filepath.Join(target, "var/lib")); err != nil {
		t.Fatal(err)
	}
	m.want(0, m.at("run", "--phase", "post", "--root", target)...)
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside of the target there is %v, %v", left, err)
	}
	for _, name := range []string{"token", "identity.json", "journal", "bin/steps"} {
		if _, err := os.Stat(filepath.Join(target, outside, "provost", name)); err != nil {
			t.Errorf("the target lacks %s: %v", name, err)
		}
	}
}

// TestSealOnFullDisk: a disk that takes no record is tried again until seal-wait; then nothing says that it is sealed.
func TestSealOnFullDisk(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	for _, room := range []bool{false, true} {
		m := newMachine(t)
		m.mkdir("run")
		if err := syscall.Mount("state", m.state, "tmpfs", 0, "size=2m"); err != nil {
			t.Skip("no tmpfs can be mounted here: ", err)
		}
		t.Cleanup(func() { syscall.Unmount(m.state, syscall.MNT_DETACH) })
		var said strings.Builder
		a, err := (&common{state: m.state}).open(&streams{out: &said, err: &said}, proto.EnvInstaller)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(a.dir.Path("ballast"), make([]byte, 4<<20), 0o600); err == nil {
			t.Fatal("the disk is not full: this test tests nothing")
		}
		os.Remove(a.dir.Path("journal/reserve"))
		os.Remove(a.dir.Path("ballast2"))
		for i := 0; ; i++ { // a record of its own fills the last page
			if _, err := a.journal.Append(proto.Event{Kind: proto.KindNote, Message: strings.Repeat("x", 1000)}); err != nil {
				break
			} else if i > 5000 {
				t.Fatal("the disk is never full")
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		limit := 3 * time.Second
		if room {
			limit = 2 * time.Minute
			time.AfterFunc(time.Second, func() { os.Remove(a.dir.Path("ballast")) })
		}
		seq, err := a.sealed(ctx, limit)
		cancel()
		if room != (err == nil) || room != (seq > 0) {
			t.Errorf("with room=%v: sealed = %d, %v; it said\n%s", room, seq, err, said.String())
		}
		a.close()
		seals := 0
		for r, err := range journal.Scan(filepath.Join(m.state, "journal")) {
			if err == nil && r.Event.Kind == proto.KindSealed {
				seals++
			}
		}
		if room != (seals == 1) {
			t.Errorf("with room=%v the journal has %d seals", room, seals)
		}
	}
}
