// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"provost/collector/internal/registry"
	"provost/collector/internal/registry/registrytest"
	"provost/collector/internal/store"
	"provost/proto"
)

// A child is this test binary, which is a collector in the directory that childEnv names, and ends at the place that
// pointEnv names: NAME N is the N-th time that the store passes NAME.
const (
	childEnv = "PROVOST_KILLED_CHILD"
	pointEnv = "PROVOST_KILLED_POINT"
)

// killed is a site whose collector is killed again and again, and what it acknowledged.
type killed struct {
	*registrytest.Site
	events  map[string]uint64 // install → records
	logs    map[string]int64  // install → bytes of its log
	trimmed bool
}

func newKilled(t *testing.T) *killed {
	s := registrytest.New(t)
	s.Add("n1", 1)
	return &killed{Site: s, events: map[string]uint64{}, logs: map[string]int64{}}
}

// life lets a child live until it ends itself, or kill has been called; line is told of each line that it prints. What it
// acknowledged must be there then.
func (k *killed) life(point string, line func(kill func())) {
	t := k.T
	t.Helper()
	if err := k.Store.Close(); err != nil {
		t.Fatal(err)
	}
	k.Logs.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestKilledChild$")
	cmd.Env = append(os.Environ(), childEnv+"="+k.Dir, pointEnv+"="+point)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := atomic.Bool{}
	giveUp := time.AfterFunc(2*time.Minute, func() { late.Store(true); cmd.Process.Kill() })
	defer giveUp.Stop()
	lines := bufio.NewReader(out)
	for {
		text, err := lines.ReadString('\n')
		if err != nil {
			break // killed, perhaps within a line
		}
		switch f := strings.Fields(text); {
		case len(f) == 1 && f[0] == "TRIMMED":
			k.trimmed = true
		case len(f) == 3 && f[0] == "EVENTS":
			if k.events[f[1]], err = strconv.ParseUint(f[2], 10, 64); err != nil {
				t.Fatal(err)
			}
		case len(f) == 3 && f[0] == "LOG":
			if k.logs[f[1]], err = strconv.ParseInt(f[2], 10, 64); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("the child says %q", text)
		}
		line(func() { cmd.Process.Kill() })
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != -1 || late.Load() {
		t.Fatalf("point %q: the child ended with %v, not by its own hand", point, err)
	}
	if r, err := store.Check(filepath.Join(k.Dir, "provost.db")); err != nil || len(r.Problems) > 0 {
		t.Errorf("point %q: %+v, %v", point, r, err)
	}
	k.Open()
	k.look(point)
}

// look wants everything that was acknowledged.
func (k *killed) look(point string) {
	t := k.T
	t.Helper()
	kept, err := k.Installs("n1")
	if err != nil {
		t.Fatal(err)
	}
	there := 0
	for _, in := range kept {
		list, err := k.InstallEvents("n1", in.ID)
		if err != nil {
			t.Fatal(err)
		}
		have := uint64(0)
		for _, e := range list.Events {
			if e.Source == proto.SourceAgent {
				if have++; e.Seq != have {
					t.Errorf("point %q: install %s: record %d in place %d", point, in.ID, e.Seq, have)
				}
			}
		}
		if have < k.events[in.ID] {
			t.Errorf("point %q: install %s has %d records, %d were acknowledged", point, in.ID, have, k.events[in.ID])
		}
		if k.events[in.ID] > 0 {
			there++
		}
		if want, ok := k.logs[in.ID]; ok {
			if logs, err := k.Logs.List(in.ID); err != nil || len(logs) != 1 || logs[0].Size < want {
				t.Errorf("point %q: install %s has the logs %v, %v, want one of %d bytes at least", point, in.ID, logs, err, want)
			}
		}
	}
	if there != len(k.events) {
		t.Errorf("point %q: %d installs are there, %d have acknowledged events", point, there, len(k.events))
	}
}

// TestRetentionKilled kills a collector again and again while it takes events, packs and trims: what it acknowledged is
// there each time.
func TestRetentionKilled(t *testing.T) {
	k := newKilled(t)
	for round := range 6 {
		before, told := len(k.events), false
		k.life("", func(kill func()) {
			if k.trimmed && len(k.events) > before+1 && !told { // all of it is under way
				told = true
				time.AfterFunc(time.Duration(70*round)*time.Millisecond, kill)
			}
		})
	}
}

// TestKilledAtPoints kills a collector at every named place of a commit and of a log's append, while it takes events and logs,
// writes checkpoints, packs and trims. PROVOST_SOAK=1 meets each of them more often.
func TestKilledAtPoints(t *testing.T) {
	times := []int{1, 10}
	if os.Getenv("PROVOST_SOAK") == "1" {
		times = []int{1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233}
	}
	k := newKilled(t)
	writer, logs := store.Points()
	for _, point := range append(writer, logs...) {
		for _, n := range times {
			k.life(fmt.Sprintf("%s %d", point, n), func(func()) {})
		}
	}
	if len(k.events) < 10 || len(k.logs) < 10 {
		t.Errorf("%d installs had events, %d logs: the test shows nothing", len(k.events), len(k.logs))
	}
}

// TestKilledChild is no test but what the child of those above does: it orders installs and reports in a loop, while another
// goroutine writes checkpoints, packs and trims; it never returns.
func TestKilledChild(t *testing.T) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		return
	}
	s := registrytest.At(t, dir)
	s.Clock.Set(time.Now())
	name, times, _ := strings.Cut(os.Getenv(pointEnv), " ")
	var left atomic.Int64
	if name != "" {
		n, err := strconv.ParseInt(times, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		left.Store(n)
	}
	point := func(at string) {
		if at == name && left.Add(-1) == 0 {
			unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	var err error
	if s.Store, err = store.Open(filepath.Join(dir, "provost.db"), store.Options{Point: point}); err != nil {
		t.Fatal(err)
	}
	if s.Logs, err = store.OpenLogs(filepath.Join(dir, "logs")); err != nil {
		t.Fatal(err)
	}
	s.Logs.SetPoint(point)
	ctx := context.Background()
	s.Registry, err = registry.Open(ctx, registry.Options{Store: s.Store, Logs: s.Logs, Profiles: s.Profiles, Signer: s.CA, JoinKey: registrytest.JoinKey,
		Pin: s.CA.Pin, Now: s.Clock.Now, Retention: registry.Retention{Feed: 50 * time.Millisecond, Installs: 1_000_000}})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for first := s.Store.First(); ; {
			s.Clock.Set(time.Now())
			s.Checkpoint(ctx)
			if err := s.Retain(ctx); err != nil {
				panic(err)
			}
			if now := s.Store.First(); now > first {
				first = now
				fmt.Println("TRIMMED")
			}
		}
	}()
	for {
		id := s.Ordered("n1")
		size := int64(0)
		for seq := uint64(1); seq < 40; seq += 3 {
			send(t, s, id, event(seq, proto.KindNote, 1), event(seq+1, proto.KindNote, 1), event(seq+2, proto.KindNote, 1))
			fmt.Printf("EVENTS %s %d\n", id, seq+2)
			if size, err = s.Logs.Append(id, "one.log", size, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			fmt.Printf("LOG %s %d\n", id, size)
		}
	}
}
