// SPDX-License-Identifier: Apache-2.0

package rescue_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"provost/agent/internal/rescue"
)

// TestOpenSSH uses the server as people do: with the real client, a known_hosts file and a terminal.
func TestOpenSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("the ssh program is not installed")
	}
	dir := t.TempDir()
	keyFile, hostFile, known := filepath.Join(dir, "id"), filepath.Join(dir, "host"), filepath.Join(dir, "known_hosts")
	if _, err := rescue.HostKey(keyFile); err != nil { // an Ed25519 key is an Ed25519 key
		t.Fatal(err)
	}
	b, err := os.ReadFile(keyFile)
	if block, _ := pem.Decode(b); err != nil || block == nil {
		t.Fatalf("no PEM in %s: %v", keyFile, err)
	}
	key, err := ssh.ParsePrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	host, err := rescue.HostKey(hostFile)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, func(c *rescue.Config) { c.Keys, c.HostKey = []ssh.PublicKey{key.PublicKey()}, host })
	name, port, _ := net.SplitHostPort(s.addr)
	public, _, _ := strings.Cut(rescue.Describe(host.PublicKey()), " SHA256:")
	if err := os.WriteFile(known, []byte("["+name+"]:"+port+" "+public+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(stdin string, args ...string) (int, string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		args = append([]string{"-F", "none", "-p", port, "-i", keyFile, "-o", "UserKnownHostsFile=" + known, "-o", "StrictHostKeyChecking=yes",
			"-o", "BatchMode=yes", "-o", "IdentityAgent=none", "-o", "LogLevel=ERROR", "root@" + name}, args...)
		cmd := exec.CommandContext(ctx, "ssh", args...)
		cmd.Stdin = strings.NewReader(stdin)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatalf("ssh: %v", err)
		}
		return cmd.ProcessState.ExitCode(), out.String()
	}
	for _, c := range []struct {
		name, stdin string
		args        []string
		want        int
		has         string
	}{
		{"status", "", []string{"status"}, 0, "status --state /state"},
		{"a word's exit status", "", []string{"retry"}, 42, ""},
		{"a command", "", []string{"echo hello; exit 3"}, 3, "hello\n"},
		{"input", "abc", []string{"cat"}, 0, "abc"},
		{"a shell without a terminal", "echo $((6*7)); exit 5\n", nil, 5, "42\n"},
		{"a terminal", "", []string{"-tt", "tty; exit 4"}, 4, "/dev/pts/"},
		{"a word on a terminal", "", []string{"-tt", "log"}, 0, "log --state /state"},
		{"agent forwarding", "", []string{"-A", "echo agent=$SSH_AUTH_SOCK."}, 0, "agent=.\n"},
		{"sftp", "", []string{"-s", "sftp"}, 0, " sftp\n"},
		{"another subsystem", "", []string{"-s", "netconf"}, 255, "subsystem request failed"},
		{"another user's name", "", []string{"-l", "x", "id -u"}, 0, "0\n"},
	} {
		if got, out := run(c.stdin, c.args...); got != c.want || !strings.Contains(out, c.has) {
			t.Errorf("%s: status %d, %q, want %d, %q", c.name, got, out, c.want, c.has)
		}
	}
	// with another host key in known_hosts the client refuses
	other := bytes.TrimSpace(ssh.MarshalAuthorizedKey(newKey(t).PublicKey()))
	if err := os.WriteFile(known, []byte("["+name+"]:"+port+" "+string(other)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, out := run("", "status"); got != 255 || !strings.Contains(out, "verification failed") {
		t.Errorf("a stranger's host key: status %d, %q, want 255", got, out)
	}
}
