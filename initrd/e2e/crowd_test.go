// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"provost/initrd/e2e/lab"
)

// crowd is agentload: many simulated agents, and what they find out.
type crowd struct {
	t   *testing.T
	cmd *exec.Cmd
	log string
	in  io.Writer
	out *bufio.Reader
}

// crowds are several at a time. In one process with all agents a garbage collection would stop each of them for a second,
// which a real agent, alone on its machine, does not know.
type crowds []*crowd

// crowdSize is how many agents one crowd of several has.
const crowdSize = 2000

// window is what agentload measured in a stretch of time.
type window struct {
	Seconds  float64 `json:"seconds"`
	Events   int     `json:"events"`
	Requests int     `json:"requests"`
	Rate     float64 `json:"rate"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
}

// acknowledged is what the collector has taken upon itself, as agentload says and reads it.
type acknowledged struct {
	Journals map[string]uint64 `json:"journals"`
	Logs     map[string]int64  `json:"logs"`
}

func (a acknowledged) events() (n uint64) {
	for _, last := range a.Journals {
		n += last
	}
	return n
}

// crowded is a site for a crowd, with the program that nobody ships.
type crowded struct {
	*lab.Lab
	agentload string // its path
}

// crowdSite is a site with a running collector and the profile "load", which has the 23 steps that agentload plays.
func crowdSite(t *testing.T, ctx context.Context) *crowded {
	t.Helper()
	var p strings.Builder
	p.WriteString("name: load\nfamily: generic\nboot: external\nattempts: 3\nsteps:\n")
	for i := range 23 {
		phase := "post"
		switch {
		case i < 2:
			phase = "pre"
		case i >= 20:
			phase = "firstboot"
		}
		fmt.Fprintf(&p, "  - {name: step-%02d, script: load, phase: %s}\n", i+1, phase)
	}
	c := &crowded{agentload: filepath.Join(t.TempDir(), "agentload")}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", c.agentload, "provost/agent/cmd/agentload").CombinedOutput(); err != nil {
		t.Fatalf("building agentload: %v: %s", err, out)
	}
	c.Lab = siteOf(t, ctx, fstest.MapFS{
		"profiles/load.yaml": {Mode: 0o644, Data: []byte(p.String())},
		"postscripts/load":   {Mode: 0o755, Data: []byte("#!/bin/sh\necho the crowd never runs this\n")},
	})
	return c
}

// load runs a command of agentload to its end and gives its output.
func (l *crowded) load(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, l.agentload, args...).CombinedOutput()
	return string(out), err
}

// checkDatabase looks whether the database, which nobody has open, is sound. It changes nothing.
func (l *crowded) checkDatabase(t *testing.T, ctx context.Context) {
	t.Helper()
	cmd := exec.CommandContext(ctx, filepath.Join(l.Bin(), "provostd"), "db", "check", "--config", filepath.Join(l.Dir, "provostd.yaml"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the database is not sound: %v: %s", err, out)
	}
}

// startCrowd lets agents loose on a collector. What they say on stderr goes to Dir/agentload.log.
func startCrowd(t *testing.T, ctx context.Context, l *crowded, url string, args ...string) *crowd {
	t.Helper()
	path := filepath.Join(l.Dir, "agentload.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args = append([]string{"run", "--url", url, "--ca", l.CA(), "--join-key-file", l.JoinKey()}, args...)
	c := &crowd{t: t, log: path, cmd: exec.CommandContext(ctx, l.agentload, args...)}
	c.cmd.Stderr = log
	// Real agents have machines of their own. Here memory is cheaper than time, and one processor looks for work in vain less often.
	c.cmd.Env = append(os.Environ(), "GOGC=400", "GOMAXPROCS=1")
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGTERM) }
	c.cmd.WaitDelay = 10 * time.Second
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.out = in, bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	return c
}

// ask gives agentload a command and reads its answer.
func (c *crowd) ask(command string, answer any) {
	c.t.Helper()
	c.command(command)
	c.read(answer)
}

func (c *crowd) command(command string) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.in, command); err != nil {
		c.t.Fatalf("agentload %s: %v; it said: %s", command, err, c.said())
	}
}

// said is the end of what it told people.
func (c *crowd) said() string {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

func (c *crowd) read(answer any) {
	c.t.Helper()
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		c.t.Fatalf("agentload has gone: %v; it said: %s", err, c.said())
	}
	if err := json.Unmarshal(line, answer); err != nil {
		c.t.Fatalf("agentload says %.200q: %v", line, err)
	}
}

// result is the end of a crowd and what became of its word.
func (c *crowd) result(events int) window {
	w := crowds{c}.end(events)
	crowds{c}.verified()
	return w
}

// ask gives every crowd a command and reads the answers.
func ask[T any](all crowds, command string) []T {
	answers := make([]T, len(all))
	for _, c := range all {
		c.command(command)
	}
	for i, c := range all {
		c.read(&answers[i])
	}
	return answers
}

// drain waits until everything that exists now is acknowledged, and gives the seconds that it took.
func (all crowds) drain() (seconds float64) {
	for _, d := range ask[struct {
		Drained float64 `json:"drained"`
	}](all, "drain") {
		seconds = max(seconds, d.Drained)
	}
	return seconds
}

// window is what was measured since the last one.
func (all crowds) window() window { return together(ask[window](all, "window")) }

// end waits until every agent has come to its end, and gives the last window.
func (all crowds) end(events int) window {
	var last []window
	for _, c := range all {
		var e struct {
			Events int    `json:"events"`
			Window window `json:"window"`
		}
		c.read(&e)
		last, events = append(last, e.Window), events-e.Events
	}
	is(all[0].t, "events that are missing", events, 0)
	return together(last)
}

// verified waits until it was looked whether everything is there, and fails the test by what was lost, doubled or out of order.
func (all crowds) verified() {
	for _, c := range all {
		var r struct {
			Faults []string `json:"faults"`
			Count  int      `json:"fault_count"`
		}
		c.read(&r)
		for _, f := range r.Faults {
			c.t.Error(f)
		}
		is(c.t, "faults", r.Count, 0)
		if err := c.cmd.Wait(); err != nil {
			c.t.Errorf("agentload: %v", err)
		}
	}
}

// together sums windows of the same time. Its quantiles are the worst crowd's: those of all are not above them.
func together(windows []window) (sum window) {
	for _, w := range windows {
		sum.Seconds, sum.Events, sum.Requests, sum.Rate = max(sum.Seconds, w.Seconds), sum.Events+w.Events, sum.Requests+w.Requests, sum.Rate+w.Rate
		sum.P50, sum.P99, sum.Max = max(sum.P50, w.P50), max(sum.P99, w.P99), max(sum.Max, w.Max)
	}
	return sum
}

// stop ends the agents in the middle of their work, if they are still at it.
func (c *crowd) stop() {
	if c.cmd.ProcessState == nil {
		c.cmd.Process.Signal(syscall.SIGTERM)
		c.cmd.Wait() // WaitDelay counts from the end of the test's context
	}
}

// count is a number that a long run sets in the environment.
func count(t *testing.T, env string, def int) int {
	t.Helper()
	s := os.Getenv(env)
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number", env, s)
	}
	return n
}

func sleep(t *testing.T, ctx context.Context, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
}
