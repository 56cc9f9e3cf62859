// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"provost/agent/internal/run"
	"provost/proto"
)

// TestHungDisk: the disk that the step's script is on does not answer, which a pipe that nobody writes to does for it. The step
// is not started, and the run ends; nor is the disk looked at again while the first look hangs.
func TestHungDisk(t *testing.T) {
	b := newBench(t, proto.Step{Name: "a"}, proto.Step{Name: "b"})
	script := filepath.Join(b.state, "files", b.plan.Steps[0].Digest)
	if err := os.Remove(script); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(script, 0o600); err != nil {
		t.Fatal(err)
	}
	j := b.journal()
	defer j.Close()
	d := b.deps(j)
	d.SetDiskWait(100 * time.Millisecond)
	r, err := run.Run(t.Context(), d, b.opts)
	if err != nil || r.Outcome != proto.OutcomePreflight || !strings.Contains(r.Cause.Message, "does not answer within 100ms") {
		t.Errorf("Run = %s, %+v, %v, want preflight that says that the disk does not answer", r.Outcome, r.Cause, err)
	}
	if len(b.ran) > 0 {
		t.Errorf("%v ran", b.ran)
	}
	w, err := os.OpenFile(script, os.O_WRONLY, 0) // it answers again, and the look comes back
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(b.state, "logs", "a.log")); err == nil {
			break // the last that it does
		}
		if time.Now().After(end) {
			t.Fatal("the look has not come back")
		}
	}
}

// TestOrderOnFullDisk: who looks after a machine whose disk is full can still give an order, and each time one is carried out another.
func TestOrderOnFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("state", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("no tmpfs can be mounted here: ", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	order := func() (proto.Order, error) {
		o := proto.Order{ID: proto.NewID(time.Now()), Verb: proto.VerbHold, Reason: strings.Repeat("r", 512)}
		return o, run.WriteOrder(dir, o)
	}
	first, err := order() // it sets the space aside
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the disk is not full: this test tests nothing")
	}
	second, err := order()
	if err != nil {
		t.Fatalf("an order on a full disk = %v", err)
	}
	for _, o := range []proto.Order{first, second} {
		if b, err := os.ReadFile(filepath.Join(dir, "orders", o.ID+".json")); err != nil || !strings.Contains(string(b), o.ID) {
			t.Errorf("order %s = %q, %v", o.ID, b, err)
		}
	}
	for range 10 { // an order is shorter than what was set aside
		_, err = order()
	}
	if err == nil || !strings.Contains(err.Error(), "the space that was set aside is used") {
		t.Errorf("a further order = %v, want that there is no space", err)
	}
}

// TestAnotherInstallsTarget: a disk that was not formatted has an earlier install's PROVOST_RUN, and an agent of this one's size.
func TestAnotherInstallsTarget(t *testing.T) {
	root := t.TempDir()
	b := newBench(t, proto.Step{Name: "a", Phase: proto.PhasePost})
	b.opts.Phase, b.opts.Root = proto.PhasePost, root
	in := filepath.Join(root, "var/lib/provost")
	put := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(in, "run/secret"), "of another install")
	put(filepath.Join(in, "run.install"), "01J00000000000000000000009")
	put(filepath.Join(in, "bin/provost-agent"), "old program")
	agent := filepath.Join(b.state, "agent")
	put(agent, "new program")
	j := b.journal()
	defer j.Close()
	d := b.deps(j)
	d.Agent = agent
	if r, err := run.Run(t.Context(), d, b.opts); err != nil || r.Outcome != proto.OutcomeOK {
		t.Fatalf("Run = %+v, %v", r, err)
	}
	if _, err := os.Stat(filepath.Join(in, "run/secret")); err == nil {
		t.Error("the step finds what an earlier install left in PROVOST_RUN")
	}
	if text, err := os.ReadFile(filepath.Join(in, "bin/provost-agent")); err != nil || string(text) != "new program" {
		t.Errorf("the target's agent is %q, %v", text, err)
	}
	put(filepath.Join(in, "run/mine"), "of this install")
	b.opts.Force = "all"
	if r, err := run.Run(t.Context(), d, b.opts); err != nil || r.Outcome != proto.OutcomeOK {
		t.Fatalf("Run again = %+v, %v", r, err)
	}
	if _, err := os.Stat(filepath.Join(in, "run/mine")); err != nil {
		t.Errorf("PROVOST_RUN of this install is gone: %v", err)
	}
}

// TestPhaseOfAnotherKind: a phase that is none of the node's kind is refused before anything is recorded.
func TestPhaseOfAnotherKind(t *testing.T) {
	for kind, phases := range map[string][]proto.Phase{
		proto.PlanDisk: {proto.PhaseBoot}, proto.PlanDiskless: {proto.PhasePre, proto.PhasePost, proto.PhaseFirstboot}, "": nil,
	} {
		for _, p := range proto.Phases {
			err := run.Check(&proto.Plan{Kind: kind, Profile: "fast"}, "/run/provost", run.Options{Phase: p})
			refused := slices.Contains(phases, p)
			if (err != nil) != refused || err != nil && !strings.Contains(err.Error(), "the plan, of profile fast, is for") {
				t.Errorf("Check of kind %q, phase %s = %v, refused must be %v", kind, p, err, refused)
			}
		}
	}
}
