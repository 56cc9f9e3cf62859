// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"provost/agent/internal/host"
	"provost/proto"
	"provost/proto/prototest"
)

// blab prints a secret in every way that a script has.
const blab = `
set -x
echo "$S" >&2
printf '%s' "$S" | head -c 9; sleep 0.2; printf '%s\n' "$S" | tail -c +10
. "$PROVOST_LIB/provost.sh"
provost_message "the key is $S"
echo "stage=$S" >> "$PROVOST_STATUS"
sh -c 'exec sleep 0.3' &
printf '%s' "$S"
`

// TestSecretsLeaveNoTrace looks for the secrets of steps wherever anything is written, shown or sent.
func TestSecretsLeaveNoTrace(t *testing.T) {
	t.Parallel()
	early, late := proto.NewSecret(), proto.NewSecret() // made here: this program is copied, too
	with := func(s prototest.Script, secret string) prototest.Script {
		s.Step.SecretEnv = map[string]string{"S": secret}
		return s
	}
	m := newMachine(t,
		with(step("one", proto.PhasePre, blab+"exit 0"), early),
		with(step("two", proto.PhasePost, blab+"exit 0"), early),
		with(step("three", proto.PhaseFirstboot, blab+"exit 9"), late))
	target := m.path("target")
	os.MkdirAll(target, 0o755)
	stop := m.watch()
	m.wait(staged("agent-started"))

	done := make(chan struct{})
	go func() { // command lines, of whoever
		defer close(done)
		for t.Context().Err() == nil {
			if seen := othersSee(t); strings.Contains(seen, early) || strings.Contains(seen, late) {
				t.Error("another user of the machine sees a secret in arguments or environment of a process")
				return
			}
			list, _ := host.Host{}.Processes()
			for _, p := range list {
				if args := (host.Host{}).Args(p.PID); strings.Contains(args, early) || strings.Contains(args, late) {
					t.Errorf("a secret is in the arguments of a process: %s", args)
					return
				}
			}
			time.Sleep(100 * time.Millisecond) // a step of blab's lasts half a second
		}
	}()
	t.Cleanup(func() { <-done })

	said := m.want(0, "run", "--phase", "pre", "--state", m.state)
	said.err += m.want(0, "run", "--phase", "post", "--root", target, "--state", m.state).err
	said.err += m.want(0, "seal", "--root", target, "--state", m.state).err
	m.noTrace(early, "run/plan.json")
	m.noTrace(late, "run/plan.json", "target/var/lib/provost/plan.kept.json") // firstboot needs it, and the collector may be off then
	stop()
	m.reboot()
	said.err += m.want(1, m.at("firstboot")...).err
	m.noTrace(early)
	m.noTrace(late, "target/var/lib/provost/plan.kept.json") // it may be retried

	all := said.out + said.err
	events, err := json.Marshal(m.c.Events(m.id))
	if err != nil {
		t.Fatal(err)
	}
	beats, err := json.Marshal(m.c.Heartbeats(m.id))
	if err != nil {
		t.Fatal(err)
	}
	all += string(events) + string(beats)
	for _, s := range []string{"one", "two", "three"} {
		log := string(m.c.Log(m.id, s+".log"))
		if strings.Count(log, "[redacted]") < 4 {
			t.Errorf("%s.log = %q, want what the step printed, redacted", s, log)
		}
		all += log
	}
	own := 0
	for _, name := range m.c.Logs(m.id) {
		if strings.HasPrefix(name, "agent-") {
			all += string(m.c.Log(m.id, name))
			own++
		}
	}
	if own != 2 {
		t.Errorf("%d logs of the agent itself are there, want the installer's and firstboot's: %q", own, m.c.Logs(m.id))
	}
	if strings.Contains(all, early) || strings.Contains(all, late) {
		t.Errorf("a secret was sent or said: %s", all)
	}
	if !strings.Contains(string(events), "the key is [redacted]") {
		t.Errorf("events = %s, want the message of the step that failed, redacted", events)
	}
}

// othersSee is what a user without any rights reads of all processes' arguments and environments; nothing where this test
// cannot become that user.
func othersSee(t *testing.T) string {
	if os.Getuid() != 0 {
		return ""
	}
	const nobody, mark = 65534, "PROVOST_TEST_SEEN=1"
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // a loaded machine
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", "exec cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ")
	cmd.Dir, cmd.Env = "/", []string{mark, "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, _ := cmd.Output() // most may not be read, which is the point
	if !bytes.Contains(out, []byte(mark)) {
		t.Error("the other user does not even see itself: nothing could be found")
	}
	return string(out)
}

// noTrace looks for a secret in every file below the machine's directory but the ones that are allowed to have it.
func (m *machine) noTrace(secret string, but ...string) {
	m.Helper()
	filepath.WalkDir(m.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		for _, b := range but {
			if path == m.path(b) {
				info, err := d.Info()
				if err != nil || info.Mode().Perm() != 0o600 {
					m.Errorf("%s: %v, mode %v, want 0600", path, err, info.Mode())
				}
				return nil
			}
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(secret)) {
			m.Errorf("a secret is in %s", path)
		}
		return nil
	})
	for _, b := range but {
		if _, err := os.Stat(m.path(b)); err != nil {
			m.Errorf("%s: %v", b, err)
		}
	}
	for _, name := range []string{"target/var/lib/provost/plan.json"} {
		if _, err := os.Stat(m.path(name)); err == nil {
			m.Errorf("%s is there, with all secrets", name)
		}
	}
}

// TestSecretsAreForgotten: when the first boot is over, none is left on the disk.
func TestSecretsAreForgotten(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	secret := proto.NewSecret()
	m.write("secret", secret+"\n")
	m.write("plan.yaml", "steps:\n- {name: one, phase: post, chroot: false, secret-env: {S: file:"+m.path("secret")+"}}\n- {name: two, script: one, phase: firstboot, secret-env: {S: file:"+m.path("secret")+"}}\n")
	m.write("one", "#!/bin/sh\ntest ${#S} = 64 && echo right\n")
	target := m.path("target")
	os.MkdirAll(target, 0o755)
	m.want(0, "run", "--phase", "post", "--root", target, "--plan", m.path("plan.yaml"), "--state", m.state)
	m.want(0, "seal", "--root", target, "--state", m.state)
	m.noTrace(secret, "secret", "run/plan.local.json", "target/var/lib/provost/plan.local.json")
	if b, err := os.ReadFile(m.path("target/var/lib/provost/plan.local.json")); err != nil || bytes.Count(b, []byte(secret)) != 1 {
		t.Errorf("plan.local.json on the target = %s, %v, want one secret", b, err)
	}
	m.reboot()
	if out, err := exec.Command("provost-agent", "firstboot", "--state", m.state).CombinedOutput(); err != nil {
		t.Fatalf("firstboot: %v: %s", err, out)
	}
	m.noTrace(secret, "secret")
}
