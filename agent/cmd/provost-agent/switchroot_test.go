// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"provost/agent/internal/host"
	"provost/proto"
)

// inInitrd runs a shell script as root in a mount namespace of its own whose /run is a new tmpfs, mounted with the options, for
// 5 minutes at most.
func inInitrd(t *testing.T, options, script string, args ...string) (cmd *exec.Cmd, output *bytes.Buffer) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	script = "set -e; mount -t tmpfs -o " + options + " run /run\n" + script
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, "unshare", append([]string{"--mount", "sh", "-c", script, "sh"}, args...)...)
	output = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = output, output
	return cmd, output
}

// TestSwitchRoot: the detached watch of an initrd without systemd follows process 1 into the new root. As switch_root(8)
// does, the test moves /proc and /run there and the new root onto "/", and then what is below the old one is gone. /run is
// mounted noexec, as initramfs-tools does, so that the program lies in a file system of its own.
func TestSwitchRoot(t *testing.T) {
	t.Parallel()
	// A process that enters its own mount namespace gets out of a chroot.
	entered, err := exec.Command("nsenter", "--mount=/proc/self/ns/mnt", "stat", "-c", "%d:%i", "/").Output()
	here, hereErr := exec.Command("stat", "-c", "%d:%i", "/").Output()
	if os.Getuid() == 0 && (err != nil || hereErr != nil || !bytes.Equal(entered, here)) {
		t.Skip("in a chroot nothing can be followed into another root: this needs a mount namespace whose root is this one")
	}
	m := newMachine(t)
	cmd, output := inInitrd(t, "noexec", `
mkdir /run/keep; cp "$1" /run/keep/token; new=$2; shift 2
provost-agent watch --detach --state /run/provost "$@"
provost-agent report autoinst-present --state /run/provost
until grep -q autoinst-present /run/provost/journal/*.log; do sleep 0.1; done
mkdir "$new"; mount -t tmpfs new "$new"; cd "$new"; mkdir run proc usr new
for d in lib lib64; do ln -s usr/$d $d; done # a test's program is not static
mount --bind /usr usr
mount --move /run run
mount --move /proc proc
mount --move . /
exec chroot . /run/provost/bin/provost-agent report partitioned --state /run/provost
`, append([]string{m.path("token"), m.path("new"), "--url", m.login[1], "--ca", m.login[3]}, "--token-file", "/run/keep/token")...)
	t.Cleanup(func() {
		list, _ := host.Host{}.Processes()
		for _, p := range list {
			if strings.Contains((host.Host{}).Args(p.PID), m.login[1]) && p.PID != os.Getpid() {
				if proc, err := os.FindProcess(p.PID); err == nil {
					proc.Kill()
				}
			}
		}
	})
	if err := cmd.Run(); err != nil {
		t.Fatalf("switching the root: %v\n%s", err, output)
	}
	m.wait(staged("partitioned"))
	var started int
	for _, e := range m.c.Events(m.id) {
		if e.Kind == proto.KindAgentStart {
			started++
		}
	}
	if started != 1 {
		t.Errorf("the agent noted %d starts in one boot, want 1", started)
	}
	// 2 minutes: it looks each second
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var roots []string
		list, _ := host.Host{}.Processes()
		for _, p := range list {
			if strings.Contains((host.Host{}).Args(p.PID), m.login[1]) && p.Name == programName {
				entries, _ := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.PID), "root"))
				for _, e := range entries {
					roots = append(roots, e.Name())
				}
			}
		}
		if got := strings.Join(roots, " "); got == "lib lib64 new proc run usr" {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("the watch sees %q in its root, want those of the new one, with new", got)
		}
	}
}

// TestNoexec: steps run though /run, and so the state directory, is mounted noexec.
func TestNoexec(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("plan.yaml", "steps:\n- {name: greet, phase: pre}\n")
	m.write("greet", "#!/bin/sh\necho \"greetings from $0\" >&2\n")
	cmd, output := inInitrd(t, "noexec", `provost-agent run --phase pre --plan "$1" && provost-agent log greet`, m.path("plan.yaml"))
	if err := cmd.Run(); err != nil || !strings.Contains(output.String(), "greetings from /run/provost/bin/steps/greet") {
		t.Errorf("run = %v, want the step's output in\n%s", err, output)
	}
}

// TestUnit: what systemd is to start in an initrd, and again after it, when the initrd's files are gone.
func TestUnit(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"mode=755", "noexec,mode=755"} {
		cmd, output := inInitrd(t, options, `
mount -t tmpfs etc /etc
mkdir /etc/provost
echo secret >/etc/provost/join-key
echo certificates >/etc/provost/ca.pem
printf '%s\n' 'url=https://10.0.0.1:8440,https://[fe80::1%eth0]:8440' join-key-file=/etc/provost/join-key >/etc/provost/agent.conf
provost-agent watch --unit --node n1
provost-agent watch --unit --node n1 # again
stat -c %a /run/provost/site-*
cat /run/provost/site-*
/run/provost/bin/provost-agent version >/dev/null
cd /run/systemd/system
find . -mindepth 1 | sort
readlink basic.target.wants/provost-agent.service
grep -E '^(ExecStart|IgnoreOnIsolate|Restart)' provost-agent.service
`)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v\n%s", options, err, output)
		}
		want := `600
600
certificates
secret
./basic.target.wants
./basic.target.wants/provost-agent.service
./provost-agent.service
../provost-agent.service
IgnoreOnIsolate=yes
ExecStart=/run/provost/bin/provost-agent "watch" "--state" "/run/provost" "--rescue-listen" ":2200" "--url" "https://10.0.0.1:8440,https://[fe80::1%%eth0]:8440" "--node" "n1" "--join-key-file" "/run/provost/site-join-key" "--ca" "/run/provost/site-ca.pem"
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=64 78
`
		if output.String() != want {
			t.Errorf("%s: the unit is\n%s\nwant\n%s", options, output, want)
		}
	}
}

// TestSecondWatch: a watch beside another one waits, and goes on when that dies.
func TestSecondWatch(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	first := exec.Command("provost-agent", m.at("watch")...)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	m.wait(staged("agent-started"))
	m.watch()
	first.Process.Kill()
	first.Wait()
	m.want(0, "report", "partitioned", "--state", m.state)
	m.wait(staged("partitioned"))
}
