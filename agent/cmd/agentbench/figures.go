// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"provost/agent/internal/host"
	"provost/agent/internal/journal"
	"provost/agent/internal/proc"
	"provost/agent/internal/report"
	steps "provost/agent/internal/run"
	"provost/proto"
	"provost/proto/prototest"
)

const boot = "11111111-1111-4111-8111-111111111111"

// figures makes the measurements of PERFORMANCE.md P12 to P14. end removes what they use.
func figures(o options) (list []figure, end func(), err error) {
	end = func() {}
	if err := proc.BecomeSubreaper(); err != nil {
		return nil, end, err
	}
	fake := &standIn{}
	site := prototest.New(fake)
	var dirs []string
	end = func() {
		fake.close()
		for _, d := range dirs {
			os.RemoveAll(d)
		}
	}
	make := func(below string) *place {
		dir, e := os.MkdirTemp(below, "agentbench-")
		if e == nil {
			dirs = append(dirs, dir)
			e = writeSteps(dir, o.steps)
		}
		err = errors.Join(err, e)
		return &place{dir: dir, steps: o.steps, site: site}
	}
	memory, disk := make(o.memory), make(o.disk)
	if err != nil {
		return nil, end, err
	}
	big := filepath.Join(memory.dir, "big")
	line := []byte(strings.Repeat("a line of output as packages make it ", 2) + "\n")
	if err := os.WriteFile(big, bytes.Repeat(line, (o.mb<<20)/len(line)), 0o600); err != nil {
		return nil, end, err
	}
	return []figure{
		{name: "P12 steps, journal on tmpfs", ratio: "agent / sh loop", target: 1.2, most: true, ours: memory.agent, theirs: memory.loop},
		{name: "P12 steps, journal on a disk", ratio: "agent / sh loop", target: 2, most: true, ours: disk.agent, theirs: disk.loop},
		{name: "P13 steps, journal on a disk", ratio: "sh and curl / agent", target: 4, inverted: true, ours: disk.agent, theirs: disk.curl},
		{name: "P14 capture with stamps to tmpfs", ratio: "cat | tee / agent", target: 0.8, inverted: true, ours: memory.capture(big), theirs: memory.tee(big)},
	}, end, nil
}

// place is a directory with the steps' scripts.
type place struct {
	dir   string
	steps int
	site  *prototest.Collector
	n     int
}

const script = "#!/bin/sh\necho a line\n"

func writeSteps(dir string, n int) error {
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("s%d", i)), []byte(script), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// agent runs the steps as provost-agent does: journal, capture, and reports in the background. What is measured ends with the
// last step.
func (p *place) agent(ctx context.Context) (time.Duration, error) {
	p.n++
	dir := report.Dir(filepath.Join(p.dir, fmt.Sprintf("state%d", p.n)))
	if err := dir.Make(); err != nil {
		return 0, err
	}
	defer os.RemoveAll(string(dir))
	var plan []prototest.Script
	for i := range p.steps {
		plan = append(plan, prototest.Script{Step: proto.Step{Name: fmt.Sprintf("s%d", i), Phase: proto.PhasePre}, Body: script})
	}
	p.site.Define(proto.NodeSpec{Name: "n1", MACs: []string{"52:54:00:00:00:01"}})
	id, _ := p.site.Install("n1", plan)
	begin := time.Now()
	since := func() time.Duration { return time.Since(begin) }
	j, err := journal.Open(string(dir), func() (time.Time, string, time.Duration) { return time.Now(), boot, since() }, journal.Options{Install: id})
	if err != nil {
		return 0, err
	}
	defer j.Close()
	if err := errors.Join(dir.SetIdentity(report.Identity{Node: "n1", Install: id}), dir.SetToken(p.site.Token(id, boot))); err != nil {
		return 0, err
	}
	sender, err := report.New(report.Config{
		Dir: dir, Journal: j, URLs: []string{p.site.URL()}, CA: "sha256:" + proto.Digest(p.site.Authority.CertDER), Say: func(string) {},
		Hello: func() proto.Hello { return proto.Hello{Version: "bench", Env: proto.EnvInstaller} },
		Clock: func() proto.Clock { return proto.Clock{Boot: boot, OffsetMS: since().Milliseconds(), Time: time.Now()} },
	})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); sender.Run(ctx) }()
	defer func() { cancel(); <-done }()
	signed, digest, err := dir.Plan()
	for end := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		signed, digest, err = dir.Plan()
	}
	if err != nil {
		return 0, err
	}
	m := host.Host{}
	processes := func() ([]proc.Process, error) {
		list, err := m.Processes()
		out := make([]proc.Process, len(list))
		for i, q := range list {
			out[i] = proc.Process(q)
		}
		return out, err
	}
	start := time.Now()
	r, err := steps.Run(ctx, steps.Deps{Journal: j, Plan: signed, PlanDigest: digest, Script: dir.Script, StateDir: string(dir), Boot: boot,
		Processes: processes, Cgroup: m.Cgroup(), Log: slog.New(slog.DiscardHandler)}, steps.Options{Phase: proto.PhasePre, WaitFile: filepath.Join(p.dir, "wait")})
	took := time.Since(start)
	if err == nil && r.Outcome != proto.OutcomeOK {
		err = fmt.Errorf("the plan ended %s: %+v", r.Outcome, r.Cause)
	}
	return took, err
}

// shell times a shell script in the place's directory.
func (p *place) shell(ctx context.Context, text string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", text)
	cmd.Dir = p.dir
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	return time.Since(start), nil
}

func (p *place) loop(ctx context.Context) (time.Duration, error) {
	return p.shell(ctx, fmt.Sprintf(`i=0; : >log; while [ $i -lt %d ]; do sh s$i >>log 2>&1 || exit 1; i=$((i+1)); done`, p.steps))
}

// curl is the loop as sites write it, with a report of each step. The answer's status does not matter.
func (p *place) curl(ctx context.Context) (time.Duration, error) {
	return p.shell(ctx, fmt.Sprintf(`i=0; : >log; while [ $i -lt %d ]; do sh s$i >>log 2>&1 || exit 1
curl -s -k -o /dev/null -H 'Content-Type: application/json' -d "{\"step\":\"s$i\",\"status\":$?}" %s/v1/agent/events || exit 1; i=$((i+1)); done`, p.steps, p.site.URL()))
}

func (p *place) capture(big string) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		path := filepath.Join(p.dir, "print")
		if err := os.WriteFile(path, []byte("#!/bin/sh\nexec cat "+big+"\n"), 0o755); err != nil {
			return 0, err
		}
		out, err := os.Create(filepath.Join(p.dir, "captured"))
		if err != nil {
			return 0, err
		}
		defer os.Remove(out.Name())
		defer out.Close()
		start := time.Now()
		r := proc.Run(ctx, proc.Spec{Name: "print", Path: path, Env: os.Environ(), Timeout: 10 * time.Minute, Output: out})
		took := time.Since(start)
		if r.Outcome != proto.OutcomeOK || r.Lost > 0 {
			return 0, fmt.Errorf("the step ended %s, %d bytes were lost: %s", r.Outcome, r.Lost, r.Message)
		}
		return took, nil
	}
}

func (p *place) tee(big string) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		defer os.Remove(filepath.Join(p.dir, "teed"))
		return p.shell(ctx, "cat "+big+" | tee teed >/dev/null")
	}
}

// standIn is the test that the fake collector believes to be part of.
type standIn struct {
	testing.TB
	cleanups []func()
}

func (s *standIn) Helper()           {}
func (s *standIn) Cleanup(f func())  { s.cleanups = append(s.cleanups, f) }
func (s *standIn) Fatal(args ...any) { panic(fmt.Sprint(args...)) }
func (s *standIn) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}
func (s *standIn) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "agentbench: "+format+"\n", args...)
}

func (s *standIn) close() {
	for _, f := range s.cleanups {
		f()
	}
}
