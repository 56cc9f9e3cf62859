// SPDX-License-Identifier: Apache-2.0

// Package agentsuite holds an agent against a collector, and a network, that go wrong: whatever happens there, the steps of
// its plan run in the same way, and in the end the collector knows all of it once. It is the counterpart of prototest.Run,
// which does the same for collectors.
//
// It knows the agent as a command line and nothing else, so that agents of other make can be tried.
package agentsuite

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"provost/proto"
	"provost/proto/prototest"
)

// CommandEnv is the environment variable with the agent's command line, for /bin/sh, instead of the caller's.
//
// It is started with these variables:
//
//	PROVOST_SUITE_DO          run: carry out phase pre of the plan, write the status that this ends with (0 is good) into the
//	                          file PROVOST_SUITE_DONE, and go on to deliver. deliver: deliver what an earlier process left.
//	PROVOST_SUITE_STATE       a directory for what it has to keep
//	PROVOST_SUITE_DONE        a file, to be written whole
//	PROVOST_SUITE_URL         the collector's URLs, in the form of provost.url=
//	PROVOST_SUITE_CA          the pin, in the form of provost.ca=
//	PROVOST_SUITE_TOKEN_FILE  a file with the agent's token
//	PROVOST_SUITE_PLAN_WAIT   how long to wait for the plan, like 10m
//
// It ends by SIGTERM, of which its whole process group gets one.
const CommandEnv = "PROVOST_SUITE_AGENT"

// SoakEnv, set to anything, lets every fault last for ever in a trial of its own, not only some.
const SoakEnv = "PROVOST_SOAK"

// The suite's waits. A network that steps waited for would cost each of the 20 a connection's timeout, 10 s; the bound for all of
// them is below that, and far above the 3 s that they take.
const (
	planWait  = 4 * time.Minute // of the agent, and the suite's for a plan that comes late: Retry-After counts up to 5 minutes
	shortWait = 2 * time.Second // of the agent, where the plan never comes
	stepsWait = 150 * time.Second
	endWait   = 2 * time.Minute // for an agent's status, its end, or its delivery to a collector that works again
)

// Run tries the agent with each fault. command is its command line unless CommandEnv has one.
func Run(t *testing.T, command string) {
	if c := os.Getenv(CommandEnv); c != "" {
		command = c
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			if f.late {
				newTrial(t, command, f).after()
				return
			}
			newTrial(t, command, f).both()
		})
		if f.never && (f.sample || os.Getenv(SoakEnv) != "") {
			t.Run(f.name+" for ever", func(t *testing.T) {
				t.Parallel()
				newTrial(t, command, f).never()
			})
		}
	}
}

// trial is one agent, one collector and one fault.
type trial struct {
	*testing.T
	c       *prototest.Collector
	command string
	fault   fault
	dir, id string
	urls    []string // of the collector, the faults' before it
	met     counter  // requests that met the fault
}

func newTrial(t *testing.T, command string, f fault) *trial {
	s := &trial{T: t, c: prototest.New(t), command: command, fault: f, dir: t.TempDir()}
	s.urls = []string{s.c.URL()}
	if f.prepare != nil {
		f.prepare(s)
	}
	s.c.Define(proto.NodeSpec{Name: "n1", MACs: []string{"52:54:00:00:00:01"}})
	s.id, _ = s.c.Install("n1", steps(s.dir))
	s.write("token", s.c.Token(s.id, prototest.Boot1))
	return s
}

func (s *trial) path(name string) string { return filepath.Join(s.dir, name) }

func (s *trial) write(name, text string) {
	s.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
}

// read gives a file's text, empty if there is none.
func (s *trial) read(name string) string {
	s.Helper()
	b, err := os.ReadFile(s.path(name))
	if err != nil && !os.IsNotExist(err) {
		s.Fatal(err)
	}
	return string(b)
}

// both tries the fault from the agent's first request on until it has met it, and again from the first step on. The plan comes
// late; what comes after it must not even be late.
func (s *trial) both() {
	lift := s.fault.begin(s)
	stop := s.start("run", planWait)
	s.meets(time.Second)
	if s.fault.never && s.read("ran") != "" {
		s.Errorf("a step ran before the agent had its plan")
	}
	lift()
	s.steps(stop)
}

// after tries the fault from the first step on.
func (s *trial) after() { s.steps(s.start("run", planWait)) }

// steps lets the steps run under the fault, ends that, and looks at what came of it.
func (s *trial) steps(stop func()) {
	s.Helper()
	s.until("the first step to start", planWait, func() bool { return s.read("started") != "" })
	lift := s.fault.begin(s)
	s.write("go", "")
	s.until("the last step to run", stepsWait, func() bool { return s.read("last") != "" })
	s.meets(0)
	s.until("the agent's status", endWait, func() bool { return s.read("done") != "" })
	if got := strings.TrimSpace(s.read("done")); got != "0" {
		s.Errorf("the agent's status is %s, want 0", got)
	}
	stop()
	lift()
	stop = s.start("deliver", planWait)
	s.delivered(story())
	stop()
	var want []string
	for _, p := range plan {
		if p.outcome != proto.OutcomePreflight {
			want = append(want, p.name)
		}
	}
	if got := strings.Fields(s.read("ran")); !slices.Equal(got, want) {
		s.Errorf("steps ran as %q, want %q", got, want)
	}
	s.checkLog()
	if s.fault.check != nil {
		s.fault.check(s)
	}
}

// never keeps the fault: the phase fails for want of a plan, nothing runs, and the reason is delivered when that is possible.
func (s *trial) never() {
	lift := s.fault.begin(s)
	stop := s.start("run", shortWait)
	s.until("the agent's status", endWait, func() bool { return s.read("done") != "" })
	if got := strings.TrimSpace(s.read("done")); got == "0" || s.read("ran") != "" {
		s.Errorf("without a plan the agent's status is %s, and %q ran; want a failure and no step", got, s.read("ran"))
	}
	stop()
	lift()
	stop = s.start("deliver", planWait)
	s.until("the reason at the collector", endWait, func() bool {
		return slices.ContainsFunc(s.c.Events(s.id), func(e proto.Event) bool { return e.Kind == proto.KindRunEnd })
	})
	stop()
	for _, e := range s.c.Events(s.id) {
		if e.Step != "" || e.Kind == proto.KindRunEnd && (e.Outcome.Good() || e.Cause != proto.CausePlan && e.Cause != proto.CauseDownload) {
			s.Errorf("want run-end with cause plan or download and no step, got:\n%s", prototest.Describe(s.c.Events(s.id)))
			break
		}
	}
	if s.fault.check != nil {
		s.fault.check(s)
	}
}

// meets waits until the agent has met the fault, where that can be seen; else the time given.
func (s *trial) meets(blind time.Duration) {
	s.Helper()
	if s.fault.answer == nil {
		time.Sleep(blind)
		return
	}
	s.until("the agent to meet the fault", endWait, func() bool { return s.met.get() > 0 })
}

func (s *trial) until(what string, limit time.Duration, done func() bool) {
	s.Helper()
	for deadline := time.Now().Add(limit); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("waited %s for %s; the agent said:\n%s\nthe collector has:\n%s", limit, what, s.read("output"), prototest.Describe(s.c.Events(s.id)))
		}
	}
}

// start starts the agent in a process group of its own; stop ends it.
func (s *trial) start(do string, wait time.Duration) (stop func()) {
	s.Helper()
	out, err := os.OpenFile(s.path("output"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("/bin/sh", "-c", s.command)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), "PROVOST_SUITE_DO="+do, "PROVOST_SUITE_STATE="+s.path("state"), "PROVOST_SUITE_DONE="+s.path("done"),
		"PROVOST_SUITE_URL="+strings.Join(s.urls, ","), "PROVOST_SUITE_CA=sha256:"+proto.Digest(s.c.Authority.CertDER),
		"PROVOST_SUITE_TOKEN_FILE="+s.path("token"), "PROVOST_SUITE_PLAN_WAIT="+wait.String())
	if err := cmd.Start(); err != nil {
		s.Fatalf("starting the agent: %v", err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(endWait):
			s.Errorf("the agent did not end within %s of its SIGTERM; it said:\n%s", endWait, s.read("output"))
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	s.Cleanup(stop)
	return stop
}

// delivered waits for the end of the run, and wants every event that the plan makes, once and in order.
func (s *trial) delivered(want []string) {
	s.Helper()
	s.until("the end of the run at the collector", endWait, func() bool {
		return slices.ContainsFunc(s.c.Events(s.id), func(e proto.Event) bool { return e.Kind == proto.KindRunEnd })
	})
	next := map[string]uint64{}
	var got []string
	for _, e := range s.c.Events(s.id) {
		if next[e.Journal]++; e.Seq != next[e.Journal] {
			s.Errorf("event %d of journal %s stands where %d is due", e.Seq, e.Journal, next[e.Journal])
		}
		switch {
		case e.Kind == proto.KindStage && e.Step == "":
		case e.Kind == proto.KindRunStart, e.Kind == proto.KindStepStart, e.Kind == proto.KindStepEnd, e.Kind == proto.KindRunEnd, e.Kind == proto.KindStage:
			got = append(got, tell(e))
		}
	}
	if !slices.Equal(got, want) {
		s.Errorf("the collector has\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// checkLog wants every line of the step that writes many, once, in order.
func (s *trial) checkLog() {
	s.Helper()
	name := ""
	for _, e := range s.c.Events(s.id) {
		if e.Kind == proto.KindStepEnd && e.Step == talker {
			name = e.Log
		}
	}
	if name == "" {
		return // an agent may keep no logs
	}
	n := 0
	stop := s.start("deliver", planWait)
	defer stop()
	s.until("the log of "+talker, endWait, func() bool { return strings.Contains(string(s.c.Log(s.id, name)), fmt.Sprintf("line %d\n", talks)) })
	for line := range strings.Lines(string(s.c.Log(s.id, name))) {
		if _, after, ok := strings.Cut(line, "line "); ok {
			if n++; after != fmt.Sprintf("%d\n", n) {
				s.Errorf("line %d of %s is %q", n, name, line)
				return
			}
		}
	}
}

// tell is an event in few words.
func tell(e proto.Event) string {
	words := []string{string(e.Kind)}
	for _, w := range []string{e.Step, string(e.Outcome)} {
		if w != "" {
			words = append(words, w)
		}
	}
	if e.Kind == proto.KindStage {
		words = append(words, e.Stage)
	}
	return strings.Join(words, " ")
}
