// SPDX-License-Identifier: Apache-2.0

//go:build e2e

// Package e2e_test installs virtual machines with the real programs, from a blank disk to the
// first boot, and breaks what breaks in real life. What a test asserts it asks of the
// collector, as an operator would, or reads from the machine's disk.
//
// Each test is bounded by its own context, and waits for what it wants to see: none needs a fast machine.
package e2e_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"provost/initrd/e2e/lab"
	"provost/initrd/e2e/vm"
	"provost/proto"
)

// TestMain builds what all tests install, where that is needed: no test's own time goes for it.
func TestMain(m *testing.M) {
	if _, err := lab.Installer(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// site makes a lab with one profile, "lab", whose text after the boot settings is given, and
// with the postscripts, and starts its collector. It is kept when the test fails.
func site(t *testing.T, ctx context.Context, profile string, postscripts map[string]string) *lab.Lab {
	t.Helper()
	files := fstest.MapFS{"profiles/lab.yaml": {Mode: 0o644, Data: []byte(`name: lab
family: generic
kernel: images/fast/vmlinuz
initrds: [images/fast/initrd.img, overlay]
` + profile)}}
	for name, text := range postscripts {
		files["postscripts/"+name] = &fstest.MapFile{Mode: 0o755, Data: []byte("#!/bin/sh\n" + text + "\n")}
	}
	return siteOf(t, ctx, files)
}

func siteOf(t *testing.T, ctx context.Context, files fstest.MapFS) *lab.Lab {
	t.Helper()
	l, err := lab.New(ctx, files, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		if t.Failed() {
			t.Logf("consoles, the collector's log and the disks are in %s", l.Dir)
		} else {
			os.RemoveAll(l.Dir)
		}
	})
	if err := l.StartCollector(ctx); err != nil {
		t.Fatal(err)
	}
	return l
}

// no_timer_check: the kernel panics when ticks that it counts in its first moments come late, as they do under emulation on a
// busy machine.
const args = `args: "fast.root={{ .Images }}/fast/rootfs.tar.zst console=ttyS0 quiet mitigations=off nokaslr no_timer_check net.ifnames=0 panic=5"
`

// untilGone is a step of phase post that lasts until the collector answers no more, so that what comes after it is without
// one however late the test saw the step. A minimal Debian speaks TCP by bash alone. 60 s are for one answer: a collector
// that is gone refuses at once.
const untilGone = `at=$(sed -n 's,.*fast\.root=http://\([0-9.]*\):\([0-9]*\)/.*,/dev/tcp/\1/\2,p' /proc/cmdline)
[ -n "$at" ] && command -v bash && command -v timeout || exit 9
while timeout 60 bash -c "exec 3<>$at && echo 'GET / HTTP/1.0' >&3 && echo >&3 && read -r line <&3"; do sleep 1; done`

// machine is one node with its present boot.
type machine struct {
	*lab.Node
	*vm.VM
	t   *testing.T
	ctx context.Context
	lab *lab.Lab
}

// order makes node n1 known, orders its install and does not yet switch it on.
func order(t *testing.T, ctx context.Context, l *lab.Lab) *machine {
	t.Helper()
	n, err := l.AddNode(ctx, "n1", "lab", 1)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Node: n, t: t, ctx: ctx, lab: l}
	m.provost("install", "n1")
	return m
}

func (m *machine) powerOn() {
	m.t.Helper()
	v, err := m.PowerOn(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	m.VM = v
	m.t.Cleanup(v.Kill)
}

// down waits until the machine has rebooted or powered off by itself.
func (m *machine) down() {
	m.t.Helper()
	if err := m.Wait(m.ctx); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) console(re string) string {
	m.t.Helper()
	line, err := m.WaitConsole(m.ctx, regexp.MustCompile(re))
	if err != nil {
		m.t.Fatal(err)
	}
	return line
}

func (m *machine) await(what string, ok func(proto.Node) bool) proto.Node {
	m.t.Helper()
	n, err := m.Await(m.ctx, what, ok)
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

func (m *machine) awaitSummary(re string) proto.Node {
	m.t.Helper()
	return m.await(re, func(n proto.Node) bool { return regexp.MustCompile("^(?:" + re + ")$").MatchString(n.Summary) })
}

func (m *machine) provost(arg ...string) string {
	m.t.Helper()
	out, err := m.lab.Provost(m.ctx, arg...)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

func (m *machine) events() []proto.Event {
	m.t.Helper()
	list, err := m.Events(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	return list.Events
}

// root opens the root file system of the machine, which must be down.
func (m *machine) root() *vm.Root {
	m.t.Helper()
	r, err := vm.OpenRoot(m.Disk(), m.t.TempDir()+"/root")
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// has looks for a file of the machine's disk.
func has(t *testing.T, r *vm.Root, path, want string) {
	t.Helper()
	got, err := r.ReadFile(path)
	if err != nil {
		t.Errorf("on the disk: %v", err)
	} else if !strings.Contains(string(got), want) {
		t.Errorf("on the disk, %s = %q, want %q in it", path, got, want)
	}
}

// hasNot is for the traces of what must not have run.
func hasNot(t *testing.T, r *vm.Root, path string) {
	t.Helper()
	if got, err := r.ReadFile(path); err == nil {
		t.Errorf("on the disk, %s = %q, want no such file", path, got)
	}
}

func is(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

// wantComplete checks that the agent's journals arrived, one of each of its boots: each record once, in order.
func wantComplete(t *testing.T, events []proto.Event, boots int) {
	t.Helper()
	byJournal := map[string][]proto.Event{}
	for _, e := range events {
		if e.Source == proto.SourceAgent {
			byJournal[e.Journal] = append(byJournal[e.Journal], e)
		}
	}
	if len(byJournal) != boots {
		t.Errorf("the agent's events come from %d journals, want %d, one of each boot", len(byJournal), boots)
	}
	for journal, events := range byJournal {
		slices.SortFunc(events, func(a, b proto.Event) int { return int(a.Revision) - int(b.Revision) })
		for i, e := range events {
			if e.Seq != uint64(i+1) {
				t.Errorf("journal %s: record %d arrived as number %d", journal, e.Seq, i+1)
				break
			}
		}
	}
}

// wantOrder checks that stages were reached, the one after the other by their true times.
func wantOrder(t *testing.T, events []proto.Event, stages ...string) {
	t.Helper()
	var last proto.Event
	for _, stage := range stages {
		i := slices.IndexFunc(events, func(e proto.Event) bool { return e.Stage == stage })
		if i < 0 {
			t.Errorf("no event of stage %s", stage)
			continue
		}
		if events[i].At.Before(last.At) {
			t.Errorf("stage %s at %s is before stage %s at %s", stage, events[i].At, last.Stage, last.At)
		}
		last = events[i]
	}
}

// wantStalled looks in the past, for as a status it goes by: twice its time after the stage before, the node is failed.
func wantStalled(t *testing.T, events []proto.Event, stage string) {
	t.Helper()
	if !slices.ContainsFunc(events, func(e proto.Event) bool { return e.Kind == proto.KindStalled && e.Stage == stage }) {
		t.Errorf("no event tells that the node stalled before %s", stage)
	}
}

// wantLog waits, 2 minutes at most, until the log of a step has a text: logs follow the events.
func wantLog(m *machine, step, want string) {
	m.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		log, err := m.lab.Provost(m.ctx, "log", m.Node.Name, step)
		if strings.Contains(log, want) {
			return
		}
		if time.Now().After(deadline) {
			m.t.Errorf("provost log %s %s ends with %q, %v, want %q in it", m.Node.Name, step, log[max(0, len(log)-2000):], err, want)
			return
		}
	}
}

// patience is for one test with a machine: ten times and more what the longest takes on two cores without KVM.
const patience = 20 * time.Minute

func within(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func stepEvent(events []proto.Event, kind proto.Kind, step string) (proto.Event, bool) {
	i := slices.IndexFunc(events, func(e proto.Event) bool { return e.Kind == kind && e.Step == step })
	if i < 0 {
		return proto.Event{}, false
	}
	return events[i], true
}

func logs(install string) string { return fmt.Sprintf("/var/log/provost/%s", install) }
