// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"

	"provost/initrd/e2e/lab"
	"provost/initrd/e2e/vm"
	"provost/proto"
)

// FAI partitions, formats, extracts its base, installs packages with apt and the boot loader with grub-install: all its own,
// from Debian's packages. Its root file system comes over HTTP, where FAI's manual has NFS. fai/build.sh makes what the
// machine fetches, fai/config is a configuration space whose hooks and scripts call the agent.

// fai makes a site that installs with FAI and orders the install of n1.
func fai(t *testing.T, ctx context.Context, profile string, postscripts map[string]string) *machine {
	t.Helper()
	files := fstest.MapFS{"profiles/lab.yaml": {Mode: 0o644, Data: []byte(`name: lab
family: generic
kernel: images/fai/vmlinuz
initrds: [images/fai/initrd.img, overlay]
args: "ip=dhcp root=live:{{ .Images }}/fai/squash.img rd.live.overlay.overlayfs=1 FAI_ACTION=install FAI_FLAGS=verbose,reboot FAI_CONFIG_SRC={{ .Images }}/fai/config.tar.gz fai_images={{ .Images }}/fai hostname=n1 net.ifnames=0 console=ttyS0 mitigations=off nokaslr no_timer_check panic=5"
` + profile)}}
	for name, text := range postscripts {
		files["postscripts/"+name] = &fstest.MapFile{Mode: 0o755, Data: []byte("#!/bin/sh\n" + text + "\n")}
	}
	l := siteOf(t, ctx, files)
	fast, err := lab.Installer(ctx, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(filepath.Dir(fast), "fai")
	// build.sh bounds what it does itself
	build := exec.CommandContext(ctx, "fai/build.sh", images)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		t.Fatalf("making FAI's root file system: %v", err)
	}
	if err := l.AddImages(ctx, "fai", images); err != nil {
		t.Fatal(err)
	}
	n, err := l.AddNode(ctx, "n1", "lab", 1)
	if err != nil {
		t.Fatal(err)
	}
	n.Memory = "3G" // the root file system stays in it
	if err := vm.NewDisk(n.Disk(), 4<<30); err != nil {
		t.Fatal(err)
	}
	m := &machine{Node: n, t: t, ctx: ctx, lab: l}
	m.provost("install", "n1")
	return m
}

// TestFAI: a blank disk becomes a system that says that it runs.
func TestFAI(t *testing.T) {
	ctx := within(t, installerPatience)
	m := fai(t, ctx, `deadline: 40m
steps:
  - {name: early, phase: pre}
  - {name: inside, phase: post}
  - {name: firstboot-unit, phase: post}
  - {name: last, phase: firstboot}
`, map[string]string{
		"early":  `[ -e /.THIS_IS_THE_FAI_NFSROOT ] && ! grep " /target " /proc/mounts`,
		"inside": `hello && dpkg -s grub-pc | grep "^Status: install ok installed" && echo done >/root/inside`,
		"last":   `hello && echo done >/root/last`,
	})
	m.powerOn()
	m.down()
	m.await("sealed", func(n proto.Node) bool { return n.BootAction == proto.BootDisk })
	m.powerOn()
	m.awaitSummary("booted")
	m.await("the stage booted", func(n proto.Node) bool { return n.Stage == "booted" }) // the end of phase firstboot comes before it
	m.Kill()
	stages := map[string]bool{}
	for _, e := range m.events() {
		stages[e.Stage] = true
	}
	for _, want := range []string{"kernel-sent", "initrd-sent", "agent-started", "installer-started", "pre-done", "partitioned", "packages-done", "post-done", "sealed", "disk-booted", "firstboot-done", "booted"} {
		if !stages[want] {
			t.Errorf("stage %s is not in the timeline", want)
		}
	}
}

// TestFAIStepFails: a failing step of phase post holds FAI before its reboot.
func TestFAIStepFails(t *testing.T) {
	ctx := within(t, installerPatience)
	m := fai(t, ctx, `deadline: 40m
steps:
  - {name: gpu-driver, phase: post}
  - {name: never, phase: post}
`, map[string]string{"gpu-driver": `echo "no such device" >&2; exit 7`, "never": `echo done >/root/never`})
	m.powerOn()
	n := m.awaitSummary(`failed\(gpu-driver=7\)`)
	is(t, "waiting", n.Waiting, true)
	is(t, "boot action", n.BootAction, proto.BootInstall)
}
