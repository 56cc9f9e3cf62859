// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"provost/proto"
)

// TestHappy installs a blank disk and boots it.
func TestHappy(t *testing.T) {
	ctx := within(t, patience)
	l := site(t, ctx, args+`steps:
  - {name: greet, phase: post}
  - {name: hostname, phase: post}
  - {name: firstboot-unit, phase: post}
  - {name: first, phase: firstboot}
`, map[string]string{
		"greet": `echo "hello from $PROVOST_NODE in $PROVOST_PHASE"; echo post > /etc/lab-post`,
		"first": `echo "up as $(hostname)"; cp /proc/sys/kernel/random/boot_id /var/lib/lab-first`,
	})
	m := order(t, ctx, l)
	m.powerOn()
	m.console(`fast: installed after .*rebooting`)
	is(t, "boot action before the reboot", m.await("sealed", func(n proto.Node) bool { return n.BootAction == proto.BootDisk }).BootAction, proto.BootDisk)
	m.down()
	m.powerOn()
	n := m.awaitSummary("booted")
	is(t, "attempt", n.Attempt, 1)
	if len(n.Warnings) > 0 {
		t.Errorf("warnings = %q, want none", n.Warnings)
	}
	events := m.events()
	wantComplete(t, events, 2)
	wantOrder(t, events, "bootscript-sent", "kernel-sent", "agent-started", "installer-started", "partitioned",
		"packages-done", "post-started", "post-done", "sealed", "disk-booted", "firstboot-started", "firstboot-done")
	for step, want := range map[string]string{"greet": "hello from n1 in post", "first": "up as n1"} {
		wantLog(m, step, want)
	}

	if err := m.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	root := m.root()
	has(t, root, "/etc/lab-post", "post\n")
	has(t, root, "/var/lib/lab-first", "-")
	has(t, root, logs(n.Install)+"/greet.log", "hello from n1 in post")
	has(t, root, logs(n.Install)+"/first.log", "up as n1")
	installer := events[slices.IndexFunc(events, func(e proto.Event) bool { return e.Kind == proto.KindSealed })].Journal
	has(t, root, "/var/lib/provost/journal."+installer+"/00000000000000000001.log", `"kind":"sealed"`)
	has(t, root, "/var/lib/provost/journal/00000000000000000001.log", `"stage":"booted"`)
}

// TestStepFailsWithItsCode: a postscript that fails ends the install at once, by its name and
// its exit status; its output is on the frontend and nothing after it has run.
func TestStepFailsWithItsCode(t *testing.T) {
	ctx := within(t, patience)
	l := site(t, ctx, args+`steps:
  - {name: before, phase: post}
  - {name: licence, phase: post}
  - {name: after, phase: post}
  - {name: first, phase: firstboot}
`, map[string]string{
		"before":  `touch /etc/lab-before`,
		"licence": `echo "no licence server at 10.9.9.9" >&2; exit 4`,
		"after":   `touch /etc/lab-after`,
		"first":   `touch /etc/lab-first`,
	})
	m := order(t, ctx, l)
	m.powerOn()
	n := m.awaitSummary(`failed\(licence=4\)`)
	seen := time.Now()
	is(t, "status", n.Status, proto.StatusFailed)
	is(t, "waiting", m.await("waiting", func(n proto.Node) bool { return n.Waiting }).Waiting, true)
	if n.Cause == nil {
		t.Fatal("the node has no cause")
	}
	is(t, "kind", n.Cause.Kind, proto.CauseStep)
	is(t, "exit status", n.Cause.Exit, 4)
	is(t, "phase", n.Cause.Phase, proto.PhasePost)
	if !slices.Contains(n.Cause.Tail, "no licence server at 10.9.9.9") {
		t.Errorf("the cause's tail = %q, want the script's last line", n.Cause.Tail)
	}
	events := m.events()
	end, ok := stepEvent(events, proto.KindStepEnd, "licence")
	if late := seen.Sub(end.At); !ok || late > 30*time.Second { // 10 s are promised, on machines that are not emulated
		t.Errorf("the failure was seen %s after it (event there: %v), want 30 s at most", late, ok)
	}
	for _, step := range []string{"after", "first"} {
		if e, ok := stepEvent(events, proto.KindStepStart, step); ok {
			t.Errorf("step %s was started at %s, after the failure", step, e.At)
		}
	}
	wantLog(m, "licence", "no licence server at 10.9.9.9")
	m.console(`licence.*4`) // it holds, and says why where a person at the machine looks

	m.Kill()
	root := m.root()
	has(t, root, "/etc/lab-before", "")
	hasNot(t, root, "/etc/lab-after")
	hasNot(t, root, "/etc/lab-first")
	has(t, root, logs(n.Install)+"/licence.log", "no licence server at 10.9.9.9")
}

// TestCollectorDownFromSealToFirstBoot: the collector dies before the seal and comes back
// after the first boot. The node gets through without it, and without a resolver: the seal
// is waited for and then let go, PXE finds nobody and the firmware goes on to the disk. All
// that happened arrives afterwards.
func TestCollectorDownFromSealToFirstBoot(t *testing.T) {
	ctx := within(t, patience)
	l := site(t, ctx, strings.Replace(args, "fast.root", "fast.noresolv fast.root", 1)+`seal-wait: 20s
steps:
  - {name: slow, phase: post, timeout: 5m}
  - {name: last, phase: post}
  - {name: firstboot-unit, phase: post}
  - {name: first, phase: firstboot}
`, map[string]string{
		"slow":  untilGone,
		"last":  `echo done without the collector`,
		"first": `echo "lab: first-boot step runs" > /dev/console; echo "up"`,
	})
	m := order(t, ctx, l)
	m.powerOn()
	m.console(`resolver 192\.0\.2\.1`)
	m.await("in step slow", func(n proto.Node) bool { return n.Step == "slow" })
	l.KillCollector()
	m.down()
	m.powerOn()
	m.console(`lab: first-boot step runs`)

	if err := l.StartCollector(ctx); err != nil {
		t.Fatal(err)
	}
	n, err := m.Now(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if n.Status == proto.StatusFailed || n.Status == proto.StatusStalled {
		t.Errorf("status after the collector's own absence = %s, want what was last known, or better", n.Summary)
	}
	n = m.awaitSummary("booted")
	is(t, "boot action", n.BootAction, proto.BootDisk)
	is(t, "attempt", n.Attempt, 1)
	events := m.events()
	wantComplete(t, events, 2)
	wantOrder(t, events, "post-started", "post-done", "sealed", "disk-booted", "firstboot-started", "firstboot-done")
	wantLog(m, "last", "done without the collector") // the output of when the collector was away
}
