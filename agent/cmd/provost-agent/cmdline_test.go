// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"provost/proto"
	"provost/proto/prototest"
)

// booted runs the program as on a machine with this kernel command line and boot id, at most 60 s.
func (m *machine) booted(boot string, args ...string) string {
	m.Helper()
	m.write("boot_id", boot+"\n")
	ctx, cancel := context.WithTimeout(m.Context(), time.Minute)
	defer cancel()
	const script = `mount --make-rprivate / && mount --bind "$1" /proc/cmdline && mount --bind "$2" /proc/sys/kernel/random/boot_id && shift 2 && exec provost-agent "$@"`
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", script, "sh", m.path("cmdline"), m.path("boot_id")}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.Fatalf("provost-agent %s = %v, want 0; it said:\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// In a boot for rescue no phase ever ends, with success or without: what called it must not go on to the disks. Nor is a word
// sent that could be taken for an install's.
func TestRescueBoot(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("another kernel command line needs root")
	}
	m := newMachine(t)
	id, claim := m.c.Install("n1", threePhases)
	m.write("cmdline", "provost.url="+m.c.URL()+" provost.node=n1 provost.rescue provost.install="+id+" provost.claim="+claim+
		" provost.ca=sha256:"+proto.Digest(m.c.Authority.CertDER)+"\n")
	m.write("boot_id", prototest.Boot1+"\n")
	ctx, cancel := context.WithTimeout(m.Context(), 2*time.Minute)
	defer cancel()
	const script = `mount --make-rprivate / && mount --bind "$1" /proc/cmdline && mount --bind "$2" /proc/sys/kernel/random/boot_id && exec provost-agent run --phase pre --state "$3"`
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script, "sh", m.path("cmdline"), m.path("boot_id"), m.state)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.StdoutPipe()
	if err == nil {
		cmd.Stderr = cmd.Stdout
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	saidSo := false
	for lines := bufio.NewScanner(out); !saidSo && lines.Scan(); {
		saidSo = strings.Contains(lines.Text(), "this boot is for rescue: no step is run")
	}
	if !saidSo {
		t.Errorf("it did not say that this boot is for rescue")
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		t.Errorf("provost-agent run = %v in a boot for rescue, want that it stays", err)
	case <-time.After(time.Second):
		cancel()
		<-ended
	}
	if got := m.c.Events(id); len(got) > 0 {
		t.Errorf("the collector has %d events, want none", len(got))
	}
}

// All that a machine needs to know may stand on its kernel command line. The claim there is the first boot's: a second
// machine that shows it gets nothing, and the first goes on.
func TestKernelCommandLine(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("another kernel command line needs root")
	}
	m := newMachine(t)
	id, claim := m.c.Install("n1", threePhases)
	m.id = id
	m.write("cmdline", "quiet provost.url=https://127.0.0.1:1,"+m.c.URL()+" provost.node=n1 provost.install="+id+" provost.claim="+claim+
		" provost.ca=sha256:"+proto.Digest(m.c.Authority.CertDER)+" console=ttyS0\n")
	m.booted(prototest.Boot1, "run", "--phase", "pre", "--state", m.state)
	out := m.booted(prototest.Boot2, "report", "partitioned", "--state", m.path("impostor"))
	if !m.c.Contested(id) || !strings.Contains(out, "has used this boot's claim; see: provost explain n1") {
		t.Errorf("contested = %t, want true; the second machine said:\n%s", m.c.Contested(id), out)
	}
	if _, err := os.Stat(m.path("impostor/token")); err == nil {
		t.Errorf("the second machine got a token")
	}
	m.booted(prototest.Boot1, "report", "partitioned", "--state", m.state)
	m.wantStory(strings.Join(strings.SplitAfter(wholeStory, "partitioned\n")[:1], ""))
	if err := os.Remove(m.path("cmdline")); err != nil {
		t.Fatal(err)
	}
	m.noSecret(claim)
}

// Where no collector is named the DHCP answer's next server is asked, and stays known when the lease's file is gone; but
// only by a machine that has a pin and a proof.
func TestNextServer(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("another /run needs root")
	}
	m := newMachine(t)
	pin := []string{"--ca", "sha256:" + proto.Digest(m.c.Authority.CertDER)}
	proof := []string{"--token-file", m.path("token")}
	report := func(lease string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(m.Context(), time.Minute)
		defer cancel()
		const script = `mount --make-rprivate / && mount -t tmpfs t /run && printf %s "$1" >/run/net-eth0.conf && shift && exec provost-agent report here "$@"`
		cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", script, "sh", lease}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("provost-agent report %q = %v; it said:\n%s", args, err, out)
		}
		return string(out)
	}
	const lease, asks = "ROOTSERVER='127.9.9.9'\nROOTSERVER='192.0.2.1'\n", "asking the DHCP next server, https://192.0.2.1:8440"
	at := func(dir string, more ...[]string) []string {
		return slices.Concat(append([][]string{{"--state", m.path(dir)}}, more...)...)
	}
	for _, c := range []struct {
		name, lease string
		args        []string
		want        bool
	}{
		{"pin and proof", lease, at("a", pin, proof), true},
		{"no pin", lease, at("b", proof), false},
		{"no proof", lease, at("c", pin), false},
		{"no lease", "", at("d", pin, proof), false},
		{"a URL", lease, at("e", pin, proof, []string{"--url", m.c.URL()}), false},
	} {
		if out := report(c.lease, c.args...); strings.Contains(out, asks) != c.want {
			t.Errorf("%s: it said\n%s\nand asked the next server: want %v", c.name, out, c.want)
		}
	}
	b, err := os.ReadFile(m.path("a/identity.json"))
	if err != nil || !strings.Contains(string(b), `"https://192.0.2.1:8440"`) {
		t.Errorf("identity.json is %s, %v, want the next server's URL in it", b, err)
	}
}
