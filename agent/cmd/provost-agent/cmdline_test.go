// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
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

// booted runs the program as on a machine with this kernel command line and boot id, at most 5 minutes.
func (m *machine) booted(boot string, args ...string) string {
	m.Helper()
	m.write("boot_id", boot+"\n")
	ctx, cancel := context.WithTimeout(m.Context(), 5*time.Minute)
	defer cancel()
	const script = `mount --make-rprivate / && mount --bind "$1" /proc/cmdline && mount --bind "$2" /proc/sys/kernel/random/boot_id && shift 2 && exec provost-agent "$@"`
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", script, "sh", m.path("cmdline"), m.path("boot_id")}, args...)...)
	if m.hasty {
		cmd.Env = hasty()
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.Fatalf("provost-agent %s = %v, want 0; it said:\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// In a boot that installs nothing no phase ever ends, with success or without: what called it must not go on to the disks. Nor
// is a word sent that could be taken for an install's.
func TestInstallsNothing(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("another kernel command line needs root")
	}
	for _, c := range []struct {
		word, says string
		args       []string
	}{
		{"provost.rescue", "this boot is for rescue: no step is run", []string{"run", "--phase", "pre"}},
		{"provost.rescue", "this boot is for rescue: no step is run", []string{"look"}},
		{"provost.look", "no step is run, nothing is installed", []string{"run", "--phase", "pre"}},
		{"provost.look", "no step is run, nothing is installed", []string{"run", "--phase", "post", "--root", "/"}},
		{"provost.look", "no step is run, nothing is installed", []string{"look"}},
	} {
		t.Run(c.word+" "+c.args[0], func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			id, claim := m.c.Install("n1", threePhases)
			m.write("cmdline", "provost.url="+m.c.URL()+" provost.node=n1 "+c.word+" provost.install="+id+" provost.claim="+claim+
				" provost.ca=sha256:"+proto.Digest(m.c.Authority.CertDER)+"\n")
			m.write("boot_id", prototest.Boot1+"\n")
			// It says so at once, and is at it 2 s later.
			const script = `mount --make-rprivate / && mount --bind "$1" /proc/cmdline && mount --bind "$2" /proc/sys/kernel/random/boot_id && shift 2 && exec provost-agent "$@"`
			cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh", m.path("cmdline"), m.path("boot_id")}, append(c.args, "--state", m.state)...)...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			giveUp := time.AfterFunc(5*time.Minute, func() { cmd.Process.Kill() })
			defer giveUp.Stop()
			for said := bufio.NewScanner(stderr); said.Scan(); {
				if !strings.Contains(said.Text(), c.says) {
					continue
				}
				time.Sleep(2 * time.Second)
				cmd.Process.Kill()
				if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() >= 0 {
					t.Errorf("provost-agent %q = %v, want that it stays", c.args, err)
				}
				if got := m.c.Events(id); len(got) > 0 {
					t.Errorf("the collector has %d events, want none", len(got))
				}
				return
			}
			t.Errorf("provost-agent %q = %v, and never said %q", c.args, cmd.Wait(), c.says)
		})
	}
}

// TestLookFindsNothing: a boot that only looks ends its install, by a word that makes the collector block the node.
func TestLookFindsNothing(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("to look at disks needs root")
	}
	m := newMachine(t)
	c := common{state: m.state, urls: m.c.URL(), ca: "sha256:" + proto.Digest(m.c.Authority.CertDER), tokenFile: m.path("token")}
	a, err := c.open(&streams{strings.NewReader(""), io.Discard, io.Discard}, proto.EnvInstaller)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	if _, err := a.background(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.settings.Claim, a.settings.Look = "x", true
	for range 2 { // as behind a switch_root
		a.look(t.Context(), time.Millisecond)
	}
	m.wait(func(e proto.Event) bool { return e.Kind == proto.KindRunEnd })
	var ends []proto.Event
	for _, e := range m.c.Events(m.id) {
		if e.Kind == proto.KindRunEnd {
			ends = append(ends, e)
		}
	}
	if len(ends) != 1 || ends[0].Phase != proto.PhasePre || ends[0].Cause != proto.CauseLoop || ends[0].Outcome.Good() || !strings.Contains(ends[0].Message, "no disk was found") {
		t.Errorf("the collector has %+v, want one end of phase pre", ends)
	}
}

// TestLookCommand: with nothing on the disks the installer goes on, and without a collector, too.
func TestLookCommand(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("another kernel command line needs root")
	}
	m := newMachine(t)
	m.hasty = true // of the second nothing can be delivered
	id, claim := m.c.Install("n1", threePhases)
	for i, url := range []string{m.c.URL(), "https://127.0.0.1:1"} {
		m.write("cmdline", "provost.url="+url+" provost.node=n1 provost.install="+id+" provost.claim="+claim+" provost.ca=sha256:"+proto.Digest(m.c.Authority.CertDER)+"\n")
		m.booted(prototest.Boot1, "look", "--state", m.path(fmt.Sprint("look", i)))
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
	m.hasty = true // it has nothing that would be taken
	out := m.booted(prototest.Boot2, "report", "partitioned", "--state", m.path("impostor"))
	m.hasty = false
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
		ctx, cancel := context.WithTimeout(m.Context(), 5*time.Minute)
		defer cancel()
		const script = `mount --make-rprivate / && mount -t tmpfs t /run && printf %s "$1" >/run/net-eth0.conf && shift && exec provost-agent report here "$@"`
		cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", script, "sh", lease}, args...)...)
		cmd.Env = hasty() // nothing can be delivered
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
