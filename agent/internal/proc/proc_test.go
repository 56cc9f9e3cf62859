// SPDX-License-Identifier: Apache-2.0

package proc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/agent/internal/proc"
	"provost/proto"
)

func TestMain(m *testing.M) {
	if err := proc.BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if args := os.Getenv("PROC_TEST_RUN"); args != "" {
		runAlone(args)
	}
	if err := flag.Set("test.parallel", "16"); err != nil { // these tests wait more than they compute
		panic(err)
	}
	os.Exit(m.Run())
}

// alone is a step to be run by a process of its own, as the agent does: it is the parent of all that the step leaves.
type alone struct {
	Script, Cgroup string
	Timeout, Grace time.Duration
	Settle         time.Duration // instead of the second that what is left may take to end; 0 is that
}

// ended is what became of it.
type ended struct {
	proc.Result
	Took time.Duration
	Left []string // children of the process that ran it, alive or as zombies
}

// runAlone is the other side of alone.run.
func runAlone(args string) {
	var a alone
	if err := json.Unmarshal([]byte(args), &a); err != nil {
		panic(err)
	}
	s := spec(a.Script)
	s.Cgroup, s.Timeout, s.Grace = a.Cgroup, a.Timeout, a.Grace
	if a.Settle != 0 {
		proc.SetSettleTime(a.Settle)
	}
	begin := time.Now()
	e := ended{Result: proc.Run(context.Background(), s)}
	e.Took = time.Since(begin)
	for _, p := range children() {
		e.Left = append(e.Left, fmt.Sprintf("%d (%s, %c)", p.PID, argsOf(p.PID), p.State))
		syscall.Kill(p.PID, syscall.SIGKILL)
	}
	if err := json.NewEncoder(os.Stdout).Encode(e); err != nil {
		panic(err)
	}
	os.Exit(0)
}

// run gives how the step ended, and fails when it left a process or took nearly as long as it may at most.
func (a alone) run(t *testing.T) proc.Result {
	t.Helper()
	args, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "PROC_TEST_RUN="+string(args))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var e ended
	if err := json.Unmarshal(out, &e); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	if e.Took > 2*time.Minute { // the longest, fork-loop, takes 3 s of waiting on an idle machine, and that of a hang has no end
		t.Errorf("took %s", e.Took)
	}
	for _, l := range e.Left {
		t.Errorf("process %s is left", l)
	}
	return e.Result
}

// children are this process's own.
func children() []proc.Process {
	all, err := processes()
	if err != nil {
		panic(err)
	}
	return slices.DeleteFunc(all, func(p proc.Process) bool { return p.PPID != os.Getpid() })
}

// processes reads /proc, as package host does it for the agent.
func processes() ([]proc.Process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var out []proc.Process
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "stat"))
		if err != nil {
			continue
		}
		s := string(b)
		open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
		f := strings.Fields(s[end+1:])
		p := proc.Process{Name: s[open+1 : end], State: f[0][0]}
		p.PID, _ = strconv.Atoi(filepath.Base(d))
		p.PPID, _ = strconv.Atoi(f[1])
		p.Session, _ = strconv.Atoi(f[3])
		p.Start, _ = strconv.ParseUint(f[19], 10, 64)
		out = append(out, p)
	}
	return out, nil
}

// argsOf gives what a process was started with, likewise.
func argsOf(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return string(bytes.TrimRight(bytes.ReplaceAll(b, []byte{0}, []byte{' '}), " "))
}

// cgroups gives a directory of a cgroup v2 hierarchy where groups can be made, or "".
func cgroups(t *testing.T) string {
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(top, "cgroup.procs")); err != nil {
			continue
		}
		if dir, err := os.MkdirTemp(top, "provost-test-"); err == nil {
			if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
				t.Cleanup(func() {
					if err := os.Remove(dir); err != nil {
						t.Errorf("a step's cgroup was left: %v", err)
					}
				})
				return dir
			}
			os.Remove(dir)
		}
	}
	return ""
}

func spec(name string) proc.Spec {
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		panic(err)
	}
	return proc.Spec{Name: name, Path: path, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Timeout: 5 * time.Minute,
		Grace: 150 * time.Millisecond, Processes: processes, ProcessArgs: argsOf}
}

var stamp = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z `)

// ways runs a test with cgroup v2 and without.
func ways(t *testing.T, f func(t *testing.T, cgroup string)) {
	t.Run("session", func(t *testing.T) { f(t, "") })
	t.Run("cgroup", func(t *testing.T) {
		dir := cgroups(t)
		if dir == "" {
			t.Skip("no cgroup v2 hierarchy can be written here")
		}
		f(t, dir)
	})
}

// TestNasty runs every script that does what scripts should not do. Nothing of it may be left afterwards.
func TestNasty(t *testing.T) {
	const soon = 10 * time.Second // a shell has begun by then on any machine
	ended := func(signal string) proc.Result {
		return proc.Result{Outcome: proto.OutcomeTimeout, Signal: signal, Message: "not done after 10s: ended by the agent"}
	}
	ways(t, func(t *testing.T, cgroup string) {
		t.Parallel()
		for _, tt := range []struct {
			script  string
			timeout time.Duration
			grace   time.Duration
			want    proc.Result // Tail, Stragglers and Duration are compared apart
			tail    []string
			left    []string // names of what was left behind
			settle  time.Duration
		}{
			{script: "ok", want: proc.Result{Outcome: proto.OutcomeOK}, tail: []string{"out", "err", "last line"}},
			{script: "exit3", want: proc.Result{Outcome: proto.OutcomeFailed, Exit: 3, Message: "going to fail"}, tail: []string{"going to fail"}},
			{script: "daemon-keeps-stdout", want: proc.Result{Outcome: proto.OutcomeOK}, tail: []string{"started"}, left: []string{"sleep"}},
			{script: "double-fork", want: proc.Result{Outcome: proto.OutcomeOK}, tail: []string{"forked"}, left: []string{"sleep"}},
			{script: "ignores-term", timeout: soon, tail: []string{"deaf"}, want: ended("SIGKILL")},
			{script: "leaves-cgroup", timeout: soon, tail: []string{"left"}, want: ended("SIGKILL")},
			{script: "traps-term", timeout: soon, grace: time.Minute, tail: []string{"waiting", "cleaned up"}, want: ended("SIGTERM")},
			{script: "stops-itself", timeout: soon, grace: time.Minute, tail: []string{"stopping"}, want: ended("SIGTERM")},
			{script: "fork-tree", timeout: soon, tail: []string{"tree"}, want: ended("SIGKILL")},
			{script: "setsid-leader", timeout: soon, tail: []string{"inner"}, want: ended("SIGKILL")},
			{script: "garbage", want: proc.Result{Outcome: proto.OutcomeFailed, Exit: 1, Message: "no newline at the end"},
				tail: []string{"after", "no newline at the end"}},
			{script: "closes-stdout", want: proc.Result{Outcome: proto.OutcomeFailed, Exit: 7, Message: "before"}, tail: []string{"before"}},
			{script: "kills-itself", want: proc.Result{Outcome: proto.OutcomeSignal, Signal: "SIGKILL", Message: "dying"}, tail: []string{"dying"}},
			{script: "segv", want: proc.Result{Outcome: proto.OutcomeSignal, Signal: "SIGSEGV", Message: "ended by SIGSEGV that did not come from the agent"}},
			{script: "reads-stdin", want: proc.Result{Outcome: proto.OutcomeOK}, tail: []string{"no answer"}},
			{script: "tee", want: proc.Result{Outcome: proto.OutcomeOK}, tail: []string{"through tee", "late"}, settle: time.Minute},
			{script: "pipeline-hides", want: proc.Result{Outcome: proto.OutcomeOK}},
		} {
			t.Run(tt.script, func(t *testing.T) {
				t.Parallel()
				a := alone{Script: tt.script, Cgroup: cgroup, Timeout: 5 * time.Minute, Grace: 150 * time.Millisecond, Settle: tt.settle}
				if tt.timeout != 0 {
					a.Timeout = tt.timeout
				}
				if tt.grace != 0 {
					a.Grace = tt.grace
				}
				got := a.run(t)
				if d := cmp.Diff(tt.tail, got.Tail); d != "" {
					t.Errorf("tail (-want +got):\n%s", d)
				}
				var left []string
				for _, p := range got.Stragglers {
					left = append(left, p.Name)
					if !p.Killed {
						t.Errorf("%v was not killed", p)
					}
				}
				if d := cmp.Diff(tt.left, left); d != "" {
					t.Errorf("left behind (-want +got):\n%s", d)
				}
				got.Tail, got.Stragglers, got.Duration = nil, nil, 0
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Errorf("result (-want +got):\n%s", d)
				}
			})
		}
		t.Run("fork-loop", func(t *testing.T) {
			t.Parallel()
			got := alone{Script: "fork-loop", Cgroup: cgroup, Timeout: 5 * time.Minute, Grace: 150 * time.Millisecond}.run(t)
			if got.Outcome != proto.OutcomeOK || len(got.Stragglers) == 0 {
				t.Errorf("Run(fork-loop) = %s with %d stragglers, want ok with some", got.Outcome, len(got.Stragglers))
			}
		})
	})
}

// TestRunnerKeepsNothingBad: whatever a step does, the next one that the same Runner starts does not feel it.
func TestRunnerKeepsNothingBad(t *testing.T) {
	ways(t, func(t *testing.T, cgroup string) {
		r := proc.NewRunner()
		defer r.Close()
		for _, script := range []string{"ignores-term", "daemon-keeps-stdout", "stops-itself", "kills-itself", "fork-tree", "closes-stdout", "flood", "missing"} {
			s := spec(script)
			s.Cgroup, s.Timeout = cgroup, 700*time.Millisecond
			if script == "flood" {
				s.Timeout = 5 * time.Minute
			}
			r.Run(t.Context(), s)
			var log bytes.Buffer
			next := spec("ok")
			next.Cgroup, next.Output = cgroup, &log
			got := r.Run(t.Context(), next)
			if got.Outcome != proto.OutcomeOK || len(got.Stragglers) > 0 || stamp.ReplaceAllString(log.String(), "") != "out\nerr\nlast line\n" {
				t.Errorf("ok after %s = %s %s %q, stragglers %v, log %q", script, got.Outcome, got.Signal, got.Message, got.Stragglers, log.String())
			}
		}
		noneLeft(t)
	})
}

// noneLeft fails when this process has children that are not its own, alive or as zombies.
func noneLeft(t *testing.T) {
	t.Helper()
	for _, p := range children() {
		t.Errorf("process %d (%s, %c) is left", p.PID, argsOf(p.PID), p.State)
		syscall.Kill(p.PID, syscall.SIGKILL)
	}
}

func TestDeletesItself(t *testing.T) {
	s := spec("deletes-itself")
	b, err := os.ReadFile(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	s.Path = filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(s.Path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := proc.Run(t.Context(), s); got.Outcome != proto.OutcomeOK {
		t.Errorf("Run(deletes-itself) = %+v, want ok", got)
	}
}

func TestLogHasStampsInOrder(t *testing.T) {
	var log bytes.Buffer
	s := spec("ok")
	s.Output = &log
	proc.Run(t.Context(), s)
	if n := len(stamp.FindAllString(log.String(), -1)); n != 3 {
		t.Errorf("%d lines have a time in front, want 3:\n%s", n, log.String())
	}
	if got, want := stamp.ReplaceAllString(log.String(), ""), "out\nerr\nlast line\n"; got != want {
		t.Errorf("log = %q, want %q", got, want)
	}
}

func TestLogKeepsEveryByte(t *testing.T) {
	var log bytes.Buffer
	s := spec("garbage")
	s.Output = &log
	proc.Run(t.Context(), s)
	want := "nul:\x00 utf:\xff\xfe\xc3( esc:\x1b[31m cr\rafter\nno newline at the end"
	if got := stamp.ReplaceAllString(log.String(), ""); got != want {
		t.Errorf("log = %q, want %q", got, want)
	}
}

// hung is a sink that never takes anything.
type hung struct{ release chan struct{} }

func (h hung) Write(p []byte) (int, error) { <-h.release; return len(p), nil }

func TestHungSinkHarmsNothing(t *testing.T) {
	h := hung{make(chan struct{})}
	defer close(h.release)
	s := spec("flood")
	s.Output = h
	got := proc.Run(t.Context(), s)
	if got.Outcome != proto.OutcomeOK || got.Lost < 40_000_000 {
		t.Errorf("Run with a hung sink = %s, %d bytes lost; want ok and nearly all", got.Outcome, got.Lost)
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	if mem.HeapAlloc > 30<<20 {
		t.Errorf("%d MiB of memory are in use after 50 MB of output that nobody took", mem.HeapAlloc>>20)
	}
	if d := cmp.Diff("end of flood", got.Tail[len(got.Tail)-1]); d != "" {
		t.Errorf("tail (-want +got):\n%s", d)
	}
}

// TestPipeHeldByStranger: a process that is none of the step's holds the pipe open; the step's end does not wait for it.
func TestPipeHeldByStranger(t *testing.T) {
	s := spec("ok")
	s.Path = filepath.Join(t.TempDir(), "slow")
	if err := os.WriteFile(s.Path, []byte("#!/bin/sh\necho here\nwhile [ ! -e \"$0.held\" ]; do sleep 0.05; done\nexit 7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var held *os.File
	s.Started = func(pid int, _ string) {
		var err error
		if held, err = os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", pid), os.O_WRONLY, 0); err != nil {
			t.Error(err)
		}
		if err = os.WriteFile(s.Path+".held", nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	begin := time.Now()
	got := proc.Run(t.Context(), s)
	if took := time.Since(begin); got.Exit != 7 || took < time.Second || took > time.Minute {
		t.Errorf("exit %d after %s, want 7 after drainWait", got.Exit, took)
	}
	held.Close()
}

// brokenSink fails as a full disk does.
type brokenSink struct{}

func (brokenSink) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestFullDiskHarmsNothing(t *testing.T) {
	s := spec("ok")
	s.Output = brokenSink{}
	if got := proc.Run(t.Context(), s); got.Outcome != proto.OutcomeOK {
		t.Errorf("Run with a full disk = %+v, want ok", got)
	}
}

// once calls f when anything is printed.
type once struct{ f func() }

func (o once) Write(p []byte) (int, error) { o.f(); return len(p), nil }

func TestContext(t *testing.T) {
	for _, tt := range []struct {
		cause error
		want  proto.Outcome
	}{{proc.ErrAbort, proto.OutcomeAborted}, {errors.New("shutting down"), proto.OutcomeInterrupted}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		s := spec("ignores-term")
		s.Output = once{func() { cancel(tt.cause) }} // it is deaf for TERM when it prints
		if got := proc.Run(ctx, s); got.Outcome != tt.want || got.Signal != "SIGKILL" {
			t.Errorf("Run cancelled with %v = %s by %s, want %s by SIGKILL", tt.cause, got.Outcome, got.Signal, tt.want)
		}
		noneLeft(t)
	}
}

func TestSuccessCodes(t *testing.T) {
	s := spec("exit3")
	s.SuccessCodes = []int{0, 3}
	if got := proc.Run(t.Context(), s); got.Outcome != proto.OutcomeOK || got.Exit != 3 {
		t.Errorf("Run(exit3) with success code 3 = %s, exit %d, want ok, 3", got.Outcome, got.Exit)
	}
}

func TestLeaveRunning(t *testing.T) {
	ways(t, func(t *testing.T, cgroup string) {
		dir := t.TempDir()
		f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fmt.Fprintln(f, "from before")
		s := spec("leave-running")
		s.Args = []string{filepath.Join(dir, "speak")}
		s.Cgroup, s.LeaveRunning, s.OutputFile = cgroup, true, f
		got := proc.Run(t.Context(), s)
		t.Cleanup(func() {
			for _, p := range children() {
				syscall.Kill(p.PID, syscall.SIGKILL)
				syscall.Wait4(p.PID, nil, 0, nil)
			}
			left, _ := filepath.Glob(filepath.Join(cgroup, "*", "cgroup.procs"))
			for _, l := range left {
				if cgroup != "" {
					os.Remove(filepath.Dir(l))
				}
			}
		})
		if got.Outcome != proto.OutcomeOK || !slices.ContainsFunc(got.Stragglers, func(p proc.Straggler) bool { return !p.Killed }) {
			t.Fatalf("Run(leave-running) = %s, %v, want ok and a survivor", got.Outcome, got.Stragglers)
		}
		if d := cmp.Diff([]string{"leaving one"}, got.Tail); d != "" {
			t.Errorf("tail (-want +got):\n%s", d)
		}
		// The next step does not take the survivor for its own.
		next := spec("ok")
		next.Cgroup = cgroup
		if got := proc.Run(t.Context(), next); len(got.Stragglers) != 0 {
			t.Errorf("the next step has stragglers %v", got.Stragglers)
		}
		if err := os.WriteFile(s.Args[0], nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			b, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "from the survivor") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the survivor's output is not in the log: %q", b)
			}
		}
	})
}

func TestPreflight(t *testing.T) {
	for _, tt := range []struct{ script, want string }{
		{"missing", "is not there"},
		{"crlf", "DOS line ends"},
		{"bom", "byte order mark"},
		{"no-shebang", "has no #! line: begin it with #!/bin/sh"},
		{"not-executable", "is not executable: chmod +x it"},
		{"no-interpreter", "needs /no/such/interpreter: /no/such/interpreter is not there"},
		{"no-env", "needs no-such-language, which is not in the PATH"},
		{"relative", "names no interpreter by its absolute path"},
		{"empty", "is empty"},
		{".", "is no file"},
	} {
		s := spec(tt.script)
		s.Started = func(int, string) { t.Errorf("%s was started", tt.script) }
		got := proc.Run(t.Context(), s)
		if got.Outcome != proto.OutcomePreflight || !strings.Contains(got.Message, tt.want) {
			t.Errorf("Run(%s) = %s %q, want preflight with %q", tt.script, got.Outcome, got.Message, tt.want)
		}
	}
	s := spec("ok")
	s.Digest = strings.Repeat("0", 64)
	if got := proc.Run(t.Context(), s); got.Outcome != proto.OutcomePreflight || !strings.Contains(got.Message, "not what the plan says") {
		t.Errorf("Run with a wrong digest = %s %q", got.Outcome, got.Message)
	}
	s = spec("ok")
	b, err := os.ReadFile(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	s.Digest = proto.Digest(b)
	if got := proc.Run(t.Context(), s); got.Outcome != proto.OutcomeOK {
		t.Errorf("Run with the right digest = %s %q", got.Outcome, got.Message)
	}
	s.Timeout = 0
	if got := proc.Run(t.Context(), s); got.Outcome != proto.OutcomePreflight {
		t.Errorf("Run without a timeout = %s, want preflight", got.Outcome)
	}
}

// TestPreflightInRoot: what counts is what is inside the root, also behind links that are absolute there.
func TestPreflightInRoot(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	put("step", "#!/bin/sh\n", 0o755)
	s := spec("ok")
	s.Root, s.Path = root, "/step"
	check := func(want string) {
		t.Helper()
		err := proc.Preflight(s)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Preflight = %v, want %q", err, want)
		}
	}
	check("/step needs /bin/sh: /bin/sh is not there in " + root)

	sh, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	put("usr/real/sh", string(sh), 0o755)
	for link, to := range map[string]string{"bin": "/usr/bin", "usr/bin/sh": "/alt/sh", "alt": "../../usr/real"} {
		path := filepath.Join(root, link)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	check("needs the loader") // /bin/sh of this machine is linked dynamically
	s.Dir = "/nowhere"
	check("working directory /nowhere is not there in " + root)
	s.Dir = ""
	for _, l := range []string{"/loop1", "/loop2"} {
		other := map[string]string{"/loop1": "/loop2", "/loop2": "/loop1"}[l]
		if err := os.Symlink(other, filepath.Join(root, l)); err != nil {
			t.Fatal(err)
		}
	}
	s.Path = "/loop1"
	check("too many levels of symbolic links")
	s.Root = filepath.Join(root, "nothing")
	check("is no directory: is the target mounted there?")
}

// TestChroot needs root and a static program for a root: the test's own binary is one when cgo is off.
func TestChroot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing root needs root")
	}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("no busybox here, which would be the root's only program")
	}
	root := t.TempDir()
	for name, b := range map[string][]byte{"bin/busybox": box, "steps/s": []byte("#!/bin/sh\necho \"root has $(echo /*)\"\nexit 5\n")} {
		path := filepath.Join(root, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("busybox", filepath.Join(root, "bin/sh")); err != nil {
		t.Fatal(err)
	}
	s := spec("ok")
	s.Root, s.Path = root, "/steps/s"
	got := proc.Run(t.Context(), s)
	if got.Outcome == proto.OutcomePreflight && strings.Contains(got.Message, "loader") {
		t.Skip("this busybox is linked dynamically")
	}
	if d := cmp.Diff([]string{"root has /bin /steps"}, got.Tail); d != "" || got.Exit != 5 {
		t.Errorf("exit %d, %s, tail (-want +got):\n%s", got.Exit, got.Message, d)
	}
}

func TestNoexec(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOEXEC, "size=64k"); err != nil {
		t.Skip("no tmpfs can be mounted here: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	s := spec("ok")
	s.Path = filepath.Join(dir, "s")
	if err := os.WriteFile(s.Path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := proc.Run(t.Context(), s); got.Outcome != proto.OutcomePreflight || !strings.Contains(got.Message, "mounted noexec") {
		t.Errorf("Run on a noexec mount = %s %q", got.Outcome, got.Message)
	}
}

// TestWithoutHelp: neither cgroup nor a list of processes; the process group is all that is left, and still nothing hangs.
func TestWithoutHelp(t *testing.T) {
	s := spec("daemon-keeps-stdout")
	s.Processes = nil
	begin := time.Now()
	if got := proc.Run(t.Context(), s); got.Outcome != proto.OutcomeOK || len(got.Stragglers) != 1 {
		t.Errorf("Run = %s, %v, want ok and one straggler", got.Outcome, got.Stragglers)
	}
	if took := time.Since(begin); took > 2*time.Minute {
		t.Errorf("took %s", took)
	}
	noneLeft(t)
}

func TestEndLeftover(t *testing.T) {
	var mu sync.Mutex
	var pid int
	s := spec("fork-tree")
	s.Timeout = 10 * time.Minute
	s.Started = func(p int, _ string) { mu.Lock(); pid = p; mu.Unlock() }
	done := make(chan proc.Result, 1)
	go func() { done <- proc.Run(context.Background(), s) }()
	var start uint64
	for range 6000 { // 2 minutes
		time.Sleep(20 * time.Millisecond)
		mu.Lock()
		leader := pid
		mu.Unlock()
		all, err := processes()
		if err != nil {
			t.Fatal(err)
		}
		here := 0
		for _, p := range all {
			if p.PID == leader {
				start = p.Start
			}
			if p.Session == leader && leader != 0 {
				here++
			}
		}
		if here >= 13 {
			break
		}
	}
	if left := proc.EndLeftover("", pid, start+1, processes, argsOf, nil); left != nil {
		t.Fatalf("EndLeftover of another process's number killed %v", left)
	}
	if left := proc.EndLeftover("", pid, start, processes, argsOf, nil); len(left) < 13 {
		t.Errorf("EndLeftover killed %d processes, want 13: %v", len(left), left)
	}
	if got := <-done; got.Outcome != proto.OutcomeSignal {
		t.Errorf("the step ended %s, want signal", got.Outcome)
	}
}
