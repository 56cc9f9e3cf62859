// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"provost/collector/internal/cli"
	"provost/proto"
)

// terminal is a pseudo-terminal with what was written to it.
type terminal struct {
	*os.File // the program's end
	master   *os.File
	mu       sync.Mutex
	text     bytes.Buffer
	done     chan struct{}
}

func newTerminal(t *testing.T, rows, cols uint16) *terminal {
	t.Helper()
	m, s, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(s, &pty.Winsize{Rows: rows, Cols: cols}); err != nil {
		t.Fatal(err)
	}
	tt := &terminal{File: s, master: m, done: make(chan struct{})}
	go func() {
		defer close(tt.done)
		b := make([]byte, 4096)
		for {
			n, err := m.Read(b)
			tt.mu.Lock()
			tt.text.Write(b[:n])
			tt.mu.Unlock()
			if err != nil { // EIO when the program's end was closed
				return
			}
		}
	}()
	t.Cleanup(func() { s.Close(); m.Close() })
	return tt
}

func (t *terminal) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ReplaceAll(t.text.String(), "\r\n", "\n")
}

// end closes the program's end and gives all that was written.
func (t *terminal) end() string {
	t.Close()
	<-t.done
	return t.String()
}

func onTerminal(out io.Writer, in io.Reader, errs io.Writer, f *fake, env ...string) cli.Program {
	p := program(nil, nil, append(env, "PROVOST_SERVER="+f.server(), "TERM=xterm")...)
	p.Stdin, p.Stdout, p.Stderr = in, out, errs
	return p
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

func TestColour(t *testing.T) {
	f := start(t, hostileWorld())
	run := func(cmd string, env ...string) string {
		tt := newTerminal(t, 24, 80)
		onTerminal(tt.File, strings.NewReader(""), tt.File, f, env...).Run(t.Context(), strings.Fields(cmd))
		return tt.end()
	}
	for _, cmd := range everyCommand {
		text := run(cmd)
		safe(t, cmd+" on a terminal", sgr.ReplaceAllString(text, ""), "")
		if plain := run(cmd, "NO_COLOR=1"); plain != sgr.ReplaceAllString(text, "") && cmd != "version" {
			t.Errorf("%s: NO_COLOR changes more than the colour", cmd)
		}
	}
	if !sgr.MatchString(run("status")) {
		t.Error("status on a terminal has no colour")
	}
	if strings.Contains(run("status", "TERM=dumb"), "\x1b") {
		t.Error("status on a dumb terminal has colour")
	}
	var out, errs strings.Builder
	program(&out, &errs, "PROVOST_SERVER="+f.server(), "TERM=xterm").Run(t.Context(), []string{"status"})
	if strings.Contains(out.String(), "\x1b") {
		t.Error("status into a pipe has colour")
	}
}

// The failures stay in sight below a list that is longer than the screen; a row never takes two lines.
func TestStatusOnSmallScreen(t *testing.T) {
	f := many()
	long := strings.Repeat("long", 16)
	f.list.Nodes = append(f.list.Nodes, proto.Node{Name: "n201", Status: proto.StatusInstalling, Summary: "failed(" + long + "=1)", Stage: long, Deadline: dead(long, "5m")})
	start(t, f)
	tt := newTerminal(t, 24, 60)
	onTerminal(tt.File, strings.NewReader(""), tt.File, f, "NO_COLOR=1").Run(t.Context(), []string{"status"})
	text := tt.end()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if tail := strings.Join(lines[len(lines)-12:], "\n"); !strings.Contains(tail, "40 failed") || !strings.Contains(tail, "n[001-038]") {
		t.Errorf("the failures are out of sight at the end:\n%s", tail)
	}
	for _, l := range lines {
		if n := cli.Cells(l); n > 60 {
			t.Errorf("%d columns on a screen of 60: %s", n, l)
		}
	}
}

func TestWatch(t *testing.T) {
	f := start(t, many())
	tt := newTerminal(t, 24, 80)
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int)
	go func() {
		code <- onTerminal(tt.File, strings.NewReader(""), tt.File, f).Run(ctx, []string{"status", "--watch"})
	}()
	const begin = "\x1b[?7l\x1b[H"
	for deadline := time.Now().Add(60 * time.Second); strings.Count(tt.String(), begin) < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no three frames in 60 s: %q", tt.String())
		}
	}
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("status --watch, interrupted: exit status %d, want 0", got)
	}
	frame := strings.Split(tt.end(), begin)[1]
	if n := strings.Count(frame, "\n"); n != 23 {
		t.Errorf("a frame of %d lines on a screen of 24:\n%s", n+1, frame)
	}
	for _, want := range []string{"40 failed", "n[001-038]", "200 nodes in all", "Ctrl-C ends"} {
		if !strings.Contains(frame, want) {
			t.Errorf("the frame lacks %q:\n%s", want, frame)
		}
	}
	if strings.Contains(frame, "\x1b[J\x1b[?7h") == false {
		t.Error("the frame does not give the terminal its line wrap back")
	}
}

// TestWatchFollowsTheFeed: as long as the collector has no news it is not asked again, and one event brings a new frame.
func TestWatchFollowsTheFeed(t *testing.T) {
	f := many()
	f.push = make(chan string)
	f.feed = func(int, string) (string, bool, *proto.Problem) { return ": provost\nid: 4000\n\n", true, nil }
	start(t, f)
	asked := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.asked
	}
	tt := newTerminal(t, 24, 80)
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int)
	go func() {
		p := onTerminal(tt.File, strings.NewReader(""), tt.File, f)
		p.Still = time.Hour // nothing is drawn again but for news
		code <- p.Run(ctx, []string{"status", "--watch"})
	}()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s did not happen in 60 s: %d requests", what, asked())
			}
		}
	}
	until("the first frame", func() bool { return asked() > 0 })
	time.Sleep(500 * time.Millisecond) // polls are milliseconds apart here
	quiet := asked()
	if quiet > 3 {
		t.Errorf("%d requests for the status while nothing happened, want one, and one more for the opened feed", quiet)
	}
	f.push <- frame(proto.Event{Kind: proto.KindNote, Source: proto.SourceAgent, Node: "n1", Revision: 4001, Seq: 1, At: now, Time: now, Message: "m"})
	until("a frame after the event", func() bool { return asked() > quiet })
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("status --watch, interrupted: exit status %d, want 0", got)
	}
	tt.end()
}

func TestConfirm(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		code, orders int
	}{{"the number", "50\n", 0, 1}, {"another number", "49\n", 64, 0}, {"yes", "yes\n", 64, 0}, {"nothing", "\n", 64, 0}, {"end of input", "\x04", 64, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, many())
			tty := newTerminal(t, 24, 80)
			if _, err := tty.master.WriteString(tt.answer); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			code := onTerminal(&out, tty.File, tty.File, f).Run(t.Context(), []string{"install", "n[001-050]"})
			if code != tt.code || len(f.requests) != tt.orders {
				t.Errorf("answer %q: exit status %d, orders %q, want %d and %d", tt.answer, code, f.requests, tt.code, tt.orders)
			}
			if text := tty.end(); !strings.Contains(text, "this wipes and installs 50 nodes, 11 of them booted: n[001-050]") {
				t.Errorf("the question is %q", text)
			}
		})
	}
}

// What a node wrote never goes to a terminal raw.
func TestRawLogOnTerminal(t *testing.T) {
	f := start(t, hostileWorld())
	tt := newTerminal(t, 24, 80)
	code := onTerminal(tt.File, strings.NewReader(""), tt.File, f, "NO_COLOR=1").Run(t.Context(), []string{"log", "n2", "--raw"})
	text := tt.end()
	if code != 64 || !strings.Contains(text, "--raw would let") {
		t.Errorf("log --raw on a terminal: exit status %d, %q", code, text)
	}
	var out, errs strings.Builder
	code = program(&out, &errs, "PROVOST_SERVER="+f.server()).Run(t.Context(), []string{"log", "n2", "--raw"})
	if want := f.logs["n2/"+id3+"/otherpkgs.log"]; code != 0 || out.String() != want {
		t.Errorf("log --raw into a file: exit status %d, %q, want %q", code, out.String(), want)
	}
}

func TestInterruptedWait(t *testing.T) {
	f := start(t, progress(""))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	var out, errs strings.Builder
	if code := program(&out, &errs, "PROVOST_SERVER="+f.server()).Run(ctx, []string{"status", "--wait"}); code == 0 || code == 2 {
		t.Errorf("status --wait, interrupted: exit status %d", code)
	}
}
