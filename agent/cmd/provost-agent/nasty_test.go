// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"provost/proto"
	"provost/proto/prototest"
)

// nasty is a script that does what scripts should not do, run by the real program in phase post, before a step that is good.
// Its text is in package proc's testdata, where the same scripts end one by one with and without a cgroup.
type nasty struct {
	script  string
	timeout time.Duration // 1 min if 0
	mounts  string        // shell, in a mount namespace of the run's own; $1 is the machine's directory
	watch   bool          // another process reports
	runs    []int         // exit statuses of run, which is called that often; one, 0, if nil
	after   int           // good steps that follow; 1 if 0
	ends    string        // how each step and each run ended
	notes   []string      // what the journal says of it beside that
	says    string        // what run says to whoever called it
	log     string        // the end of the step's log at the collector
}

// floodMB is how much the step floods prints: a step that prints 10 GB costs minutes.
func floodMB(t *testing.T) int {
	gb := os.Getenv("PROVOST_NASTY_GB")
	if gb == "" {
		return 256
	}
	n, err := strconv.Atoi(gb)
	if err != nil || n < 1 {
		t.Fatalf("PROVOST_NASTY_GB=%s: want a number of GB", gb)
	}
	return 1000 * n
}

// TestNasty: whatever a script does, its end is told as what it was, the phase goes on or ends as the plan wants it, and the
// collector has each event once.
func TestNasty(t *testing.T) {
	const soon = 20 * time.Second // a shell has begun by then
	for _, tt := range []nasty{
		{script: "daemon-keeps-stdout", ends: "nasty=ok after=ok run=ok", notes: []string{`left 1 processes behind: .*\(sleep 1000\): they were ended`}, log: "started\n"},
		{script: "double-fork", ends: "nasty=ok after=ok run=ok", notes: []string{`left 1 processes behind: .*\(sleep 1001\): they were ended`}, log: "forked\n"},
		{script: "fork-loop", ends: "nasty=ok after=ok run=ok", notes: []string{`left \d+ processes behind: .*: they were ended`}, log: "loops\n"},
		{script: "ignores-term", timeout: soon, runs: []int{1}, ends: "nasty=timeout(SIGKILL) run=timeout", log: "deaf\n"},
		{script: "stops-itself", timeout: soon, runs: []int{1}, ends: "nasty=timeout(SIGTERM) run=timeout", log: "stopping\n"},
		{script: "floods", ends: "nasty=ok after=ok run=ok", log: "end of flood\n"},
		{script: "garbage", runs: []int{1}, ends: "nasty=failed(1) run=failed", log: "nul:\x00 utf:\xff\xfe\xc3( esc:\x1b[31m cr\rafter\nno newline at the end"},
		{script: "closes-stdout", runs: []int{1}, ends: "nasty=failed(7) run=failed", log: "before\n"},
		{script: "deletes-itself", ends: "nasty=ok after=ok run=ok", log: "gone\n"},
		{script: "kills-parent", watch: true, runs: []int{-1, 1}, ends: "run=interrupted nasty=interrupted run=interrupted"},
		{script: "kills-itself", runs: []int{1}, ends: "nasty=signal(SIGKILL) run=signal", log: "dying\n"},
		{script: "reads-stdin", ends: "nasty=ok after=ok run=ok", log: "no answer\n"},
		{script: "fills-disk", mounts: `mount -t tmpfs -o size=96m all "$1"; cp -a "$1.files/." "$1"`, after: 12, ends: "nasty=ok" + strings.Repeat(" after=ok", 12) + " run=ok",
			notes: []string{`the disk of the journal is full: free some space in /`, `the log nasty.log cannot be written: .*no space left`},
			says:  `is full: free some space; steps go on, records go into a reserve`},
		{script: "remounts-read-only", mounts: `mount -t tmpfs target "$1/target"`, runs: []int{1}, ends: "nasty=ok after=preflight run=preflight",
			notes: []string{`the mirror on the target cannot be written: .*read-only file system`}, says: `read-only file system`, log: "read-only\n"},
		{script: "removes-journal", watch: true, ends: "nasty=ok after=ok run=ok", says: `somebody removed .*/journal: it is made anew`, log: "gone\n"},
	} {
		t.Run(tt.script, func(t *testing.T) {
			t.Parallel()
			tt.test(t)
		})
	}
}

func (n nasty) test(t *testing.T) {
	if n.mounts != "" && os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	text, err := os.ReadFile(filepath.Join("../../internal/proc/testdata", n.script))
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	limit, grace, mb := proto.Duration(cmp.Or(n.timeout, time.Minute)), proto.Duration(200*time.Millisecond), 0
	if n.timeout != 0 && n.script == "stops-itself" {
		grace = proto.Duration(time.Minute) // who obeys has time for it
	}
	if n.script == "floods" {
		mb = floodMB(t)
		limit = proto.Duration(time.Hour)
	}
	bad := step("nasty", proto.PhasePost, "")
	bad.Body, bad.Step.Timeout, bad.Step.Grace = string(text), &limit, &grace
	bad.Step.Env = map[string]string{"NASTY_STATE": m.state, "NASTY_MB": strconv.Itoa(mb)}
	plan := []prototest.Script{bad}
	for i := range max(1, n.after) {
		plan = append(plan, step(fmt.Sprintf("after%d", i), proto.PhasePost, "echo good"))
	}
	m.id, _ = m.c.InstallPlan("n1", plan, func(p *proto.Plan) { p.OnFailure = proto.OnFailureExit })
	m.write("token", m.c.Token(m.id, prototest.Boot1))
	m.mkdir("target")
	stop := func() {}
	if n.watch {
		stop = m.watch()
		m.wait(staged("agent-started"))
	}
	var said strings.Builder
	for _, want := range append(n.runs, make([]int, max(0, 1-len(n.runs)))...) {
		r := m.runNasty(n)
		said.WriteString(r.err)
		if r.code != want {
			t.Errorf("run = %d, want %d; it said:\n%s", r.code, want, r.err)
		}
		m.wait(func(e proto.Event) bool { return e.Kind == proto.KindRunEnd })
	}
	m.wait(func(e proto.Event) bool {
		return e.Kind == proto.KindRunEnd && (!n.watch || n.runs == nil || e.Step == "nasty")
	})
	log := m.nastyLog(n)
	stop()
	m.story() // each event once, in order
	if got := ends(m.c.Events(m.id)); got != n.ends {
		t.Errorf("it ended %s, want %s; run said:\n%s", got, n.ends, said.String())
	}
	m.wantNotes(n.notes)
	// What has become of the journal is said by whichever of the two writes to it first.
	if !regexp.MustCompile(n.says).MatchString(said.String()+m.watchSaid) || strings.Contains(said.String(), "not everything is delivered") {
		t.Errorf("run said %q, want %q", said.String(), n.says)
	}
	if !bytes.HasSuffix(log, []byte(n.log)) || n.log != "" && n.script != "floods" && bytes.Count(log, []byte("\n")) != 1+strings.Count(n.log, "\n") {
		t.Errorf("nasty.log = %q, want one line, then %q", log[max(0, len(log)-2000):], n.log)
	}
	if mb > 0 {
		m.wantLittle(said.String())
	}
}

var stamps = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z `)

// nastyLog is the step's log at the collector without its stamps; a watch sends it after the events; that is waited for 2 minutes.
func (m *machine) nastyLog(n nasty) (log []byte) {
	for range 1200 {
		if log = stamps.ReplaceAll(m.c.Log(m.id, "nasty.log"), nil); bytes.HasSuffix(log, []byte(n.log)) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return log
}

// runNasty runs phase post, at most an hour, and says how much memory it has used at most.
func (m *machine) runNasty(n nasty) result {
	m.Helper()
	args := []string{"provost-agent", "run", "--phase", "post", "--root", m.path("target"), "--state", m.state}
	if !n.watch {
		args = append(args, m.login...)
	}
	if n.mounts != "" {
		if err := os.CopyFS(m.dir+".files", os.DirFS(m.dir)); err != nil {
			m.Fatal(err)
		}
		defer os.RemoveAll(m.dir + ".files")
		args = append([]string{"unshare", "--mount", "sh", "-c", "set -e\n" + n.mounts + "\nshift\n" + `exec "$@"`, "sh", m.dir}, args...)
	}
	ctx, cancel := context.WithTimeout(m.Context(), time.Hour)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("an answer\n"), &stdout, &stderr
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var err error
	for over := false; !over; {
		select {
		case err = <-done:
			over = true
		case <-time.After(50 * time.Millisecond):
			m.peak = max(m.peak, highest(cmd.Process.Pid))
		}
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// highest is the most KiB that a process has had in memory, 0 if it is gone.
func highest(pid int) (kib int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(b), "\nVmHWM:")
	fmt.Sscan(rest, &kib)
	return kib
}

// ends says how steps and runs ended, in their order.
func ends(events []proto.Event) string {
	var out []string
	for _, e := range events {
		what := strings.TrimRight(e.Step, "0123456789")
		switch {
		case e.Kind == proto.KindRunEnd:
			what = "run"
		case e.Kind != proto.KindStepEnd:
			continue
		}
		s := what + "=" + string(e.Outcome)
		if e.Kind == proto.KindStepEnd && e.Signal != "" {
			s += "(" + e.Signal + ")"
		} else if e.Kind == proto.KindStepEnd && e.Exit != 0 {
			s += fmt.Sprintf("(%d)", e.Exit)
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// wantNotes checks that each of the notes came once.
func (m *machine) wantNotes(want []string) {
	m.Helper()
	for _, re := range want {
		var got []string
		n := 0
		for _, e := range m.c.Events(m.id) {
			if e.Kind == proto.KindNote {
				got = append(got, e.Message)
				if regexp.MustCompile(re).MatchString(e.Message) {
					n++
				}
			}
		}
		if n != 1 {
			m.Errorf("%d notes say %q, want one; there are\n%s", n, re, strings.Join(got, "\n"))
		}
	}
}

// What a step may take that prints as much as it can: a log has its first 16 MiB and its last, and memory is for buffers.
const (
	mostLog    = 20 << 20
	mostMemory = 160 << 10 // KiB, for a program with all of the tests in it, and maybe with the race detector; less than is printed
)

func (m *machine) wantLittle(said string) {
	m.Helper()
	var disk int64
	filepath.WalkDir(m.dir, func(path string, d fs.DirEntry, err error) error {
		if info, err := d.Info(); err == nil && strings.HasSuffix(path, ".log") {
			disk = max(disk, info.Size())
		}
		return nil
	})
	if disk < 1<<20 || disk > mostLog {
		m.Errorf("the longest log has %d bytes, want %d at most", disk, mostLog)
	}
	if m.peak == 0 || m.peak > mostMemory {
		m.Errorf("the run used %d KiB of memory, want %d at most", m.peak, mostMemory)
	}
	m.Logf("%d KiB of memory at most, the longest log %d bytes; run said %q", m.peak, disk, said)
}
