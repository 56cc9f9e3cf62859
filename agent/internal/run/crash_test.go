// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"provost/agent/internal/journal"
	"provost/agent/internal/run"
	"provost/proto"
)

// crashAt is the hook of an agent that is to kill itself (SIGKILL) at the n-th point that it meets, as PROVOST_TEST_CRASH
// says; 0 counts the points into a file. nil without that.
func crashAt(state string) func(string) {
	at, err := strconv.Atoi(os.Getenv("PROVOST_TEST_CRASH"))
	if err != nil {
		return nil
	}
	var mu sync.Mutex
	n := 0
	return func(point string) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		if at == 0 {
			f, err := os.OpenFile(filepath.Join(state, "points"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				panic(err)
			}
			fmt.Fprintln(f, point)
			f.Close()
		}
	}
}

// crashing is a plan of every kind of step. Each notes that it ran.
func crashing(t *testing.T) *bench {
	const ran = "#!/bin/sh\necho $PROVOST_STEP >> \"$PROVOST_RUN/ran\"\n"
	b := realBench(t, proto.PhaseFirstboot, ran, ran+"echo stage=own >> $PROVOST_STATUS\n", ran+"[ $PROVOST_TRY -gt 1 ]\n", ran)
	b.plan.Steps[1].Rerunnable = true
	b.plan.Steps[2].OnFailure = "warn"
	b.plan.Steps[3].Run = proto.RunOnChange
	return b
}

// crash runs the agent until it kills itself at point n; 0 is never.
func (b *bench) crash(n int) {
	b.t.Helper()
	cmd := b.agentCommand()
	cmd.SysProcAttr = nil // parallel tests change threads
	cmd.Env = append(cmd.Env, "PROVOST_TEST_CRASH="+strconv.Itoa(n))
	err := cmd.Run()
	ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if n > 0 && (!ok || !ws.Signaled() || ws.Signal() != syscall.SIGKILL) {
		b.t.Fatalf("the agent that is to die at point %d ended: %v", n, err)
	}
}

// effects counts how often each step ran.
func (b *bench) effects() map[string]int {
	text, err := os.ReadFile(filepath.Join(b.state, "run", "ran"))
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	out := map[string]int{}
	for _, s := range strings.Fields(string(text)) {
		out[s]++
	}
	return out
}

// tale is what the journal says, with each number once and in order.
func (b *bench) tale() (open string, ended map[string]proto.Outcome) {
	b.t.Helper()
	ended = map[string]proto.Outcome{}
	last := uint64(0)
	for r, err := range journal.Scan(filepath.Join(b.state, "journal")) {
		if err != nil {
			b.t.Fatal(err)
		}
		if r.Seq != last+1 {
			b.t.Fatalf("record %d follows on %d", r.Seq, last)
		}
		last = r.Seq
		switch r.Event.Kind {
		case proto.KindStepStart:
			open = r.Event.Step
			delete(ended, open)
		case proto.KindStepEnd:
			open, ended[r.Event.Step] = "", r.Event.Outcome
		}
	}
	return open, ended
}

// TestKilledAtEachPoint: an agent that is killed, anywhere, and started again. No step that succeeded runs again, none that was
// interrupted counts as done, the journal is whole, and no number stands twice. PROVOST_SOAK=1 takes every point, else every
// ninth.
func TestKilledAtEachPoint(t *testing.T) {
	b := crashing(t)
	b.crash(0)
	text, err := os.ReadFile(filepath.Join(b.state, "points"))
	if err != nil {
		t.Fatal(err)
	}
	points := strings.Fields(string(text))
	if len(points) < 50 {
		t.Fatalf("only %d points were met: %q", len(points), points)
	}
	for i, point := range points {
		if i%9 != len(points)%9 && os.Getenv("PROVOST_SOAK") == "" {
			continue
		}
		t.Run(fmt.Sprintf("%d-%s", i+1, point), func(t *testing.T) {
			t.Parallel()
			b := crashing(t)
			b.crash(i + 1)
			open, ended := b.tale()
			ran := b.effects()
			err := b.agentCommand().Run()
			rerunnable := open == "s2" || open == ""
			if (err == nil) != rerunnable {
				t.Errorf("the next run = %v, and %q was interrupted", err, open)
			}
			if err != nil {
				if _, now := b.tale(); now[open] != proto.OutcomeInterrupted {
					t.Errorf("step %s was interrupted and ended %s", open, now[open])
				}
				if now := b.effects(); now[open] != ran[open] {
					t.Errorf("step %s ran again, though it may be half done", open)
				}
				if err := run.WriteOrder(b.state, proto.Order{ID: proto.NewID(time.Now()), Verb: proto.VerbRetry, Step: open}); err != nil {
					t.Fatal(err)
				}
				if err := b.agentCommand().Run(); err != nil {
					t.Errorf("after the retry: %v", err)
				}
			}
			now := b.effects()
			if _, final := b.tale(); len(final) != 4 {
				t.Errorf("in the end the journal has %v", final)
			}
			for _, s := range b.plan.Steps {
				switch {
				case now[s.Name] == 0:
					t.Errorf("step %s never ran", s.Name)
				case ended[s.Name] == proto.OutcomeOK && now[s.Name] != ran[s.Name]:
					t.Errorf("step %s had succeeded and ran again", s.Name)
				}
			}
		})
	}
}

// TestKilledAtOrdersAndRestarts: an agent that is killed, anywhere, while it carries out an order or brings a restart about. What
// was skipped by the order never runs, the restart is asked for again in the same boot before anything else, and comes about
// once. PROVOST_SOAK=1 takes every point, else those beside the orders and the restart, and a few.
func TestKilledAtOrdersAndRestarts(t *testing.T) {
	const ran = "#!/bin/sh\necho $PROVOST_STEP >> \"$PROVOST_RUN/ran\"\n"
	fresh := func(t *testing.T) *bench {
		b := realBench(t, proto.PhaseFirstboot, ran, ran, ran+"exit 64\n", ran)
		for i := range b.plan.Steps {
			b.plan.Steps[i].Rerunnable = true
		}
		b.plan.Steps[2].Reboot = &proto.Reboot{Max: 1}
		b.order(proto.VerbSkip, "s2")
		return b
	}
	b := fresh(t)
	b.crash(0)
	text, err := os.ReadFile(filepath.Join(b.state, "points"))
	if err != nil {
		t.Fatal(err)
	}
	points := strings.Fields(string(text))
	for _, want := range []string{"order-recorded", "reboot-recorded"} {
		if !slices.Contains(points, want) {
			t.Fatalf("the point %s was not met: %q", want, points)
		}
	}
	near := func(i int) bool {
		for _, j := range []int{i - 1, i, i + 1} {
			if j >= 0 && j < len(points) && (points[j] == "order-recorded" || points[j] == "reboot-recorded") {
				return true
			}
		}
		return i%13 == 0
	}
	for i, point := range points {
		if !near(i) && os.Getenv("PROVOST_SOAK") == "" {
			continue
		}
		t.Run(fmt.Sprintf("%d-%s", i+1, point), func(t *testing.T) {
			t.Parallel()
			b := fresh(t)
			b.crash(i + 1)
			_, ended := b.tale()
			before := b.effects()
			if code := b.exit(); code != 3 {
				t.Errorf("the next run in the same boot = %d, want a restart", code)
			}
			if code := b.exit(); code != 3 || b.effects()["s4"] != 0 {
				t.Errorf("another one = %d, and s4 ran %d times, want the same restart and nothing else", code, b.effects()["s4"])
			}
			b.boot = boot2
			if code := b.exit(); code != 0 {
				t.Errorf("after the restart = %d, want 0", code)
			}
			now := b.effects()
			_, final := b.tale()
			if now["s2"] != 0 || final["s2"] != proto.OutcomeSkipped {
				t.Errorf("s2, which an order skips, ran %d times and ended %q", now["s2"], final["s2"])
			}
			for _, s := range []string{"s1", "s3", "s4"} {
				if ended[s] == proto.OutcomeOK && now[s] != before[s] || now[s] == 0 || final[s] != proto.OutcomeOK {
					t.Errorf("%s ran %d times, %d before the kill, after which it had ended %q; in the end %q", s, now[s], before[s], ended[s], final[s])
				}
			}
			restarts, orders := 0, 0
			for _, e := range b.events() {
				switch e.Kind {
				case proto.KindReboot:
					restarts++
				case proto.KindOrder:
					orders++
				}
			}
			if restarts != 1 || orders != 1 {
				t.Errorf("%d restarts and %d orders in the journal, want one of each", restarts, orders)
			}
		})
	}
}

// exit runs the agent to its end and gives its exit status.
func (b *bench) exit() int {
	b.t.Helper()
	cmd := b.agentCommand()
	cmd.SysProcAttr = nil // parallel tests change threads
	cmd.Run()
	return cmd.ProcessState.ExitCode()
}
