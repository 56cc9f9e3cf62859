// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/agent/internal/journal"
	"provost/agent/internal/proc"
	"provost/agent/internal/run"
	"provost/proto"
)

// job is what another agent process is to do.
type job struct {
	Plan proto.Plan
	Opts run.Options
	Boot string
}

// agent is a whole agent process that runs one phase. Its exit status is 0 when all is well, 1 when a step failed, 3 when
// the machine is to restart.
func agent(state string) int {
	var j job
	b, err := os.ReadFile(filepath.Join(state, "job.json"))
	if err == nil {
		err = json.Unmarshal(b, &j)
	}
	if err == nil {
		err = proc.BecomeSubreaper()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 70
	}
	begin := time.Now()
	crash := crashAt(state)
	jn, err := journal.Open(state, func() (time.Time, string, time.Duration) { return time.Now(), j.Boot, time.Since(begin) }, journal.Options{Crash: crash})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 70
	}
	defer jn.Close()
	r, err := run.Run(context.Background(), run.Deps{Journal: jn, Plan: &j.Plan, StateDir: state, Boot: j.Boot, Attempt: 2, Processes: processes, ProcessArgs: argsOf, Crash: crash,
		Lib: filepath.Join(state, "lib"), Script: func(d string) (string, error) { return filepath.Join(state, "files", d), nil }}, j.Opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 70
	}
	switch {
	case r.Reboot != nil && r.Action == run.ActReboot:
		return 3
	case r.Outcome != proto.OutcomeOK:
		return 1
	}
	return 0
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

// realBench has steps that are real scripts, run by a real agent process.
func realBench(t *testing.T, phase proto.Phase, scripts ...string) *bench {
	b := newBench(t)
	b.opts.Phase = phase
	for i, text := range scripts {
		timeout := proto.Duration(5 * time.Minute)
		no := false
		b.plan.Steps = append(b.plan.Steps, b.script(proto.Step{Name: fmt.Sprintf("s%d", i+1), Script: fmt.Sprintf("%d0-script", i+1), Phase: phase,
			Timeout: &timeout, Chroot: &no, Env: map[string]string{"NTP": "10.0.0.1", "LANG": "de_DE"}}, text))
	}
	if err := os.MkdirAll(filepath.Join(b.state, "lib"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.state, "lib", "provost.sh"), []byte("lib_says() { echo \"lib: $*\"; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) agentCommand() *exec.Cmd {
	b.t.Helper()
	text, err := json.Marshal(job{b.plan, b.opts, b.boot})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.state, "job.json"), text, 0o600); err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.CommandContext(b.t.Context(), os.Args[0])
	// When the test dies, an agent that hangs must not stay.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "PROVOST_TEST_RUN="+b.state, "SECRET_OF_THE_INSTALLER=1")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd
}

// live runs the phase in another process and gives its exit status.
func (b *bench) live() int {
	b.t.Helper()
	runtime.LockOSThread() // for Pdeathsig, which goes by the thread
	defer runtime.UnlockOSThread()
	cmd := b.agentCommand()
	err := cmd.Run()
	if cmd.ProcessState == nil {
		b.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// log is a step's log without the times in front.
func (b *bench) log(name string) []string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.state, "logs", name))
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for _, l := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if _, after, ok := strings.Cut(l, "Z "); ok && !strings.HasPrefix(l, "==") {
			l = after
		}
		out = append(out, l)
	}
	return out
}

func TestEnvironment(t *testing.T) {
	b := realBench(t, proto.PhasePre, `#!/bin/sh
env | grep -v -e '^PWD=' -e '^_=' -e '^SHLVL=' -e '^OLDPWD=' | LC_ALL=C sort
pwd
`)
	if code := b.live(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	d := b.state
	want := []string{
		"HOME=/root", "LANG=de_DE", "LOGNAME=root", "NTP=10.0.0.1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"PROVOST_AGENT=", "PROVOST_ATTEMPT=2", "PROVOST_ATTR_TIME_ZONE=Europe/Berlin", "PROVOST_INSTALL=" + install, "PROVOST_LIB=" + d + "/lib",
		"PROVOST_NODE=n1", "PROVOST_PHASE=pre", "PROVOST_PROFILE=fast", "PROVOST_REBOOTS=0", "PROVOST_ROOT=", "PROVOST_RUN=" + d + "/run",
		"PROVOST_STATUS=" + d + "/run/.status-s1", "PROVOST_STEP=s1", "PROVOST_TRY=1", "SHELL=/bin/sh", "TERM=dumb", "USER=root", "/",
	}
	if diff := cmp.Diff(want, b.log("s1-a2.log")[1:]); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestStatusFile(t *testing.T) {
	b := realBench(t, proto.PhasePre, `#!/bin/sh
. "$PROVOST_LIB/provost.sh"
lib_says hello
echo stage=disks-wiped >>"$PROVOST_STATUS"
echo "stage=no good name" >>"$PROVOST_STATUS"
echo stage=booted >>"$PROVOST_STATUS"
echo stage=sealed >>"$PROVOST_STATUS"
echo progress=40 >>"$PROVOST_STATUS"
printf 'message=disk sda is \033[31mbad' >>"$PROVOST_STATUS"
echo the last line that is printed
exit 9
`, "#!/bin/sh\n")
	if code := b.live(); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	b.tells("run-start", "s1#1", "stage disks-wiped", "note (warning)", "note (warning)", "s1#1=failed", "run-end=failed(s1)")
	es := b.events()
	if e := es[3]; e.Step != "s1" || !strings.Contains(e.Message, "step s1 reports stage booted, which is not a step's to say") {
		t.Errorf("note of a stage that no step may report = %+v", e)
	}
	if e := es[5]; e.Exit != 9 || e.Message != "disk sda is \x1b[31mbad" || !slices.Equal(e.Tail, []string{"lib: hello", "the last line that is printed"}) {
		t.Errorf("step-end = %+v", e)
	}
}

// TestStatusFileIsNotTrusted: a step may put anything in the place of its status file; the agent neither hangs nor reads it.
func TestStatusFileIsNotTrusted(t *testing.T) {
	b := realBench(t, proto.PhasePre,
		"#!/bin/sh\nrm \"$PROVOST_STATUS\"; mkfifo \"$PROVOST_STATUS\"; sleep 0.7\n",
		"#!/bin/sh\nrm \"$PROVOST_STATUS\"; echo message=stolen >/tmp/x.$$; ln -s /tmp/x.$$ \"$PROVOST_STATUS\"; sleep 0.7; rm /tmp/x.$$\n",
		"#!/bin/sh\nrm \"$PROVOST_STATUS\"; mkdir \"$PROVOST_STATUS\"; sleep 0.7\n",
		"#!/bin/sh\ni=0; while [ $i -lt 300 ]; do echo stage=s$i; i=$((i+1)); done >>\"$PROVOST_STATUS\"\n")
	if code := b.live(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	stages, notes := 0, 0
	for _, e := range b.events() {
		if e.Kind == proto.KindStage {
			stages++
		}
		if e.Kind == proto.KindNote && strings.Contains(e.Message, "more stages") {
			notes++
		}
		if strings.Contains(e.Message, "stolen") {
			t.Errorf("what a link points to was read: %+v", e)
		}
	}
	if stages != 100 || notes != 1 {
		t.Errorf("%d stages and %d notes, want 100 and 1", stages, notes)
	}
}

func TestStragglersAreNamed(t *testing.T) {
	b := realBench(t, proto.PhasePre, "#!/bin/sh\nsleep 1234 &\nuntil read -r name <\"/proc/$!/comm\" && [ \"$name\" = sleep ]; do :; done\nexit 0\n", "#!/bin/sh\necho next\n")
	if code := b.live(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	b.tells("run-start", "s1#1", "note", "s1#1=ok", "s2#1", "s2#1=ok", "run-end=ok")
	if m := b.events()[2].Message; !strings.Contains(m, "left 1 processes behind") || !strings.Contains(m, "(sleep 1234)") {
		t.Errorf("note = %q", m)
	}
}

// alive reports whether a process runs.
func alive(pid string) bool {
	status, err := os.ReadFile("/proc/" + strings.TrimSpace(pid) + "/stat")
	return err == nil && !bytes.Contains(status, []byte(") Z "))
}

// TestStepKillsAgent: the step dies with its agent, and counts as interrupted.
func TestStepKillsAgent(t *testing.T) {
	b := realBench(t, proto.PhasePre, "#!/bin/sh\necho $$ >\"$PROVOST_RUN/pid\"\nkill -9 $PPID\nexec sleep 300\n", "#!/bin/sh\necho second\n")
	if code := b.live(); code != -1 {
		t.Errorf("exit status %d, want a kill", code)
	}
	st, err := run.ReadState(b.state)
	if err != nil || st.Alive || st.Done || st.Step != "s1" {
		t.Errorf("ReadState of a run that died = %+v, %v", st, err)
	}
	if code := b.live(); code != 1 {
		t.Errorf("second exit status %d, want 1", code)
	}
	if alive(string(must(os.ReadFile(filepath.Join(b.state, "run", "pid"))))) {
		t.Error("the step still runs")
	}
	b.tells("run-start", "s1#1", "run-start", "s1#1=interrupted", "run-end=interrupted(s1)")
	b.order(proto.VerbSkip, "")
	if code := b.live(); code != 0 {
		t.Errorf("third exit status %d, want 0", code)
	}
}

// TestLeftover: what a step had started when its agent was killed is ended before anything runs again.
func TestLeftover(t *testing.T) {
	b := realBench(t, proto.PhasePre, "#!/bin/sh\nsleep 4321 &\necho $! >\"$PROVOST_RUN/pid\"\nwait\n")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := b.agentCommand()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(b.state, "run", "pid")
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if st, err := run.ReadState(b.state); err == nil && st.StepStart != 0 {
			if text, err := os.ReadFile(pidFile); err == nil && len(text) > 0 {
				break
			}
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	pid := string(must(os.ReadFile(pidFile)))
	if !alive(pid) {
		t.Error("the step's child died with the agent: this test tests nothing")
	}
	if code := b.live(); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	if alive(pid) {
		t.Error("the step's child still runs")
	}
	b.tells("run-start", "s1#1", "note (warning)", "run-start", "s1#1=interrupted", "run-end=interrupted(s1)")
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestTargetOutsideChroot: phase post with the target's mirror, for steps outside of the chroot.
func TestTargetOutsideChroot(t *testing.T) {
	root := t.TempDir()
	b := realBench(t, proto.PhasePost, "#!/bin/sh\necho root=$PROVOST_ROOT\ncat \"$PROVOST_RUN/from-pre\"\n")
	b.opts.Root = root
	if err := os.MkdirAll(filepath.Join(b.state, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.state, "run", "from-pre"), []byte("kept from phase pre\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := b.live(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if d := cmp.Diff([]string{"root=" + root, "kept from phase pre"}, b.log("s1-a2.log")[1:]); d != "" {
		t.Errorf("log (-want +got):\n%s", d)
	}
	var kinds []string
	for r, err := range journal.Scan(filepath.Join(root, "var/lib/provost/journal")) {
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, string(r.Event.Kind))
	}
	if d := cmp.Diff([]string{"run-start", "step-start", "step-end", "run-end"}, kinds); d != "" {
		t.Errorf("mirror (-want +got):\n%s", d)
	}
	a, c := must(os.ReadFile(filepath.Join(b.state, "logs/s1-a2.log"))), must(os.ReadFile(filepath.Join(root, "var/log/provost", install, "s1-a2.log")))
	if !bytes.Equal(a, c) {
		t.Errorf("the mirror's log is %q, want %q", c, a)
	}
}

// TestChroot runs a step in a root whose only program is busybox.
func TestChroot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing root needs root")
	}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("no busybox here, which would be the root's only program")
	}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), box, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chroot", root, "/bin/busybox", "true").CombinedOutput(); err != nil {
		t.Skipf("this busybox is not static: %s", out)
	}
	os.Symlink("busybox", filepath.Join(root, "bin/sh"))
	b := realBench(t, proto.PhasePost, `#!/bin/sh
. "$PROVOST_LIB/provost.sh"
lib_says "in $0, root is '$PROVOST_ROOT', $PROVOST_RUN"
echo "message=from inside" >>"$PROVOST_STATUS"
exit 4
`)
	b.plan.Steps[0].Chroot = nil // which is true in phase post
	b.opts.Root = root
	if code := b.live(); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	b.tells("run-start", "s1#1", "note (warning)", "s1#1=failed", "run-end=failed(s1)")
	es := b.events()
	if m := es[2].Message; !strings.Contains(m, "/proc is not mounted in the target") {
		t.Errorf("note = %q", m)
	}
	want := []string{"lib: in /var/lib/provost/bin/steps/10-script, root is '', /var/lib/provost/run"}
	if e := es[3]; e.Exit != 4 || e.Message != "from inside" || !slices.Equal(e.Tail, want) {
		t.Errorf("step-end = %+v, want tail %q", e, want)
	}
	b.opts.Root = ""
	if code := b.live(); code != 1 {
		t.Errorf("without --root: exit status %d, want 1", code)
	}
	es = b.events()
	if m := es[len(es)-1].Message; !strings.Contains(m, "say with --root where that is mounted") {
		t.Errorf("without --root: %q", m)
	}
}

// TestLongName: the log of a step with the longest name still has a name that the collector takes.
func TestLongName(t *testing.T) {
	b := realBench(t, proto.PhasePre, "#!/bin/sh\necho one\n", "#!/bin/sh\necho two\n")
	b.plan.Steps[0].Name = strings.Repeat("n", 63) + "1"
	b.plan.Steps[1].Name = strings.Repeat("n", 63) + "2"
	if code := b.live(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	logs := map[string]bool{}
	for _, e := range b.events() {
		if e.Log != "" {
			logs[e.Log] = true
		}
	}
	if len(logs) != 2 {
		t.Errorf("logs %v, want two", logs)
	}
}
