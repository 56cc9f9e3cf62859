// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"provost/initrd/e2e/lab"
	"provost/proto"
)

// kickstartPost is what a site that boots its nodes by its own PXE has at the end of its kickstart file, after
// "%post --nochroot --erroronfail". /mnt/sysroot is the target, which Anaconda has mounted with its /proc.
const kickstartPost = `set -e
mount -t proc proc "$SYSROOT/proc"
trap 'umount "$SYSROOT/proc"' EXIT
provost-agent run --state "$STATE" --phase post --root "$SYSROOT" --on-failure exit \
	--url "$COLLECTOR" --ca "$CA" --join-key-file "$JOIN_KEY"
provost-agent seal --state "$STATE" --root "$SYSROOT"
`

// TestKickstart: a kickstart's %post on a machine that Provost did not boot calls the agent with a join key. The steps
// run in the target's chroot, the node's status follows, and a failing step makes %post fail, on which Anaconda halts.
func TestKickstart(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test makes a chroot: run it as root")
	}
	ctx := within(t, patience)
	l := siteOf(t, ctx, fstest.MapFS{
		"profiles/good.yaml": {Mode: 0o644, Data: []byte("name: good\nfamily: generic\nboot: external\nattempts: 5\nsteps:\n" +
			"  - {name: motd, phase: post}\n  - {name: hostname, phase: post}\n")},
		"profiles/bad.yaml": {Mode: 0o644, Data: []byte("name: bad\nfamily: generic\nboot: external\nattempts: 5\nsteps:\n" +
			"  - {name: motd, phase: post}\n  - {name: broken, phase: post}\n  - {name: never, phase: post}\n")},
		"postscripts/motd":   {Mode: 0o755, Data: []byte("#!/bin/sh\nset -e\necho \"installed by $PROVOST_PROFILE\" > /etc/motd\nls / \n")},
		"postscripts/broken": {Mode: 0o755, Data: []byte("#!/bin/sh\necho cannot reach the licence server\nexit 3\n")},
		"postscripts/never":  {Mode: 0o755, Data: []byte("#!/bin/sh\ntouch /etc/never\n")},
	})
	provost := func(args ...string) {
		t.Helper()
		if _, err := l.Provost(ctx, args...); err != nil {
			t.Fatal(err)
		}
	}
	provost("node", "add", "ks1", "--mac", ownMAC(t), "--profile", "good")

	for _, tt := range []struct {
		profile, summary string
		exit             int
		ran              []string
	}{
		{"good", "rebooting", 0, []string{"motd", "hostname"}},
		{"bad", "failed(broken=3)", 1, []string{"motd", "broken"}},
	} {
		t.Run(tt.profile, func(t *testing.T) {
			provost("install", "ks1", "--profile", tt.profile, "--yes")
			sysroot := chroot(t)
			cmd := exec.CommandContext(ctx, "unshare", "--mount", "sh", "-c", kickstartPost)
			cmd.Env = append(os.Environ(), "PATH="+l.Bin()+":"+os.Getenv("PATH"), "SYSROOT="+sysroot, "STATE="+t.TempDir(),
				"COLLECTOR="+l.URL(), "CA="+l.CA(), "JOIN_KEY="+l.JoinKey())
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != tt.exit {
				t.Errorf("%%post ended with %d, want %d; it said:\n%s", got, tt.exit, out.String())
			}
			nodes, err := l.Status(ctx, "ks1")
			if err != nil || len(nodes) != 1 {
				t.Fatalf("status of ks1 = %v, %v", nodes, err)
			}
			is(t, "summary", nodes[0].Summary, tt.summary)
			events, err := l.Events(ctx, "ks1")
			if err != nil {
				t.Fatal(err)
			}
			var ran []string
			for _, e := range events.Events {
				if e.Kind == proto.KindStepStart {
					ran = append(ran, e.Step)
				}
			}
			if !slices.Equal(ran, tt.ran) {
				t.Errorf("steps that ran = %q, want %q", ran, tt.ran)
			}
			motd, err := os.ReadFile(filepath.Join(sysroot, "etc/motd"))
			if err != nil || string(motd) != "installed by "+tt.profile+"\n" {
				t.Errorf("/etc/motd of the target = %q, %v", motd, err)
			}
			if _, err := os.Stat(filepath.Join(sysroot, "etc/never")); err == nil {
				t.Error("a step after the failure has run")
			}
			log, err := os.ReadFile(filepath.Join(sysroot, logs(nodes[0].Install), tt.ran[len(tt.ran)-1]+".log"))
			if err != nil || len(log) == 0 {
				t.Errorf("the last step's log in the target = %q, %v", log, err)
			}
			m := &machine{Node: &lab.Node{Name: "ks1"}, t: t, ctx: ctx, lab: l}
			wantLog(m, "motd", "proc") // the listing of the chroot
		})
	}
}

// ownMAC is a MAC address of this machine: the agent tells the collector what its machine has.
func ownMAC(t *testing.T) string {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		_, virtual := os.Stat("/sys/class/net/" + i.Name + "/device")
		if mac, err := proto.NormalMAC(i.HardwareAddr.String()); err == nil && virtual == nil {
			return mac
		}
	}
	t.Fatal("this machine has no network card whose address the agent could tell")
	return ""
}

// chroot makes a target of busybox alone.
func chroot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "var"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chroot", root, "/bin/busybox", "--install", "-s", "/bin").CombinedOutput(); err != nil {
		t.Fatalf("installing busybox: %v: %s", err, out)
	}
	return root
}
