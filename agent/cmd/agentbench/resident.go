// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"provost/proto"
	"provost/proto/prototest"
)

const (
	// settle is how long a process that waits is left alone before it is measured; what it needed to begin is given back then.
	settle = 15 * time.Second
	// phaseLimit bounds the wait for what a process is to do, on a machine however busy.
	phaseLimit = 2 * time.Minute
)

// size is one line of P15: an amount with its target, in megabytes of a million bytes.
type size struct {
	name string
	most float64
	mb   float64
}

func (s size) print(out io.Writer) error {
	verdict := "met"
	if s.mb > s.most {
		verdict = "MISSED"
	}
	_, err := fmt.Fprintf(out, "%-4s %-46s %10.2f MB %26s  <= %.0f %s\n", "P15", s.name, s.mb, "", s.most, verdict)
	return err
}

// sizes measures PERFORMANCE.md P15 of the real program: its file, and what it keeps in memory.
func sizes(ctx context.Context, program string, out io.Writer) (err error) {
	info, err := os.Stat(program)
	if err != nil {
		_, err = fmt.Fprintf(out, "P15  skipped: %v; make build makes the program, -agent says where it is\n", err)
		return err
	}
	list := []size{{"size, stripped", 9, float64(info.Size()) / 1e6}}
	if packed, err := packedSize(ctx, program); errors.Is(err, exec.ErrNotFound) {
		fmt.Fprintln(out, "P15  size, packed by xz -9e: skipped, there is no xz")
	} else if err != nil {
		return err
	} else {
		list = append(list, size{"size, packed by xz -9e", 3, float64(packed) / 1e6})
	}
	more, err := resident(ctx, program)
	if err != nil {
		return err
	}
	for _, s := range append(list, more...) {
		if err := s.print(out); err != nil {
			return err
		}
	}
	return nil
}

// packedSize takes 5 minutes at most for ten megabytes: 10 s on an idle machine.
func packedSize(ctx context.Context, program string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	var n counter
	cmd := exec.CommandContext(ctx, "xz", "-9e", "-c", "-T1", program)
	cmd.Stdout = &n
	err := cmd.Run()
	return int(n), err
}

type counter int

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

const floodStep = "#!/bin/sh\nhead -c 256000000 /dev/zero | tr '\\0' x | fold -w 100\n"

// resident starts watch, has it idle, then a run beside it that floods, and then waits in a hold.
func resident(ctx context.Context, program string) (list []size, err error) {
	fake := &standIn{}
	defer fake.close()
	site := prototest.New(fake)
	dir, err := os.MkdirTemp("", "agentbench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	limit := proto.Duration(10 * time.Minute)
	site.Define(proto.NodeSpec{Name: "n1", MACs: []string{"52:54:00:00:00:01"}})
	id, _ := site.InstallPlan("n1", []prototest.Script{
		{Step: proto.Step{Name: "flood", Phase: proto.PhasePre, Timeout: &limit}, Body: floodStep},
		{Step: proto.Step{Name: "fails", Phase: proto.PhasePre}, Body: "#!/bin/sh\nexit 1\n"},
	}, func(p *proto.Plan) {
		p.OnFailure, p.HoldLimit = proto.OnFailureHold, proto.Duration(proto.DefaultHoldLimit) // its end would power this machine off
	})
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(site.Token(id, boot)), 0o600); err != nil {
		return nil, err
	}
	login := []string{"--state", filepath.Join(dir, "state"), "--url", site.URL(), "--ca", "sha256:" + proto.Digest(site.Authority.CertDER), "--token-file", token}

	watch, err := begin(ctx, program, append([]string{"watch"}, login...)...)
	if err != nil {
		return nil, err
	}
	defer watch.end()
	if err := watch.until(func() bool { return has(site.Events(id), proto.KindAgentStart) }); err != nil {
		return nil, err
	}
	time.Sleep(settle)
	list = append(list, size{"memory of watch, idle", 12, watch.mb("VmRSS")})

	run, err := begin(ctx, program, append([]string{"run", "--phase", "pre"}, login...)...)
	if err != nil {
		return nil, err
	}
	defer run.end()
	if err := run.until(func() bool { return has(site.Events(id), proto.KindHold) }); err != nil {
		return nil, err
	}
	list = append(list, size{"memory of run at most, a step floods", 40, run.mb("VmHWM")}, size{"memory of watch at most, a step floods", 40, watch.mb("VmHWM")})
	info, err := os.Stat(filepath.Join(dir, "state", "logs", "flood.log"))
	if err != nil {
		return nil, err
	}
	if err := watch.until(func() bool { return int64(len(site.Log(id, "flood.log"))) == info.Size() }); err != nil {
		return nil, err
	}
	time.Sleep(settle)
	list = append(list, size{"memory of run, waiting in a hold", 12, run.mb("VmRSS")}, size{"memory of watch, beside a run that waits", 12, watch.mb("VmRSS")})
	return list, errors.Join(run.alive(), watch.alive())
}

func has(events []proto.Event, kind proto.Kind) bool {
	for _, e := range events {
		if e.Kind == kind {
			return true
		}
	}
	return false
}

// process is the real program at work.
type process struct {
	cmd  *exec.Cmd
	said bytes.Buffer
	done chan error
}

func begin(ctx context.Context, program string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, program, args...), done: make(chan error, 1)}
	p.cmd.Stderr = &p.said
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.done <- p.cmd.Wait() }()
	return p, nil
}

// alive is the error of a process that ended though it should not have.
func (p *process) alive() error {
	select {
	case err := <-p.done:
		p.done <- err
		return fmt.Errorf("%s ended: %v: %s", p.cmd.Args[1], err, &p.said)
	default:
		return nil
	}
}

func (p *process) until(over func() bool) error {
	for end := time.Now().Add(phaseLimit); !over(); time.Sleep(50 * time.Millisecond) {
		if err := p.alive(); err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is not where it should be after %s", p.cmd.Args[1], phaseLimit)
		}
	}
	return nil
}

func (p *process) end() {
	p.cmd.Process.Kill()
	<-p.done
}

// mb reads a line of /proc/PID/status, which is in KiB; 0 if the process is gone.
func (p *process) mb(name string) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(b), "\n"+name+":")
	var kib float64
	fmt.Sscan(rest, &kib)
	return kib * 1024 / 1e6
}
