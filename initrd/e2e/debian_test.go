// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"provost/initrd/e2e/lab"
	"provost/proto"
)

// The tests here run debian-installer: Debian's kernel and initrd as they are but for the overlay, its main menu, netcfg,
// network-preseed, anna, in-target and finish-install's hooks, told what to do by the preseed file that ships. Only
// what stands between anna and finish-install (partman, base-installer, grub-installer) is a stand-in of ours, a udeb that
// anna fetches from a mirror of ours, hence their names: see debian/build.sh. With PROVOST_MIRROR=http://HOST/debian there is none:
// debian-installer takes everything from that mirror, which must have the installer's packages, too.

const debianProfile = `name: lab
family: debian
kernel: images/debian/linux
initrds: [images/debian/initrd.gz, overlay]
answer: preseed-debian.tmpl
args: "auto=true url={{ .Answer }} DEBIAN_FRONTEND=text language=en country=US console=ttyS0 standin/root={{ .Images }}/fast/rootfs.tar.zst debian-installer/allow_unauthenticated=true anna/no_kernel_modules=true mitigations=off nokaslr no_timer_check panic=5"
`

// debian makes a site that installs with debian-installer. mirror is one of those that build.sh makes.
func debian(t *testing.T, ctx context.Context, mirror, args, profile string, postscripts map[string]string) *machine {
	t.Helper()
	text := strings.Replace(debianProfile, "auto=true", strings.TrimSpace("auto=true "+args), 1) + profile
	files := fstest.MapFS{"profiles/lab.yaml": {Mode: 0o644, Data: []byte(text)}}
	for name, text := range postscripts {
		files["postscripts/"+name] = &fstest.MapFile{Mode: 0o755, Data: []byte("#!/bin/sh\n" + text + "\n")}
	}
	l := siteOf(t, ctx, files)
	fast, err := lab.Installer(ctx, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(filepath.Dir(fast), "debian")
	// build.sh bounds what it does itself
	build := exec.CommandContext(ctx, "debian/build.sh", images, fast)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		t.Fatalf("fetching debian-installer: %v", err)
	}
	if err := l.AddImages(ctx, "debian", images); err != nil {
		t.Fatal(err)
	}
	n, err := l.AddNode(ctx, "n1", "lab", 1)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Node: n, t: t, ctx: ctx, lab: l}
	if full := os.Getenv("PROVOST_MIRROR"); full != "" {
		m.provost("node", "set", "n1", "--attr", "source="+full)
	} else if mirror != "" {
		m.provost("node", "set", "n1", "--attr", "source="+l.Images()+"/debian/"+mirror)
	}
	m.provost("install", "n1")
	return m
}

// installerPatience is for one install by debian-installer or FAI: five times what the former took on two busy cores without KVM.
const installerPatience = 50 * time.Minute

// TestDebianInstallerWithStandInUdeb: a blank disk becomes a system that says that it runs.
func TestDebianInstallerWithStandInUdeb(t *testing.T) {
	ctx := within(t, installerPatience)
	m := debian(t, ctx, "mirror", "priority=critical", `steps:
  - {name: early, phase: pre}
  - {name: inside, phase: post}
  - {name: firstboot-unit, phase: post}
  - {name: last, phase: firstboot}
`, map[string]string{
		"early":  `command -v main-menu && ! grep " /target " /proc/mounts`,
		"inside": `[ -e /proc/self ] && . /etc/os-release && echo "in $ID" && echo done >/root/inside`,
		"last":   `echo done >/root/last`,
	})
	m.powerOn()
	m.down()
	m.await("sealed", func(n proto.Node) bool { return n.BootAction == proto.BootDisk })
	m.powerOn()
	m.awaitSummary("booted")
	m.await("the stage booted", func(n proto.Node) bool { return n.Stage == "booted" }) // the end of phase firstboot comes before it

	var stages []string
	for _, e := range m.events() {
		if e.Stage != "" {
			stages = append(stages, e.Stage)
		}
	}
	t.Logf("stages: %s", strings.Join(stages, " "))
	rest := strings.Join(stages, " ") + " "
	for _, want := range []string{"kernel-sent", "initrd-sent", "agent-started", "answer-sent", "installer-started", "pre-done", "partitioned", "packages-done", "post-done", "sealed", "disk-booted", "firstboot-done", "booted"} {
		if !strings.Contains(rest, want+" ") {
			t.Errorf("stage %s is not in the timeline", want)
		}
	}
	wantLog(m, "installer", "preseed: running preseed command partman/early_command") // what it chose, the stand-in looks at
	m.Kill()
	has(t, m.root(), "/root/inside", "done")
}

// TestDebianInstallerWithStandInUdebStepFails: a late step that fails holds the installer before its reboot, and the installer's
// own log is on the frontend.
func TestDebianInstallerWithStandInUdebStepFails(t *testing.T) {
	ctx := within(t, installerPatience)
	m := debian(t, ctx, "mirror", "priority=critical", `steps:
  - {name: good, phase: post}
  - {name: gpu-driver, phase: post}
  - {name: never, phase: post}
`, map[string]string{
		"good":       `echo fine`,
		"gpu-driver": `echo "no such device" >&2; exit 7`,
		"never":      `echo done >/root/never`,
	})
	m.powerOn()
	n := m.awaitSummary(`failed\(gpu-driver=7\)`)
	is(t, "waiting", n.Waiting, true)
	if !strings.Contains(strings.Join(n.Cause.Tail, "\n"), "no such device") {
		t.Errorf("the cause's last lines = %q, want what the step printed", n.Cause.Tail)
	}
	wantLog(m, "installer", "preseed: running preseed command preseed/late_command") // debian-installer's syslog
	is(t, "boot action", n.BootAction, proto.BootInstall)
}

// TestDebianInstallerPackageMissing: anna cannot fetch what the mirror's index names.
func TestDebianInstallerPackageMissing(t *testing.T) {
	ctx := within(t, installerPatience)
	m := debian(t, ctx, "broken", "priority=critical", "", nil)
	m.powerOn()
	n := m.awaitSummary(`failed\(installer\)`)
	if !strings.Contains(n.Cause.Message, "package retrieval failed") {
		t.Errorf("cause = %q, want that the retrieval of a package failed", n.Cause.Message)
	}
}

// TestDebianInstallerQuestion: a question that the preseed file does not answer waits for somebody, and is named.
func TestDebianInstallerQuestion(t *testing.T) {
	ctx := within(t, installerPatience)
	m := debian(t, ctx, "", "priority=high hostname=n1 domain=lab DEBCONF_DEBUG=developer", "", nil) // no variable source: no mirror/…
	m.powerOn()
	n := m.await("stalled", func(n proto.Node) bool { return n.Status == proto.StatusStalled })
	// explain exits 1 for a node that is stalled
	got, _ := m.lab.Provost(ctx, "explain", "n1")
	if got = strings.Join(strings.Fields(got), " "); !strings.Contains(got, "not answered: mirror/http/countries") {
		t.Errorf("provost explain of %s = %q, want the question mirror/http/countries", n.Summary, got)
	}
}
