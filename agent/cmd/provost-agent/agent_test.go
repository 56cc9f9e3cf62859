// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"provost/agent/internal/host"
	"provost/agent/internal/report"
	"provost/proto"
	"provost/proto/prototest"
)

func TestMain(m *testing.M) {
	// these tests wait for processes more than they compute
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"provost-agent": func() {
		if os.Getenv(hastyEnv) == "" {
			flushWait, goodWait, reportWait = patience, patience, patience
		}
		main()
	}})
}

// patience is what the program waits for a delivery where its own bounds are seconds: most tests want to see delivered what a
// command did, however slow the machine is. With hastyEnv it keeps its own, for where nobody can deliver anything.
const (
	patience = 5 * time.Minute
	hastyEnv = "PROVOST_TEST_HASTY"
)

// hasty is the environment of a program that keeps its own bounds.
func hasty() []string { return append(os.Environ(), hastyEnv+"=1") }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true, Setup: func(e *testscript.Env) error {
		e.Setenv("GORACE", "atexit_sleep_ms=0") // else each process of a story takes a second to end
		return nil
	}})
}

// machine is a node under test: real processes of the real program, with state directories of their own.
type machine struct {
	*testing.T
	c         *prototest.Collector
	id        string
	dir       string // below which everything lies
	state     string
	login     []string // options that lead to the collector
	hasty     bool     // the program keeps its own bounds
	peak      int      // KiB of memory that runNasty used at most
	watchSaid string   // the last watch's stderr, once it has ended
}

// step makes a step's script of shell text.
func step(name string, phase proto.Phase, body string) prototest.Script {
	no := false
	return prototest.Script{Step: proto.Step{Name: name, Phase: phase, Chroot: &no}, Body: "#!/bin/sh\n" + body + "\n"}
}

func newMachine(t *testing.T, scripts ...prototest.Script) *machine {
	t.Helper()
	m := &machine{T: t, c: prototest.New(t), dir: t.TempDir()}
	m.state = filepath.Join(m.dir, "run")
	m.c.Define(proto.NodeSpec{Name: "n1", MACs: []string{"52:54:00:00:00:01"}})
	m.id, _ = m.c.Install("n1", scripts)
	m.write("token", m.c.Token(m.id, prototest.Boot1))
	m.login = []string{"--url", m.c.URL(), "--ca", "sha256:" + proto.Digest(m.c.Authority.CertDER), "--token-file", m.path("token")}
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) write(name, text string) {
	m.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		m.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(text), 0o600); err != nil {
		m.Fatal(err)
	}
}

// result is how a process ended.
type result struct {
	code     int
	out, err string
}

// agent runs the program to its end, at most 5 minutes.
func (m *machine) agent(args ...string) result {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "provost-agent", args...)
	if m.hasty {
		cmd.Env = hasty()
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.Fatalf("provost-agent %v: %v", args, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// at adds the state directory and the way to the collector.
func (m *machine) at(args ...string) []string {
	return append(append(args, "--state", m.state), m.login...)
}

// want runs the program and checks its exit status.
func (m *machine) want(code int, args ...string) result {
	m.Helper()
	r := m.agent(args...)
	if r.code != code {
		m.Fatalf("provost-agent %s = %d, want %d; it said:\n%s", strings.Join(args, " "), r.code, code, r.err)
	}
	return r
}

// watch starts the program's watch in the background; stop ends it with SIGTERM.
func (m *machine) watch() (stop func()) {
	m.Helper()
	cmd := exec.Command("provost-agent", m.at("watch")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	stop = sync.OnceFunc(func() {
		cmd.Process.Signal(os.Interrupt)
		select {
		case err := <-done:
			m.watchSaid = stderr.String()
			wantEnded(m.T, err, &stderr)
		case <-time.After(2 * time.Minute):
			cmd.Process.Kill()
			<-done
			m.Errorf("watch did not end within 2 minutes; it said:\n%s", &stderr)
		}
	})
	m.Cleanup(stop)
	return stop
}

// wantEnded checks how a watch ended that was told to: 0 where all was sealed and delivered before, else 1 and why.
func wantEnded(t *testing.T, err error, stderr *bytes.Buffer) {
	t.Helper()
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) && exit.ExitCode() == 1 && strings.Contains(stderr.String(), "told to end") {
		return
	}
	t.Errorf("watch = %v, want 0, or 1 since it was told to end; it said:\n%s", err, stderr)
}

func (m *machine) wait(what func(proto.Event) bool) {
	m.Helper()
	m.c.WaitEvents(m.id, 2*time.Minute, what)
}

// story is the events of an install in short, one per line, and checks that each came once and in order.
func (m *machine) story() string {
	m.Helper()
	next := map[string]uint64{}
	var b strings.Builder
	for _, e := range m.c.Events(m.id) {
		if next[e.Journal]++; e.Seq != next[e.Journal] {
			m.Errorf("event %d of journal %s where %d is due:\n%s", e.Seq, e.Journal, next[e.Journal], prototest.Describe(m.c.Events(m.id)))
		}
		if e.Kind == proto.KindNote {
			continue // what the agent notices on the machine that the test runs on
		}
		f := []string{string(e.Kind)}
		for _, s := range []string{string(e.Phase), e.Step, e.Stage, string(e.Outcome), string(e.Cause), e.Order} {
			if s != "" {
				f = append(f, s)
			}
		}
		b.WriteString(strings.Join(f, " ") + "\n")
	}
	return b.String()
}

func (m *machine) wantStory(want string) {
	m.Helper()
	if diff := cmp.Diff(strings.TrimLeft(want, "\n"), m.story()); diff != "" {
		m.Errorf("events (-want +got):\n%s", diff)
	}
}

// wantLog waits at most 2 minutes for a log at the collector that has a text: a watch sends it after the events.
func (m *machine) wantLog(name, text string) {
	m.Helper()
	for range 1200 {
		if bytes.Contains(m.c.Log(m.id, name), []byte(text)) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.Errorf("%s = %q, want %q in it", name, m.c.Log(m.id, name), text)
}

func staged(name string) func(proto.Event) bool {
	return func(e proto.Event) bool { return e.Stage == name }
}

var threePhases = []prototest.Script{
	step("disks", proto.PhasePre, `echo "looking at disks"`),
	step("packages", proto.PhasePost, `echo "in $PROVOST_ROOT as $PROVOST_NODE"; provost-agent version >/dev/null 2>&1 || :`),
	step("users", proto.PhasePost, `. "$PROVOST_LIB/provost.sh"; provost_message "2 users"`),
	step("greet", proto.PhaseFirstboot, `echo hello`),
}

const wholeStory = `
agent-start agent-started
run-start pre pre-started
step-start pre disks
step-end pre disks ok
run-end pre pre-done ok
stage partitioned
run-start post post-started
step-start post packages
step-end post packages ok
step-start post users
step-end post users ok
run-end post post-done ok
sealed sealed
`

const firstbootStory = `agent-start disk-booted
run-start firstboot firstboot-started
step-start firstboot greet
step-end firstboot greet ok
run-end firstboot firstboot-done ok
stage firstboot booted
`

// install does what an installer does.
func (m *machine) install() {
	m.Helper()
	target := m.path("target")
	os.MkdirAll(target, 0o755)
	m.want(0, "run", "--phase", "pre", "--state", m.state)
	m.want(0, "report", "partitioned", "--state", m.state)
	m.want(0, "run", "--phase", "post", "--root", target, "--state", m.state)
	m.want(0, "seal", "--root", target, "--state", m.state)
}

func TestWholeInstall(t *testing.T) {
	t.Parallel()
	m := newMachine(t, threePhases...)
	stop := m.watch()
	// the commands are called as early as an installer can: watch may not have made its directory
	m.login = m.login[:4]
	target := m.path("target")
	os.MkdirAll(target, 0o755)
	m.wait(staged("agent-started"))
	m.install()
	m.wantStory(wholeStory)
	m.wantLog("packages.log", "in "+target+" as n1")
	stop()
	if _, err := os.Stat(m.path("run/target")); err == nil {
		t.Errorf("the mirror is still set after the seal: the target cannot be unmounted in peace")
	}
	// the machine reboots: /run is gone, the mirror is the state
	m.reboot()
	r := m.want(0, "firstboot", "--state", m.state)
	m.wantStory(wholeStory + firstbootStory)
	if _, err := os.Stat(filepath.Join(m.state, "token")); err == nil {
		t.Errorf("the token is still there after the first boot; firstboot said:\n%s", r.err)
	}
	m.wantLog("greet.log", "hello")
	n := len(m.c.Requests())
	m.want(0, "firstboot", "--state", m.state) // the unit starts at each boot
	if got := len(m.c.Requests()); got != n {
		t.Errorf("a later boot sent %d requests, want none", got-n)
	}
}

// reboot makes the mirror the state directory, as the installed system finds it, and the boot another one.
func (m *machine) reboot() {
	m.Helper()
	if err := os.RemoveAll(m.state); err != nil {
		m.Fatal(err)
	}
	m.state = m.path("target/var/lib/provost")
	m.login = nil
	// Boots are told apart by the kernel's id, which a test cannot change: the past is given another one.
	boot, err := host.Host{}.Boot()
	if err != nil {
		m.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(m.state, "journal", "*.log"))
	if err != nil || len(files) == 0 {
		m.Fatalf("the target has no journal: %v, %v", files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			m.Fatal(err)
		}
		var out strings.Builder
		for line := range strings.Lines(string(b)) {
			text := strings.Replace(strings.TrimSpace(line[9:]), boot, prototest.Boot1, 1)
			fmt.Fprintf(&out, "%08x %s\n", crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli)), text)
		}
		if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
			m.Fatal(err)
		}
	}
}

func TestRunAlone(t *testing.T) {
	t.Parallel()
	m := newMachine(t, threePhases...)
	m.want(0, m.at("run", "--phase", "pre")...)
	m.wantStory(strings.Join(strings.SplitAfter(wholeStory, "pre-done ok\n")[:1], ""))
	r := m.want(0, "status", "--state", m.state)
	for _, want := range []string{"n1  pre done", "disks", "ok"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("status = %q, want %q in it", r.out, want)
		}
	}
}

func TestFailingStepExits(t *testing.T) {
	t.Parallel()
	m := newMachine(t, step("one", proto.PhasePre, "exit 0"), step("two", proto.PhasePre, "echo broken; exit 7"), step("three", proto.PhasePre, "exit 0"))
	r := m.want(1, m.at("run", "--phase", "pre")...)
	if !strings.Contains(r.err, "phase pre: failed(two=7)") {
		t.Errorf("run said %q, want failed(two=7)", r.err)
	}
	// all of it is delivered before run returns: the installer halts then
	m.wantStory(`
agent-start agent-started
run-start pre pre-started
step-start pre one
step-end pre one ok
step-start pre two
step-end pre two failed step
run-end pre two failed step
`)
	m.wantLog("two.log", "broken")
}

func TestHoldAndRetryWithANewPlan(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	bad := []prototest.Script{step("one", proto.PhasePre, "exit 0"), step("two", proto.PhasePre, "exit 7")}
	good := []prototest.Script{bad[0], step("two", proto.PhasePre, "exit 0")}
	m.id, _ = m.c.InstallPlan("n1", bad, func(p *proto.Plan) { p.OnFailure = proto.OnFailureHold })
	m.write("token", m.c.Token(m.id, prototest.Boot1))
	done := make(chan result, 1)
	go func() { done <- m.agent(m.at("run", "--phase", "pre")...) }()
	m.wait(func(e proto.Event) bool { return e.Kind == proto.KindHold })
	m.c.Order(m.id, proto.VerbRetry, "two", good)
	r := <-done
	if r.code != 0 {
		t.Errorf("run = %d, want 0 after the retry; it said:\n%s", r.code, r.err)
	}
	if s := m.story(); !strings.Contains(s, "step-end pre two failed step\n") || !strings.Contains(s, "order pre two retry\n") || !strings.HasSuffix(s, "step-end pre two ok\nrun-end pre pre-done ok\n") {
		t.Errorf("events:\n%swant the failure, the order, and then success", s)
	}
}

// With each fault the install goes on as without it, and in the end the collector has the same story.
func TestFaultsHarmNoInstall(t *testing.T) {
	for _, f := range []prototest.Fault{
		{Kind: prototest.FaultReset}, {Kind: prototest.FaultHang, Delay: time.Second}, {Kind: prototest.FaultLost}, {Kind: prototest.FaultHalf}, {Kind: prototest.FaultGarbage},
		{Kind: prototest.FaultRedirect, Body: "https://127.0.0.1:1/"}, {Kind: prototest.FaultUntyped},
		{Kind: prototest.FaultStatus, Status: 503, RetryAfter: time.Second}, {Kind: prototest.FaultStatus, Status: 500},
		{Kind: prototest.FaultHTML}, {Kind: prototest.FaultSlow, Delay: 100 * time.Millisecond},
	} {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, threePhases...)
			var mu sync.Mutex
			n := 0
			m.c.SetFault(func(*http.Request) prototest.Fault {
				mu.Lock()
				defer mu.Unlock()
				if n++; n <= 9 && n%3 == 1 {
					return f
				}
				return prototest.Fault{}
			})
			m.watch()
			for range 12000 { // 2 minutes
				if exists(m.state) && report.Dir(m.state).Locked() {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			m.install()
			m.wantStory(wholeStory)
		})
	}
}

func TestCollectorDownDuringTheInstall(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.id, _ = m.c.InstallPlan("n1", threePhases, func(p *proto.Plan) { p.SealWait = proto.Duration(2 * time.Second) })
	m.write("token", m.c.Token(m.id, prototest.Boot1))
	target := m.path("target")
	os.MkdirAll(target, 0o755)
	m.want(0, m.at("run", "--phase", "pre")...)
	m.want(0, "report", "partitioned", "--state", m.state)
	m.c.Stop()
	m.hasty = true
	began := time.Now()
	m.want(0, "run", "--phase", "post", "--root", target, "--state", m.state)
	if d := time.Since(began); d > goodWait+2*time.Minute {
		t.Errorf("run took %s without a collector, want about %s", d, goodWait)
	}
	m.want(0, "seal", "--root", target, "--state", m.state)
	m.reboot()
	m.c.Start()
	m.want(0, "firstboot", "--state", m.state)
	m.wantStory(wholeStory + firstbootStory)
}

func TestJoinKey(t *testing.T) {
	t.Parallel()
	macs := host.Host{}.MACs()
	if len(macs) == 0 {
		t.Fatal("this machine has no network card")
	}
	m := newMachine(t)
	m.c.Define(proto.NodeSpec{Name: "n2", MACs: macs[:1]})
	m.write("join", m.c.JoinKey+"\n")
	m.login = append(m.login[:4:4], "--join-key-file", m.path("join"))
	done := make(chan result, 1)
	go func() { done <- m.agent(m.at("run", "--phase", "pre")...) }()
	for range 1200 { // 2 minutes: its second hello comes after the first was refused, since no install is ordered
		if len(m.c.Requests()) > 1 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.id, _ = m.c.Install("n2", []prototest.Script{step("one", proto.PhasePre, "exit 0")})
	r := <-done
	if r.code != 0 || !strings.Contains(r.err, "no install of this machine is ordered; type: provost install") {
		t.Errorf("run = %d, want 0, and what the operator must type; it said:\n%s", r.code, r.err)
	}
	m.wantStory("agent-start agent-started\nrun-start pre pre-started\nstep-start pre one\nstep-end pre one ok\nrun-end pre pre-done ok\n")
	m.noSecret(m.c.JoinKey)
}

// noSecret looks for a secret in everything that the agent wrote, but the files that are for it.
func (m *machine) noSecret(secret string) {
	m.Helper()
	filepath.WalkDir(m.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "token" || d.Name() == "join" {
			return nil
		}
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(secret)) {
			m.Errorf("a secret is in %s", path)
		}
		return nil
	})
}

func TestStrangerGetsNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t, threePhases...)
	m.write("plan.yaml", "steps: [{name: one, phase: pre}]\n")
	m.write("one", "#!/bin/sh\nexit 0\n")
	m.login[3] = "sha256:" + proto.Digest(prototest.NewAuthority(t).CertDER)
	m.hasty = true
	m.want(0, m.at("report", "partitioned")...)
	if got := m.c.Requests(); len(got) != 0 {
		t.Errorf("requests = %v, want not one", got)
	}
}

func TestTamperedPlanIsNotRun(t *testing.T) {
	t.Parallel()
	m := newMachine(t, step("one", proto.PhasePre, "touch "+filepath.Join(t.TempDir(), "ran")))
	p := *m.c.Plan(m.id)
	p.Payload = bytes.Replace(p.Payload, []byte(`"pre"`), []byte(`"post"`), 1)
	m.c.SetPlan(m.id, &p)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "provost-agent", m.at("run", "--phase", "pre")...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	refused := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "the signature does not fit") {
			refused = true
			m.wait(staged("agent-started"))
			cmd.Process.Signal(os.Interrupt) // else it waits 10 minutes for another plan
		}
	}
	if err := cmd.Wait(); err == nil || !refused {
		t.Errorf("run = %v, refused = %v, want a refusal of the plan", err, refused)
	}
	m.wantStory("agent-start agent-started\n")
}

// A run that is killed leaves a story with an end: watch writes it.
func TestWatchReportsADeadRun(t *testing.T) {
	t.Parallel()
	m := newMachine(t, step("one", proto.PhasePre, "sleep 60"))
	m.watch()
	m.wait(staged("agent-started"))
	cmd := exec.Command("provost-agent", "run", "--phase", "pre", "--state", m.state)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.wait(func(e proto.Event) bool { return e.Kind == proto.KindStepStart })
	cmd.Process.Kill()
	cmd.Wait()
	m.wait(func(e proto.Event) bool { return e.Kind == proto.KindRunEnd && e.Cause == proto.CauseAgent })
}

// So does one that is killed while it holds after its end: nobody waits for orders any more.
func TestWatchReportsADeadHold(t *testing.T) {
	t.Parallel()
	m := newMachine(t, step("one", proto.PhasePre, "exit 3"))
	m.watch()
	m.wait(staged("agent-started"))
	cmd := exec.Command("provost-agent", "run", "--phase", "pre", "--on-failure", "hold", "--state", m.state)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.wait(func(e proto.Event) bool { return e.Kind == proto.KindHold })
	cmd.Process.Kill()
	cmd.Wait()
	m.wait(func(e proto.Event) bool { return e.Kind == proto.KindRunEnd && e.Cause == proto.CauseAgent })
}

func TestDetach(t *testing.T) {
	t.Parallel()
	m := newMachine(t, threePhases...)
	t.Cleanup(func() {
		list, _ := host.Host{}.Processes()
		for _, p := range list {
			if strings.Contains((host.Host{}).Args(p.PID), m.state) {
				syscall.Kill(p.PID, syscall.SIGKILL)
			}
		}
	})
	m.want(0, m.at("watch", "--detach")...)
	m.want(0, m.at("watch", "--detach")...) // a second one does no harm
	m.wait(staged("agent-started"))
	m.login = m.login[:4]
	m.install()
	m.wantStory(wholeStory)
	// it ends by itself: sealed, and all is delivered
	for range 1200 { // 120 s
		if !strings.Contains(m.want(0, "status", "--state", m.state, "-o", "json").out, `"reporting": true`) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("watch did not end 2 minutes after the seal")
}

// TestFirstbootAlone: without a collector the first boot's steps run once and are told once, however often the machine boots. One
// that is known later gets all of it.
func TestFirstbootAlone(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("plan.yaml", "steps: [{name: make, phase: post, chroot: false}, {name: greet, phase: firstboot}]\n")
	m.write("make", "#!/bin/sh\n")
	m.write("greet", "#!/bin/sh\necho hello >> '"+m.dir+"/greeted'\n")
	target := m.path("target")
	os.MkdirAll(target, 0o755)
	m.want(0, "run", "--phase", "post", "--root", target, "--plan", m.path("plan.yaml"), "--state", m.state)
	m.want(0, "seal", "--root", target, "--state", m.state)
	login := m.login
	m.reboot()
	size := func() (n int64) {
		files, _ := filepath.Glob(filepath.Join(m.state, "journal", "*.log"))
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				n += info.Size()
			}
		}
		return n
	}
	m.want(0, "firstboot", "--state", m.state)
	once := size()
	for range 2 {
		m.want(0, "firstboot", "--state", m.state)
	}
	if got := size(); got != once || once == 0 {
		t.Errorf("the journal has %d bytes after one start of the unit, %d after three", once, got)
	}
	m.want(0, append([]string{"firstboot", "--state", m.state}, login...)...)
	m.wait(staged("booted"))
	ends := 0
	for _, e := range m.c.Events(m.id) {
		if e.Kind == proto.KindRunEnd && e.Phase == proto.PhaseFirstboot {
			ends++
		}
	}
	if b, _ := os.ReadFile(m.path("greeted")); string(b) != "hello\n" || ends != 1 {
		t.Errorf("the step said %q, and the collector heard of %d ends of the phase; want each once", b, ends)
	}
}

// TestPhaseBoot: on a node without a disk the steps of phase boot run at every boot, in the state directory of the initrd's watch,
// which ends when that is delivered: a node that works must not be disturbed.
func TestPhaseBoot(t *testing.T) {
	t.Parallel()
	m := newMachine(t, step("mounts", proto.PhaseBoot, "echo mounted"))
	watch := exec.Command("provost-agent", m.at("watch")...)
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- watch.Wait() }()
	t.Cleanup(func() { watch.Process.Kill() })
	m.wait(staged("agent-started"))
	for range 2 { // the unit may be started again: it is one boot, told once
		m.want(0, "run", "--phase", "boot", "--state", m.state)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("watch = %v, want a good end", err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("watch still runs 2 minutes after the node has booted")
	}
	m.wantStory(`
agent-start agent-started
run-start boot boot-started
step-start boot mounts
step-end boot mounts ok
run-end boot boot-done ok
stage boot booted
run-start boot boot-started
run-end boot boot-done ok
`)
}
