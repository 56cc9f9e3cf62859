// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"provost/agent/internal/host"
	"provost/agent/internal/report"
	"provost/proto"
)

func sshKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s, string(ssh.MarshalAuthorizedKey(s.PublicKey()))
}

// rescue starts the rescue shell; it gives its address and host key as it says them.
func (m *machine) rescue(args ...string) (addr, hostKey string, stop func()) {
	m.Helper()
	cmd := exec.Command("provost-agent", append([]string{"rescue", "--listen", "127.0.0.1:0", "--state", m.state}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		m.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	line := make([]byte, 512)
	n, err := stderr.Read(line)
	addr, rest, ok := strings.Cut(strings.TrimPrefix(string(line[:n]), "provost-agent: rescue shell at "), ", host key ")
	if err != nil || !ok {
		cmd.Process.Kill()
		m.Fatalf("rescue said %q, %v", line[:n], err)
	}
	return addr, strings.Join(strings.Fields(rest)[:2], " "), func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			m.Errorf("rescue = %v, want a good end", err)
		}
	}
}

func (m *machine) ssh(addr, hostKey string, key ssh.Signer) (*ssh.Client, error) {
	host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(hostKey))
	if err != nil {
		m.Fatal(err)
	}
	return ssh.Dial("tcp", addr, &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(host), Timeout: time.Minute,
	})
}

func TestRescue(t *testing.T) {
	t.Parallel()
	m := newMachine(t, threePhases...)
	key, line := sshKey(t)
	m.write("keys", "# ours\n"+line)
	m.write("broken", `from="10.0.0.0/8" `+line)

	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "no public key may come in"},
		{[]string{"--authorized-keys", m.path("none")}, "reading the keys of the rescue shell"},
		{[]string{"--authorized-keys", m.path("broken")}, "broken:1: options of a key are not supported"},
	} {
		if r := m.want(exitConfig, append([]string{"rescue", "--state", m.path("other")}, c.args...)...); !strings.Contains(r.err, c.says) {
			t.Errorf("rescue %v said %q, want %q", c.args, r.err, c.says)
		}
	}

	m.want(0, m.at("run", "--phase", "pre")...)
	stopWatch := m.watch()
	addr, hostKey, stop := m.rescue("--authorized-keys", m.path("keys"))
	m.wait(func(e proto.Event) bool {
		return e.Kind == proto.KindNote && strings.Contains(e.Message, "host key "+hostKey+" SHA256:")
	})
	c, err := m.ssh(addr, hostKey, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		command string
		want    int
		has     string
	}{
		{"status", 0, "pre done"},
		{"log disks", 0, "looking at disks"},
		{"status --no-such-flag", exitUsage, "flag provided but not defined"},
		{"release", exitFailed, "no steps run here"},
		{"exit 5", 5, ""},
		{"provost-agent version", 0, "provost-agent"},
	} {
		sess, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		out, err := sess.CombinedOutput(tt.command)
		code := 0
		var exit *ssh.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitStatus()
		} else if err != nil {
			code = -1
		}
		if code != tt.want || !strings.Contains(string(out), tt.has) {
			t.Errorf("ssh %q: status %d, %q, want %d, %q", tt.command, code, out, tt.want, tt.has)
		}
	}
	c.Close()
	stop()

	again, sameKey, stop := m.rescue("--authorized-keys", m.path("keys"))
	if sameKey != hostKey {
		t.Errorf("the host key changed from %q to %q", hostKey, sameKey)
	}
	if other, _ := sshKey(t); again != "" {
		if c, err := m.ssh(again, sameKey, other); err == nil {
			c.Close()
			t.Errorf("another key came in")
		}
	}
	stop()
	stopWatch()
}

// The plan's keys may come in; where nobody delivers, the host key is delivered by rescue itself.
func TestRescueKeysOfThePlan(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	key, line := sshKey(t)
	plan, err := json.Marshal(proto.Plan{Schema: 1, Node: "n1", Install: m.id, OnFailure: proto.OnFailureHold, RescueKeys: []string{strings.TrimSpace(line)}})
	if err != nil {
		t.Fatal(err)
	}
	m.write("run/plan.local.json", string(plan))
	addr, hostKey, stop := m.rescue()
	defer stop()
	c, err := m.ssh(addr, hostKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// The port is taken: an error at once, not a process that waits.
func TestRescuePortTaken(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	_, line := sshKey(t)
	m.write("keys", line)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "provost-agent", "rescue", "--state", m.state, "--authorized-keys", m.path("keys"), "--listen", l.Addr().String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if cmd.Run(); cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(stderr.String(), "opening the rescue shell's port") {
		t.Errorf("rescue = %d, %q, want 1 and the reason", cmd.ProcessState.ExitCode(), &stderr)
	}
}

// watch starts the rescue shell as soon as there are keys, starts it again when it dies, and the collector hears how it is
// reached. Further keys come in without a new start, and without any key it ends.
func TestWatchMindsRescue(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	t.Cleanup(func() {
		list, _ := host.Host{}.Processes()
		for _, p := range list {
			if strings.Contains((host.Host{}).Args(p.PID), m.state) {
				syscall.Kill(p.PID, syscall.SIGKILL)
			}
		}
	})
	first, line := sshKey(t)
	second, more := sshKey(t)
	m.login = append(m.login, "--rescue-listen", "127.0.0.1:0")
	stop := m.watch()
	m.wait(staged("agent-started"))
	beat := func(what string, good func(*proto.Rescue) bool) proto.Heartbeat {
		t.Helper()
		for range 1200 { // 2 minutes
			if beats := m.c.Heartbeats(m.id); len(beats) > 0 && good(beats[len(beats)-1].Rescue) {
				return beats[len(beats)-1]
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Fatalf("no heartbeat within 2 minutes that says: %s", what)
		return proto.Heartbeat{}
	}
	none := func(r *proto.Rescue) bool { return r == nil }
	enter := func(r *proto.Rescue, key ssh.Signer) error {
		c, err := m.ssh(fmt.Sprintf("127.0.0.1:%d", r.Port), r.HostKey, key)
		if err == nil {
			c.Close()
		}
		return err
	}
	h := beat("there is no rescue shell", none)
	if h.Facts == nil || h.Facts.Run == nil || h.Facts.Run.Path != m.state || h.Facts.Run.Total == 0 || h.Facts.MemoryMB == 0 || h.Facts.AvailableMB == 0 {
		t.Errorf("the heartbeat's facts are %+v", h.Facts)
	}
	m.write("run/rescue.pub", "# ours\n"+line)
	one := beat("there is a rescue shell", func(r *proto.Rescue) bool { return r != nil })
	if err := enter(one.Rescue, first); err != nil {
		t.Error(err)
	}
	if enter(one.Rescue, second) == nil {
		t.Errorf("a key came in that was not given")
	}
	m.write("run/rescue.pub", line+more)
	for range 1200 { // 2 minutes
		if enter(one.Rescue, second) == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := enter(one.Rescue, second); err != nil {
		t.Errorf("the key that came later: %v", err)
	}

	list, _ := host.Host{}.Processes()
	killed := false
	for _, p := range list {
		if strings.Contains((host.Host{}).Args(p.PID), " rescue ") && strings.Contains((host.Host{}).Args(p.PID), m.state) {
			killed = syscall.Kill(p.PID, syscall.SIGKILL) == nil
		}
	}
	if !killed {
		t.Fatal("there is no process of the rescue shell")
	}
	two := beat("there is another one", func(r *proto.Rescue) bool { return r != nil && r.Port != one.Rescue.Port })
	if two.Rescue.HostKey != one.Rescue.HostKey {
		t.Errorf("the host key changed from %q to %q", one.Rescue.HostKey, two.Rescue.HostKey)
	}
	if err := enter(two.Rescue, first); err != nil {
		t.Error(err)
	}
	m.want(exitBusy, "rescue", "--state", m.state, "--listen", "127.0.0.1:0")

	if err := os.Remove(m.path("run/rescue.pub")); err != nil {
		t.Fatal(err)
	}
	beat("the rescue shell has ended", none)
	if enter(two.Rescue, first) == nil {
		t.Errorf("a key came in that was taken away")
	}
	stop()
}

// Without a collector nobody watches, but a baked-in key comes in.
func TestRescueWithoutCollector(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	key, line := sshKey(t)
	m.write("run/rescue.pub", line)
	t.Cleanup(func() {
		list, _ := host.Host{}.Processes()
		for _, p := range list {
			if strings.Contains((host.Host{}).Args(p.PID), m.state) {
				syscall.Kill(p.PID, syscall.SIGKILL)
			}
		}
	})
	m.want(exitConfig, "watch", "--detach", "--state", m.state, "--rescue-listen", "127.0.0.1:0")
	dir := report.Dir(m.state)
	for range 1200 { // 2 minutes
		if dir.Rescue() != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	r := dir.Rescue()
	if r == nil {
		t.Fatal("no rescue shell within 2 minutes")
	}
	c, err := m.ssh(fmt.Sprintf("127.0.0.1:%d", r.Port), r.HostKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// The real scp and sftp copy to and from a node, with names and modes.
func TestCopy(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"scp", "sftp"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("the %s program is not installed", p)
		}
	}
	m := newMachine(t)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	m.write("id", string(pem.EncodeToMemory(block)))
	m.write("keys", string(ssh.MarshalAuthorizedKey(public)))
	addr, hostKey, stop := m.rescue("--authorized-keys", m.path("keys"))
	defer stop()
	host, port, _ := net.SplitHostPort(addr)
	m.write("known", "["+host+"]:"+port+" "+hostKey+"\n")
	options := []string{"-F", "none", "-P", port, "-i", m.path("id"), "-o", "UserKnownHostsFile=" + m.path("known"), "-o", "StrictHostKeyChecking=yes",
		"-o", "BatchMode=yes", "-o", "IdentityAgent=none", "-o", "LogLevel=ERROR"}
	run := func(stdin, program string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, append(slices.Clone(options), args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s %q = %v\n%s", program, args, err, out)
		}
		return string(out)
	}
	big := make([]byte, 3<<20+7)
	rand.Read(big)
	m.write("here/big", string(big))
	m.write("here/sub/a file ü", "small")
	if err := os.Chmod(m.path("here/big"), 0o751); err != nil {
		t.Fatal(err)
	}
	remote := "root@" + host + ":"
	run("", "scp", "-p", "-r", m.path("here"), remote+m.path("there"))
	run("", "scp", "-p", "-r", remote+m.path("there"), m.path("back"))
	for _, dir := range []string{"there", "back"} {
		b, err := os.ReadFile(m.path(dir + "/big"))
		info, serr := os.Stat(m.path(dir + "/big"))
		small, _ := os.ReadFile(m.path(dir + "/sub/a file ü"))
		if err != nil || serr != nil || !bytes.Equal(b, big) || info.Mode() != 0o751 || string(small) != "small" {
			t.Errorf("%s: %d bytes, %v, %v, %q, want what was copied", dir, len(b), err, info, small)
		}
	}
	out := run(fmt.Sprintf("cd %s\npwd\nls -l\nmkdir d\nrename big d/large\nput %s d/again\nget d/large %s\nrm d/again\nrm d/large\nrmdir d\nchmod 600 sub\nls\n",
		m.path("there"), m.path("here/big"), m.path("large")), "sftp", "-b", "-", remote[:len(remote)-1])
	if !strings.Contains(out, "Remote working directory: "+m.path("there")) || !strings.Contains(out, "-rwxr-x--x") {
		t.Errorf("sftp said\n%s", out)
	}
	if b, err := os.ReadFile(m.path("large")); err != nil || !bytes.Equal(b, big) {
		t.Errorf("sftp's get gave %d bytes, %v", len(b), err)
	}
	list, err := os.ReadDir(m.path("there"))
	if err != nil || len(list) != 1 || list[0].Name() != "sub" {
		t.Errorf("left are %v, %v, want sub", list, err)
	}
}
