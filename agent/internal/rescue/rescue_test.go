// SPDX-License-Identifier: Apache-2.0

package rescue_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"provost/agent/internal/rescue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// words are the agent's own commands.
var words = []string{"status", "log", "retry"}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// server is a rescue server under test, on the loopback.
type server struct {
	*testing.T
	addr string
	key  ssh.Signer
	host ssh.Signer
	dir  string
	stop func()
}

func start(t *testing.T, change func(*rescue.Config)) *server {
	t.Helper()
	s := &server{T: t, key: newKey(t), host: newKey(t), dir: t.TempDir()}
	agent := filepath.Join(s.dir, "agent")
	if err := os.WriteFile(agent, []byte("#!/bin/sh\necho \"$0 $*\"\ntest \"$1\" != retry || exit 42\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := rescue.Config{
		Keys: []ssh.PublicKey{s.key.PublicKey()}, HostKey: s.host, Words: words, Agent: agent, State: "/state",
		Linger: 3 * time.Second, Grace: 200 * time.Millisecond,
	}
	if change != nil {
		change(&c)
	}
	srv, err := rescue.New(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve = %v, want nil", err)
			}
		case <-time.After(time.Minute):
			t.Errorf("Serve did not end within a minute")
		}
	})
	t.Cleanup(s.stop)
	return s
}

func (s *server) dial(auth ...ssh.AuthMethod) (*ssh.Client, error) {
	if auth == nil {
		auth = []ssh.AuthMethod{ssh.PublicKeys(s.key)}
	}
	return ssh.Dial("tcp", s.addr, &ssh.ClientConfig{
		User: "root", Auth: auth, HostKeyCallback: ssh.FixedHostKey(s.host.PublicKey()), Timeout: time.Minute,
	})
}

func (s *server) client() *ssh.Client {
	s.Helper()
	c, err := s.dial()
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { c.Close() })
	return c
}

func session(t *testing.T, c *ssh.Client) *ssh.Session {
	t.Helper()
	sess, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	return sess
}

// status is the exit status of a command; -1 if there was none.
func status(err error) int {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitStatus()
	}
	return -1
}

// soon waits at most a minute for something to become true.
func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%s: not within a minute", what)
}

// Without handlers the library lets anybody in, and without a host key it makes a new one at each start.
func TestNoKeysNoServer(t *testing.T) {
	key := newKey(t)
	if _, err := rescue.New(rescue.Config{HostKey: key}); err == nil {
		t.Errorf("New without keys gave a server")
	}
	if _, err := rescue.New(rescue.Config{Keys: []ssh.PublicKey{key.PublicKey()}}); err == nil {
		t.Errorf("New without a host key gave a server")
	}
}

func TestOnlyGivenKeys(t *testing.T) {
	s := start(t, nil)
	for name, auth := range map[string][]ssh.AuthMethod{
		"nothing":  {},
		"password": {ssh.Password("")},
		"questions": {ssh.KeyboardInteractive(func(_, _ string, q []string, _ []bool) ([]string, error) {
			return make([]string, len(q)), nil
		})},
		"another key": {ssh.PublicKeys(newKey(t))},
	} {
		if c, err := s.dial(auth...); err == nil {
			c.Close()
			t.Errorf("%s: came in", name)
		}
	}
	// a key that is shown but not proven is no key
	c, err := s.dial(ssh.PublicKeys(liar{newKey(t), s.key.PublicKey()}))
	if err == nil {
		c.Close()
		t.Errorf("came in with somebody else's public key")
	}
	s.client()
}

// liar signs with another key than the one it shows.
type liar struct {
	ssh.Signer
	shown ssh.PublicKey
}

func (l liar) PublicKey() ssh.PublicKey { return l.shown }

func TestHostKeyStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "key")
	const n = 8
	keys := make(chan string, n)
	for range n {
		go func() {
			k, err := rescue.HostKey(path)
			if err != nil {
				keys <- err.Error()
				return
			}
			keys <- rescue.Describe(k.PublicKey())
		}()
	}
	first := <-keys
	for range n - 1 {
		if k := <-keys; k != first {
			t.Errorf("HostKey of two at once = %q and %q", first, k)
		}
	}
	again, err := rescue.HostKey(path)
	if err != nil || rescue.Describe(again.PublicKey()) != first || !strings.HasPrefix(first, "ssh-ed25519 ") || !strings.Contains(first, " SHA256:") {
		t.Errorf("HostKey = %v after %q", err, first)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key = %v, %v, want 0600", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); left != nil {
		t.Errorf("left behind: %q", left)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := rescue.HostKey(path); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("HostKey of a broken file = %v, want what to do", err)
	}
}

func TestParseKeys(t *testing.T) {
	key := string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(newKey(t).PublicKey())))
	for _, c := range []struct {
		name, text string
		n          int
		err        string
	}{
		{"nothing", "", 0, ""},
		{"comments", "# ours\n\n  \n" + key + " me@desk\r\n" + key + "\n", 2, ""},
		{"no line end", key, 1, ""},
		{"garbage", key + "\nssh-ed25519 AAAA\n", 1, "keys:2: this is no SSH public key"},
		{"a private key", "-----BEGIN OPENSSH PRIVATE KEY-----\n", 0, "keys:1: this is no"},
		{"options", `command="/bin/false" ` + key, 0, "keys:1: options of a key are not supported"},
		{"authority", "cert-authority " + key, 0, "options of a key"},
		{"huge", strings.Repeat("#", 2<<20), 0, "at most"},
	} {
		got, err := rescue.ParseKeys("keys", []byte(c.text))
		if len(got) != c.n || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: ParseKeys = %d keys, %v, want %d, %q", c.name, len(got), err, c.n, c.err)
		}
	}
}

// The library has no deadline for the handshake, and any byte moves the one that it has.
func TestHandshakeDeadline(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *rescue.Config) { c.Handshake = 3 * time.Second })
	for name, speak := range map[string]bool{"silent": false, "a byte now and then": true} {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		began := time.Now()
		if speak {
			go func() {
				for range 2000 {
					if _, err := conn.Write([]byte("S")); err != nil {
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
			}()
		}
		conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
		io.Copy(io.Discard, conn)
		if d := time.Since(began); d > time.Minute {
			t.Errorf("%s: the connection was kept for %s, want 3 s", name, d)
		}
	}
	var c *ssh.Client // who is in stays
	soon(t, "a handshake in time", func() (in bool) {
		var err error
		c, err = s.dial()
		return err == nil
	})
	defer c.Close()
	time.Sleep(4 * time.Second)
	if out, err := session(t, c).Output("echo still here"); err != nil || string(out) != "still here\n" {
		t.Errorf("after the deadline: %q, %v", out, err)
	}
}

func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *rescue.Config) { c.Idle = 6 * time.Second })
	c := s.client()
	sess := session(t, c)
	began := time.Now()
	err := sess.Run("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done; sleep 600")
	if d := time.Since(began); status(err) != -1 || d < 9*time.Second || d > 2*time.Minute {
		t.Errorf("Run = %v after %s, want the connection's end 6 s after the last byte", err, d)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *rescue.Config) { c.Sessions, c.Connections = 2, 3 })
	c := s.client()
	one, two := session(t, c), session(t, c)
	if _, err := c.NewSession(); err == nil || !strings.Contains(err.Error(), "there are 2 sessions already") {
		t.Errorf("a third session = %v, want a refusal with its reason", err)
	}
	one.Close()
	soon(t, "room for a session", func() bool {
		sess, err := c.NewSession()
		return err == nil && sess.Run("true") == nil
	})
	two.Close()
	d, e := s.client(), s.client()
	if f, err := s.dial(); err == nil {
		f.Close()
		t.Errorf("a fourth connection came in")
	}
	d.Close()
	e.Close()
	soon(t, "room for a connection", func() bool {
		f, err := s.dial()
		if err == nil {
			f.Close()
		}
		return err == nil
	})
}
