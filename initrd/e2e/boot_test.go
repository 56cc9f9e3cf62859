// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"provost/initrd/e2e/vm"
	"provost/proto"
)

const sequence = `family: generic
stages:
  - {name: ordered, within: 5m, sources: [operator]}
  - {name: bootscript-sent, within: 5m, sources: [boot]}
  - {name: kernel-sent, within: 5m, sources: [boot]}
  - {name: agent-started, within: 5m, sources: [agent]}
  - {name: post-started, within: 5m, sources: [agent]}
  - {name: sealed, within: 5m, sources: [agent]}
  - {name: disk-booted, within: 5m, sources: [agent]}
  - {name: booted, sources: [agent]}
`

// shortSite is for a node that comes no further than to a stage: there a sequence of its own has little time for the next one.
func shortSite(profile, stage string) fstest.MapFS {
	return fstest.MapFS{
		"profiles/lab.yaml": {Mode: 0o644, Data: []byte("name: lab\nfamily: generic\nkernel: images/fast/vmlinuz\ninitrds: [images/fast/initrd.img, overlay]\n" +
			profile)},
		"sequences/generic.yaml": {Mode: 0o644, Data: []byte(strings.Replace(sequence, stage+", within: 5m", stage+", within: 20s", 1))},
	}
}

// TestInstallerReboots: an installer that always reboots is let in as often as the profile says, and no more.
func TestInstallerReboots(t *testing.T) {
	ctx := within(t, patience)
	l := site(t, ctx, args+`attempts: 2
steps:
  - {name: reset, phase: post}
`, map[string]string{"reset": `echo 1 >/proc/sys/kernel/sysrq; sync; echo b >/proc/sysrq-trigger; sleep 60`})
	m := order(t, ctx, l)
	for attempt := 1; attempt <= 2; attempt++ {
		m.powerOn()
		m.down()
		n, err := m.Now(ctx)
		if err != nil {
			t.Fatal(err)
		}
		is(t, "attempt", n.Attempt, attempt)
		is(t, "boot action", n.BootAction, proto.BootInstall)
	}
	before := m.checksum()
	m.powerOn()
	n := m.awaitSummary(`failed\(loop=3\)`)
	is(t, "kind", n.Cause.Kind, proto.CauseLoop)
	is(t, "boot action", n.BootAction, proto.BootBlock)
	m.console(`n1 is blocked and boots nothing`)
	m.console(`provost install n1`)
	m.Kill()
	is(t, "checksum of the disk", m.checksum(), before)
}

// TestDiskNeverBoots: the installer was done, and the disk that it left does not boot.
func TestDiskNeverBoots(t *testing.T) {
	ctx := within(t, patience)
	l := siteOf(t, ctx, shortSite(args+"steps: []\n", "sealed"))
	m := order(t, ctx, l)
	m.powerOn()
	m.down()
	wipe, err := os.OpenFile(m.Disk(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wipe.Write(make([]byte, 4<<20)); err != nil {
		t.Fatal(err)
	}
	if err := wipe.Close(); err != nil {
		t.Fatal(err)
	}
	m.powerOn()
	m.console(`n1 boots from disk`)
	n := m.awaitSummary(`failed\(stage-deadline\)`)
	wantStalled(t, m.events(), "disk-booted")
	is(t, "name of the cause", n.Cause.Name, "disk-booted")
	is(t, "boot action", n.BootAction, proto.BootDisk)
	is(t, "attempt", n.Attempt, 1)
}

// TestKernelDies: a kernel that panics never becomes an agent. One that stays down is stalled at the stage that did not
// come; one that reboots is a loop.
func TestKernelDies(t *testing.T) {
	panics := strings.Replace(args, "panic=5", "rdinit=/nothing panic=TIME", 1)
	t.Run("and stays", func(t *testing.T) {
		ctx := within(t, patience)
		l := siteOf(t, ctx, shortSite(strings.Replace(panics, "TIME", "0", 1)+"steps: []\n", "kernel-sent"))
		m := order(t, ctx, l)
		m.powerOn()
		m.console(`Kernel panic`)
		n := m.awaitSummary(`failed\(stage-deadline\)`)
		wantStalled(t, m.events(), "agent-started")
		is(t, "name of the cause", n.Cause.Name, "agent-started")
		is(t, "stage", n.Stage, "kernel-sent")
	})
	t.Run("and reboots", func(t *testing.T) {
		ctx := within(t, patience)
		l := site(t, ctx, strings.Replace(panics, "TIME", "1", 1)+"steps: []\n", nil)
		m := order(t, ctx, l)
		m.powerOn()
		m.down()
		m.powerOn()
		n := m.awaitSummary(`failed\(loop=2\)`)
		is(t, "boot action", n.BootAction, proto.BootBlock)
		if !strings.Contains(n.Cause.Message, "asked for another boot script") {
			t.Errorf("message = %q", n.Cause.Message)
		}
	})
}

// TestUnknownMachine: whatever the site does with machines that nobody has added, it installs none of them.
func TestUnknownMachine(t *testing.T) {
	const blank = `No bootable device` // the firmware's word of the disk
	for _, c := range []struct{ policy, console, end, status string }{
		{"ignore", `is no node here, booting from disk`, blank, ""},
		{"discover", `provost node adopt 52:54:00:00:90:09 NAME`, `press a key to ask again`, "discovered"},
		{"lab", `52-54-00-00-90-09 boots from disk`, blank, "defined"},
	} {
		t.Run(c.policy, func(t *testing.T) {
			ctx := within(t, patience)
			l := site(t, ctx, args+"steps: []\n", nil)
			l.KillCollector()
			if err := l.AddSettings("unknown-nodes: " + c.policy + "\n"); err != nil {
				t.Fatal(err)
			}
			if err := l.StartCollector(ctx); err != nil {
				t.Fatal(err)
			}
			n, err := l.Stranger("n9", 9)
			if err != nil {
				t.Fatal(err)
			}
			m := &machine{Node: n, t: t, ctx: ctx, lab: l}
			before := m.checksum()
			m.powerOn()
			m.console(c.console)
			m.console(c.end)
			m.touchedNothing(before)
			nodes, err := l.Status(ctx, "52-54-00-00-90-09")
			if c.status == "" {
				if err == nil && len(nodes) > 0 {
					t.Errorf("nodes = %+v, want none", nodes)
				}
				return
			}
			if err != nil || len(nodes) != 1 || string(nodes[0].Status) != c.status || nodes[0].Install != "" {
				t.Fatalf("nodes = %+v, %v, want one that is %s", nodes, err, c.status)
			}
			if c.policy != "discover" {
				return
			}
			m.provost("node", "adopt", n.MAC(), "n9", "--profile", "lab")
			m.provost("install", "n9")
			m.powerOn()
			m.console(`installing n9, attempt 1`)
			m.await("in its installer", func(n proto.Node) bool { return n.Status == proto.StatusInstalling })
		})
	}
}

// TestUEFI: the firmware's own boot loader ends, the kernel is an EFI program, and its initrds come by name.
func TestUEFI(t *testing.T) {
	ctx := within(t, patience)
	l := site(t, ctx, args+"steps:\n  - {name: here, phase: post}\n  - {name: firstboot-unit, phase: post}\n",
		map[string]string{"here": `[ -d /sys/firmware/efi ] && echo by UEFI`})
	m := order(t, ctx, l)
	m.UEFI = true
	m.powerOn()
	m.down()
	n := m.await("to boot from disk", func(n proto.Node) bool { return n.BootAction == proto.BootDisk })
	is(t, "attempt", n.Attempt, 1)
	wantOrder(t, m.events(), "bootscript-sent", "kernel-sent", "initrd-sent", "agent-started", "post-done", "sealed")
	m.UEFI = false // the fast installer's boot loader is for BIOS
	m.powerOn()
	m.awaitSummary("booted")
}

// TestSanboot: iPXE itself starts the disk.
func TestSanboot(t *testing.T) {
	ctx := within(t, patience)
	l := site(t, ctx, args+"local-boot: sanboot\nsteps:\n  - {name: firstboot-unit, phase: post}\n", nil)
	m := order(t, ctx, l)
	m.powerOn()
	m.down()
	m.powerOn()
	m.console(`n1 boots from disk`)
	m.console(`Booting from SAN device 0x80`)
	m.awaitSummary("booted")
}

// TestRescue: the installer's initrd is up, nothing was touched, and the install is as it was before.
func TestRescue(t *testing.T) {
	ctx := within(t, patience)
	l := site(t, ctx, args+"steps: []\n", nil)
	m := order(t, ctx, l)
	m.provost("boot", "n1", "rescue", "--reason", "look at its disk", "--yes")
	before := m.checksum()
	m.powerOn()
	m.console(`rescue of n1: nothing is installed`)
	// The agent says it to whoever called it, and to the consoles, there again every minute: the installer waits for it.
	for strings.Count(m.Console(), `this boot is for rescue: no step is run`) < 3 {
		sleep(t, ctx, time.Second)
	}
	m.touchedNothing(before)
	n, err := m.Now(ctx)
	if err != nil {
		t.Fatal(err)
	}
	is(t, "status", n.Status, proto.StatusOrdered)
	is(t, "attempt", n.Attempt, 0)
}

// TestWithoutNames: no resolver, no hosts file, and nothing that answers: not in the installer, not on the first boot, not on
// the frontend. The machine does not even ask: none of its packets goes to a name server.
func TestWithoutNames(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test takes the resolver's files from the collector: run it as root")
	}
	ctx := within(t, patience)
	l := site(t, ctx, strings.Replace(args, "fast.root", "fast.noresolv fast.root", 1)+`steps:
  - {name: cut, phase: pre}
  - {name: cut-target, phase: post}
  - {name: firstboot-unit, phase: post}
  - {name: named, phase: firstboot}
`, map[string]string{
		"cut":        `rm -f /etc/resolv.conf /etc/hosts; ping -c 1 -W 1 localhost 2>&1 | grep 'bad address'`,
		"cut-target": `rm -f /etc/resolv.conf /etc/hosts && : >/etc/resolv.conf`,
		"named":      `[ ! -s /etc/resolv.conf ] && [ ! -e /etc/hosts ]`,
	})
	l.KillCollector()
	if err := l.WithoutNames(); err != nil {
		t.Fatal(err)
	}
	if err := l.StartCollector(ctx); err != nil {
		t.Fatal(err)
	}
	m := order(t, ctx, l)
	m.Capture = filepath.Join(l.Dir, "capture.installer")
	m.powerOn()
	m.down()
	wantNoNames(t, m.Capture)
	m.Capture = filepath.Join(l.Dir, "capture.disk")
	m.powerOn()
	m.awaitSummary("booted")
	m.Kill()
	wantNoNames(t, m.Capture)
	wantComplete(t, m.events(), 2)
}

// wantNoNames looks for questions to a name server, and for those that DNS's multicast relatives ask.
func wantNoNames(t *testing.T, capture string) {
	t.Helper()
	packets, err := vm.ReadCapture(capture)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(packets, vm.Packet{UDP: true, From: 68, To: 67}) {
		t.Errorf("not even DHCP is among the %d packets of %s: this test tests nothing", len(packets), capture)
	}
	const dns, mdns, llmnr = 53, 5353, 5355
	for _, p := range packets {
		if p.To == dns || p.To == mdns || p.To == llmnr {
			t.Errorf("%s: the machine asks for a name: %+v", capture, p)
		}
	}
}
