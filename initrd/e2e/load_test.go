// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"provost/initrd/e2e/lab"
)

// TestLoad installs PROVOST_AGENTS machines at once, 500 if it is not set, each with 14 + 2 × PROVOST_STEPS events (60)
// over PROVOST_OVER (20s), and restarts the collector in the middle. It prints what PERFORMANCE.md calls P8 and fails by
// what is lost, doubled or out of order, never by a time.
func TestLoad(t *testing.T) {
	agents, steps := count(t, "PROVOST_AGENTS", 500), count(t, "PROVOST_STEPS", 23)
	over := 20 * time.Second
	if s := os.Getenv("PROVOST_OVER"); s != "" {
		var err error
		if over, err = time.ParseDuration(s); err != nil {
			t.Fatalf("PROVOST_OVER: %v", err)
		}
	}
	ramp := over / 5
	ctx := within(t, 5*(over+ramp)+10*time.Minute)
	l := crowdSite(t, ctx)
	var all crowds
	for before := 0; before < agents; before += crowdSize {
		all = append(all, startCrowd(t, ctx, l, l.URL(), "--server", l.Server(), "--before", fmt.Sprint(before), "--agents", fmt.Sprint(min(crowdSize, agents-before)),
			"--steps", fmt.Sprint(steps), "--over", over.String(), "--ramp", ramp.String(),
			"--poll", "2s")) // for real agents 0.5 s, each on its own machine; here they share the cores with the collector
	}
	all.drain() // the installs are ordered
	memory := watchMemory(t, l.Lab)
	sleep(t, ctx, (over+ramp)/2)
	before := all.window()
	t.Logf("%d agents, %d events each over %s, begins spread over %s", agents, 14+2*steps, over, ramp)
	most := memory()
	t.Logf("before the restart: %.0f events/s in %d requests, acknowledged p50 %.1f ms, p99 %.1f ms; RssAnon at most %d MB",
		before.Rate, before.Requests, before.P50, before.P99, most>>20)

	down := time.Now()
	terminate(t, l.Lab)
	if err := l.StartCollector(ctx); err != nil {
		t.Fatal(err)
	}
	away := time.Since(down)
	memory = watchMemory(t, l.Lab)
	drained := all.drain()
	during := all.window()
	t.Logf("away for %.1f s, drained %.1f s after (p99 %.1f ms)", away.Seconds(), drained, during.P99)
	after := all.end(agents * (14 + 2*steps))
	again := memory()
	all.verified()
	t.Logf("after that: %.0f events/s, p50 %.1f ms, p99 %.1f ms; RssAnon at most %d MB", after.Rate, after.P50, after.P99, again>>20)
	for _, f := range []struct {
		what       string
		got, limit float64
	}{
		{"acknowledged, p99 before, ms", before.P99, 250},
		{"drained after the restart, s", drained, 120},
		{"RssAnon at most, MB", float64(max(most, again) >> 20), 600},
	} {
		verdict := "met"
		if f.got > f.limit {
			verdict = "MISSED"
		}
		t.Logf("P8   %d agents: %-30s %8.1f  ≤ %.0f %s", agents, f.what, f.got, f.limit, verdict)
	}
}

// collectorPID is the present collector's.
func collectorPID(t *testing.T, l *lab.Lab) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.Dir, "data", "listeners.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r.PID
}

// watchMemory looks twice a second at what the collector's process has of its own, until the function that it gives says
// the greatest value, in bytes.
func watchMemory(t *testing.T, l *lab.Lab) func() int64 {
	t.Helper()
	status := fmt.Sprintf("/proc/%d/status", collectorPID(t, l))
	var most atomic.Int64
	look := func() {
		f, err := os.Open(status)
		if err != nil {
			return // it has ended
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if v, ok := strings.CutPrefix(lines.Text(), "RssAnon:"); ok {
				kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
				if err == nil && kb<<10 > most.Load() {
					most.Store(kb << 10)
				}
			}
		}
	}
	done := make(chan struct{})
	go func() {
		for {
			look()
			select {
			case <-time.After(500 * time.Millisecond):
			case <-done:
				return
			case <-t.Context().Done():
				return
			}
		}
	}()
	return func() int64 {
		close(done)
		look()
		return most.Load()
	}
}

// terminate stops the collector as an administrator does, and waits a minute at most for its end.
func terminate(t *testing.T, l *lab.Lab) {
	t.Helper()
	pid := collectorPID(t, l)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); syscall.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the collector does not end")
		}
	}
}
