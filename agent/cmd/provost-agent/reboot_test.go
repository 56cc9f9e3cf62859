// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"provost/proto"
	"provost/proto/prototest"
)

// downs runs the program as the first process of a PID namespace, where reboot(2) ends that namespace by a signal that says
// how (pid_namespaces(7)): SIGHUP for a restart, SIGINT for switching off. It gives what the program said.
func (m *machine) downs(want syscall.Signal, boot string, args ...string) string {
	m.Helper()
	m.write("boot_id", boot+"\n")
	ctx, cancel := context.WithTimeout(m.Context(), 5*time.Minute) // a sync of all disks is in it
	defer cancel()
	const script = `mount --make-rprivate / && mount -t proc proc /proc && mount --bind "$1" /proc/cmdline && mount --bind "$2" /proc/sys/kernel/random/boot_id && shift 2 && exec provost-agent "$@"`
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", script, "sh", m.path("cmdline"), m.path("boot_id")}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case want == 0 && err == nil:
	case want != 0 && errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() && exit.Sys().(syscall.WaitStatus).Signal() == want:
	default:
		m.Fatalf("provost-agent %s = %v, want signal %d; it said:\n%s", strings.Join(args, " "), err, want, out)
	}
	return string(out)
}

const boot3 = "33333333-3333-4333-8333-333333333333"

// TestReboots: a step of phase pre restarts the machine twice. /run is gone each time, and the plan goes on where it was; the
// first boot's step switches the machine off, and goes on from its disk.
func TestReboots(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a PID namespace needs root")
	}
	m := newMachine(t)
	reboots := func(s prototest.Script, max int) prototest.Script {
		s.Step.Reboot = &proto.Reboot{Max: max}
		return s
	}
	id, claim := m.c.Install("n1", []prototest.Script{
		step("one", proto.PhasePre, "echo one"),
		reboots(step("firmware", proto.PhasePre, `echo "reboots $PROVOST_REBOOTS kept $(cat "$PROVOST_RUN/state" 2>/dev/null)"
echo "x$PROVOST_REBOOTS" >> "$PROVOST_RUN/state"
[ "$PROVOST_REBOOTS" -lt 2 ] && exit 192; exit 0`), 2),
		step("two", proto.PhasePre, "echo two"),
		step("post", proto.PhasePost, "echo post"),
		reboots(step("bios", proto.PhaseFirstboot, "exit 32"), 1),
		step("greet", proto.PhaseFirstboot, "echo hello"),
	})
	m.id = id
	m.write("cmdline", "provost.url="+m.c.URL()+" provost.node=n1 provost.install="+id+" provost.claim="+claim+
		" provost.ca=sha256:"+proto.Digest(m.c.Authority.CertDER)+"\n")
	target := m.path("target")
	os.MkdirAll(target, 0o755)

	m.downs(syscall.SIGHUP, prototest.Boot1, "run", "--phase", "pre", "--state", m.path("run1"))
	m.downs(syscall.SIGHUP, prototest.Boot2, "run", "--phase", "pre", "--state", m.path("run2"))
	m.state = m.path("run3")
	m.downs(0, boot3, "run", "--phase", "pre", "--state", m.state)
	m.downs(0, boot3, "run", "--phase", "post", "--root", target, "--state", m.state)
	m.downs(0, boot3, "seal", "--root", target, "--state", m.state)
	m.state = m.path("target/var/lib/provost")
	m.write("cmdline", "quiet\n")
	const boot4, boot5 = "44444444-4444-4444-8444-444444444444", "55555555-5555-4555-8555-555555555555"
	m.downs(syscall.SIGINT, boot4, "firstboot", "--state", m.state)
	m.downs(0, boot5, "firstboot", "--state", m.state)

	m.wantStory(`
agent-start agent-started
run-start pre pre-started
step-start pre one
step-end pre one ok
step-start pre firmware
step-end pre firmware ok
reboot pre firmware
agent-start agent-started
run-start pre pre-started
step-start pre firmware
step-end pre firmware ok
reboot pre firmware
agent-start agent-started
run-start pre pre-started
step-start pre firmware
step-end pre firmware ok
step-start pre two
step-end pre two ok
run-end pre pre-done ok
run-start post post-started
step-start post post
step-end post post ok
run-end post post-done ok
sealed sealed
agent-start disk-booted
run-start firstboot firstboot-started
step-start firstboot bios
step-end firstboot bios ok
reboot firstboot bios
agent-start disk-booted
run-start firstboot firstboot-started
step-start firstboot greet
step-end firstboot greet ok
run-end firstboot firstboot-done ok
stage firstboot booted
`)
	// Each boot of an installer begins its own log; at the collector none is cut off by another's length.
	for _, boot := range []string{prototest.Boot1, prototest.Boot2, boot3} {
		var found []string
		for _, name := range m.c.Logs(m.id) {
			if proto.IsBootLog(name, "agent") && strings.HasSuffix(name, "-"+boot[:8]+".log") {
				found = append(found, string(m.c.Log(m.id, name)))
			}
		}
		if len(found) != 1 || !strings.HasPrefix(found[0], "time=") || strings.Count(found[0], "the collector answered") < 1 {
			t.Errorf("the agent's logs of boot %.8s = %q, want one that is whole; there are %q", boot, found, m.c.Logs(m.id))
		}
	}
	for name, want := range map[string]string{"firmware.log": "reboots 0 kept", "firmware-r1.log": "reboots 1 kept x0", "firmware-r2.log": "reboots 2 kept x0"} {
		if log := string(m.c.Log(m.id, name)); !strings.Contains(log, want) {
			t.Errorf("%s = %q, want %q in it", name, log, want)
		}
	}
	if got := m.c.Reboots(id); got != 2 {
		t.Errorf("the collector counts %d reboots, want 2", got)
	}
}

// TestRebootsInPhaseBoot: so does a step of a node without a disk, and what ran before it in that boot does not run again.
func TestRebootsInPhaseBoot(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a PID namespace needs root")
	}
	m := newMachine(t)
	firmware := step("firmware", proto.PhaseBoot, `echo "reboots $PROVOST_REBOOTS"; [ "$PROVOST_REBOOTS" -lt 1 ] && exit 192; exit 0`)
	firmware.Step.Reboot = &proto.Reboot{Max: 1}
	id, claim := m.c.Install("n1", []prototest.Script{step("one", proto.PhaseBoot, "echo one"), firmware, step("two", proto.PhaseBoot, "echo two")})
	m.id = id
	m.write("cmdline", "provost.url="+m.c.URL()+" provost.node=n1 provost.install="+id+" provost.claim="+claim+
		" provost.ca=sha256:"+proto.Digest(m.c.Authority.CertDER)+"\n")
	m.downs(syscall.SIGHUP, prototest.Boot1, "run", "--phase", "boot", "--state", m.path("run1"))
	m.downs(0, prototest.Boot2, "run", "--phase", "boot", "--state", m.path("run2"))
	m.wantStory(`
agent-start agent-started
run-start boot boot-started
step-start boot one
step-end boot one ok
step-start boot firmware
step-end boot firmware ok
reboot boot firmware
agent-start agent-started
run-start boot boot-started
step-start boot firmware
step-end boot firmware ok
step-start boot two
step-end boot two ok
run-end boot boot-done ok
stage boot booted
`)
	if got := m.c.Reboots(id); got != 1 {
		t.Errorf("the collector counts %d reboots, want 1", got)
	}
}
