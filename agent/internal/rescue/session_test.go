// SPDX-License-Identifier: Apache-2.0

package rescue_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"provost/agent/internal/rescue"
)

// The library ends every handler with Exit(0).
func TestExitStatus(t *testing.T) {
	s := start(t, nil)
	c := s.client()
	for _, tt := range []struct {
		command string
		want    int
		out     string
	}{
		{"echo hello", 0, "hello\n"},
		{"exit 3", 3, ""},
		{"no-such-command", 127, ""},
		{"kill -9 $$", 128 + 9, ""},
		{"status -o json", 0, s.dir + "/agent status --state /state -o json\n"},
		{`log "two words"`, 0, s.dir + "/agent log --state /state two words\n"},
		{"retry", 42, s.dir + "/agent retry --state /state\n"},
		{"status; echo more", 127, ""}, // no word of ours: the shell's, which has no such command
		{"echo $HOME $USER $PROVOST_SECRET.", 0, "/root root .\n"},
	} {
		sess := session(t, c)
		var out bytes.Buffer
		sess.Stdout = &out
		if tt.command == "status; echo more" {
			tt.want, tt.out = 0, "more\n"
		}
		got := status(sess.Run(tt.command))
		if got != tt.want || out.String() != tt.out {
			t.Errorf("%s: status %d, %q, want %d, %q", tt.command, got, out.String(), tt.want, tt.out)
		}
	}
}

func TestStreams(t *testing.T) {
	s := start(t, nil)
	sess := session(t, s.client())
	in := bytes.Repeat([]byte("0123456789\r\n\x00\xff"), 100_000)
	var out, errs bytes.Buffer
	sess.Stdin, sess.Stdout, sess.Stderr = bytes.NewReader(in), &out, &errs
	if err := sess.Run("cat; echo trouble >&2"); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), in) || errs.String() != "trouble\n" {
		t.Errorf("cat gave %d bytes of %d, and %q", out.Len(), len(in), errs.String())
	}
}

// A pty session whose window changes nobody reads blocks in the library, before a shell is asked for as well.
func TestWindowChanges(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *rescue.Config) { c.Greeting = "hello from n1" })
	sess := session(t, s.client())
	if err := sess.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := sess.WindowChange(10, 10+i); err != nil {
			t.Fatal(err)
		}
	}
	in, _ := sess.StdinPipe()
	var out locked
	sess.Stdout = &out
	if err := sess.Shell(); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if err := sess.WindowChange(43, 100+i); err != nil {
			t.Fatal(err)
		}
	}
	asked := 0
	soon(t, "the last size", func() bool {
		io.WriteString(in, "stty size; tty; echo TERM=$TERM\n")
		asked++
		soon(t, "an answer", func() bool { return strings.Count(out.String(), "TERM=xterm\r\n") >= asked })
		return strings.Contains(out.String(), "43 1099\r\n")
	})
	io.WriteString(in, "exit 7\n")
	if got := status(sess.Wait()); got != 7 {
		t.Errorf("status = %d, want 7; output:\n%s", got, out.String())
	}
	if text := out.String(); !strings.HasPrefix(text, "hello from n1\r\n") || !strings.Contains(text, "/dev/pts/") || !strings.Contains(text, "TERM=xterm") {
		t.Errorf("output:\n%s", text)
	}
}

// A program in raw mode gets and gives bytes as they are.
func TestRawTerminal(t *testing.T) {
	s := start(t, nil)
	sess := session(t, s.client())
	if err := sess.RequestPty("vt100", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	var out locked
	sess.Stdout = &out
	if got := status(sess.Run(`stty raw -echo; printf 'a\nb\r\nc'; exit 5`)); got != 5 || out.String() != "a\nb\r\nc" {
		t.Errorf("status %d, output %q, want 5 and the bytes as they are", got, out.String())
	}
}

// locked is a buffer that two goroutines use.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A panicking handler kills the process in the library.
func TestPanic(t *testing.T) {
	s := start(t, func(c *rescue.Config) { c.Log = slog.New(panicky{}) })
	c := s.client()
	for range 2 {
		if got := status(session(t, c).Run("echo")); got != 70 {
			t.Errorf("status of a session that panics = %d, want 70", got)
		}
	}
}

// panicky is a log that panics.
type panicky struct{}

func (panicky) Enabled(context.Context, slog.Level) bool { return true }
func (panicky) Handle(_ context.Context, r slog.Record) error {
	panic("log of " + r.Message)
}
func (p panicky) WithAttrs([]slog.Attr) slog.Handler { return p }
func (p panicky) WithGroup(string) slog.Handler      { return p }

// TestRefused: what is off, and what is malformed.
func TestRefused(t *testing.T) {
	s := start(t, nil)
	c := s.client()
	for _, channel := range []string{"direct-tcpip", "direct-streamlocal@openssh.com", "x11", "tun@openssh.com"} {
		ch, _, err := c.OpenChannel(channel, ssh.Marshal(struct {
			Host string
			Port uint32
			From string
			Src  uint32
		}{"127.0.0.1", 22, "127.0.0.1", 1}))
		if err == nil {
			ch.Close()
			t.Errorf("channel %s was opened", channel)
		}
	}
	if l, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
		t.Errorf("a port was forwarded")
	}
	for _, r := range []struct {
		name    string
		payload []byte
	}{
		{"auth-agent-req@openssh.com", nil},
		{"x11-req", nil},
		{"subsystem", ssh.Marshal(struct{ Name string }{"other"})},
		{"env", ssh.Marshal(struct{ Name, Value string }{"LD_PRELOAD", "/x"})},
		{"env", ssh.Marshal(struct{ Name, Value string }{"LC_ALL", strings.Repeat("x", 100)})},
		{"env", []byte{1}},
		{"break", ssh.Marshal(struct{ Length uint32 }{1})},
		{"pty-req", nil},
		{"pty-req", []byte{0xff, 0xff, 0xff, 0xff, 'x'}}, // the library: slice bounds out of range
		{"pty-req", ssh.Marshal(struct{ Term string }{"xterm"})},
		{"window-change", []byte{1, 2, 3}},
		{"signal", ssh.Marshal(struct{ Name string }{"TERM"})}, // nothing runs yet
		{"signal", ssh.Marshal(struct{ Name string }{"XYZ"})},
		{"no-such-request", nil},
	} {
		sess := session(t, c)
		if ok, err := sess.SendRequest(r.name, true, r.payload); ok || err != nil {
			t.Errorf("request %s %q = %v, %v, want a refusal", r.name, r.payload, ok, err)
		}
		if out, err := sess.Output("echo fine"); err != nil || string(out) != "fine\n" {
			t.Errorf("after request %s: %q, %v", r.name, out, err)
		}
	}
	sess := session(t, c)
	sess.Setenv("LC_ALL", "C")
	if out, err := sess.Output("echo $LC_ALL"); err != nil || string(out) != "C\n" {
		t.Errorf("LC_ALL = %q, %v", out, err)
	}
	if err := session(t, c).Close(); err != nil { // a session that asks for nothing
		t.Error(err)
	}
}

// alive reports whether a process that wrote its id to a file runs.
func alive(file string) func() bool {
	return func() bool {
		b, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/stat")
		return err == nil && !strings.Contains(string(stat), ") Z ")
	}
}

func not(is func() bool) func() bool { return func() bool { return !is() } }

// TestClientGone: the processes of a client that is gone end, those that ignore a SIGHUP too.
func TestClientGone(t *testing.T) {
	t.Parallel()
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%v", terminal), func(t *testing.T) {
			s := start(t, nil)
			c := s.client()
			pid := filepath.Join(s.dir, "pid")
			sess := session(t, c)
			if terminal {
				if err := sess.RequestPty("xterm", 24, 80, nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := sess.Start("trap '' HUP; echo $$ >" + pid + "; while :; do sleep 0.1; done"); err != nil {
				t.Fatal(err)
			}
			soon(t, "the command runs", alive(pid))
			c.Close()
			soon(t, "the command has ended", not(alive(pid)))
		})
	}
}

// TestServerStops: Serve ends with its context, and with it whatever runs.
func TestServerStops(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	pid := filepath.Join(s.dir, "pid")
	sess := session(t, s.client())
	if err := sess.Start("echo $$ >" + pid + "; exec sleep 60"); err != nil {
		t.Fatal(err)
	}
	idle, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	soon(t, "the command runs", alive(pid))
	began := time.Now()
	s.stop()
	if d := time.Since(began); d > time.Minute {
		t.Errorf("Serve took %s to end, with a connection that says nothing", d)
	}
	soon(t, "the command has ended", not(alive(pid)))
	sess.Wait()
}

// TestHeldOutput: what a command leaves behind does not hold the session.
func TestHeldOutput(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, terminal := range []bool{false, true} {
		sess := session(t, s.client())
		if terminal {
			if err := sess.RequestPty("xterm", 24, 80, nil); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		out, err := sess.Output("(trap '' HUP; exec sleep 300) & echo started; exit 4")
		if d := time.Since(began); status(err) != 4 || strings.TrimSpace(string(out)) != "started" || d > 2*time.Minute {
			t.Errorf("terminal=%v: %q, %v after %s, want status 4 within the linger time", terminal, out, err, d)
		}
	}
}

func TestSignal(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	sess := session(t, s.client())
	out, _ := sess.StdoutPipe()
	if err := sess.Start("trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"); err != nil {
		t.Fatal(err)
	}
	io.ReadFull(out, make([]byte, 6))
	if err := sess.Signal(ssh.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := status(sess.Wait()); got != 9 {
		t.Errorf("status = %d, want the trap's 9", got)
	}
}

// TestShells: the first that can be started is taken; without one the agent's own words work still.
func TestShells(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	bad := []rescue.Shell{{Path: "/none/bash", Name: "bash"}, {Path: dir, Name: "sh"}, {Path: plain, Name: "sh"}, {Path: broken, Name: "sh"}}
	for _, terminal := range []bool{false, true} {
		run := func(shells []rescue.Shell, command string) (int, string) {
			s := start(t, func(c *rescue.Config) { c.Shells = shells })
			sess := session(t, s.client())
			if terminal {
				if err := sess.RequestPty("xterm", 24, 80, nil); err != nil {
					t.Fatal(err)
				}
			}
			out, err := sess.CombinedOutput(command)
			return status(err), string(out)
		}
		if got, out := run(append(bad, rescue.Shell{Path: "/bin/sh", Name: "sh"}), "echo $0; exit 6"); got != 6 || strings.TrimSpace(out) != "sh" {
			t.Errorf("terminal=%v, a good shell after bad ones: %d, %q, want 6, sh", terminal, got, out)
		}
		if got, out := run(bad, "echo"); got != 127 || !strings.Contains(out, "nothing can be run here") || !strings.Contains(out, "work in any case: status, log, retry") {
			t.Errorf("terminal=%v, no shell: %d, %q, want 127 and a word on it", terminal, got, out)
		}
		if got, out := run(bad, "status"); got != 0 || !strings.Contains(out, "status --state /state") {
			t.Errorf("terminal=%v, status without a shell: %d, %q", terminal, got, out)
		}
	}
	if _, err := os.Stat("/bin/busybox"); err == nil {
		s := start(t, func(c *rescue.Config) { c.Shells = []rescue.Shell{{Path: "/bin/busybox", Name: "sh"}} })
		if out, err := session(t, s.client()).Output("echo busy"); err != nil || string(out) != "busy\n" {
			t.Errorf("busybox: %q, %v", out, err)
		}
	}
}
