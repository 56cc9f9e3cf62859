// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// Two waits that tests set: one is long, and the other too short for a machine with much to do.
var (
	// checkWait bounds the look at a step's script before it starts: the disk that holds it may not answer.
	checkWait = 30 * time.Second
	// settleTime is what processes that are just ending have before they count as left behind: a tee of the script's
	// output ends when it has read the end of its pipe, and on a busy machine that takes a while.
	settleTime = time.Second
)

const (
	// straggleGrace bounds the time between TERM and KILL for what a step left behind.
	straggleGrace = 2 * time.Second
	// killWait bounds the wait for processes to vanish after KILL. One that is stuck in the kernel does not.
	killWait = 5 * time.Second
	// drainWait bounds the wait for the rest of the output when all processes are gone. Only a process that escaped can
	// hold the pipe open longer.
	drainWait = time.Second
	// poll is how often processes are looked at while waiting for their end.
	poll = 20 * time.Millisecond
)

// ErrAbort is the context's cause that makes an outcome aborted. Any other cause makes it interrupted.
var ErrAbort = errors.New("aborted by an order")

// Process is one process of the machine.
type Process struct {
	PID, PPID, Session int
	Start              uint64 // clock ticks after the boot, field 22 of /proc/PID/stat
	State              byte   // Z is a zombie
	Name               string
}

// Processes lists every process of the machine. It must not read what the kernel takes from another process's memory.
type Processes func() ([]Process, error)

// Spec says what to run.
type Spec struct {
	Name   string   // of the step
	Path   string   // of the script, absolute, as it is seen in Root
	Args   []string // without the script's name
	Dir    string   // working directory in Root; / if empty
	Env    []string // all of the environment
	Root   string   // to change root to; empty for none
	Digest string   // SHA-256 that the script must have; empty for any

	Timeout      time.Duration // more than 0
	Grace        time.Duration // between TERM and KILL; 0 is KILL at once
	SuccessCodes []int         // {0} if empty

	// Output takes stdout and stderr, each line with its time in front. It is written by a goroutine of its own: when it is
	// slow or hangs, output is lost, with a word on how much, and nothing else happens.
	Output io.Writer

	// Secrets are taken out of what is printed before anybody sees it.
	Secrets []string

	// LeaveRunning does not end what the step leaves behind. stdout and stderr are then OutputFile itself, so that they
	// outlive the agent; its lines have no time in front.
	LeaveRunning bool
	OutputFile   *os.File

	// Processes finds the step's processes. Without it only its process group is found, and what is in its cgroup.
	Processes Processes
	// ProcessArgs gives the start of what a process was started with, for what the step leaves behind; may be nil. It may hang.
	ProcessArgs func(pid int) string
	// Cgroup is a directory of a cgroup v2 hierarchy in which one for the step is made; empty for none. Where that does
	// not work the step runs without.
	Cgroup string
	// Started, if set, is told of the step's first process. It must not block.
	Started func(pid int, cgroup string)
}

// Straggler is a process that the step left behind.
type Straggler struct {
	PID    int
	Name   string
	Args   string // at most argsMax bytes; empty if unknown
	Killed bool   // it is gone; false with LeaveRunning, and for one that not even KILL ended in time
}

// Result says how the step ended.
type Result struct {
	Outcome    proto.Outcome // ok failed timeout signal preflight interrupted aborted
	Exit       int           // exit status; 0 unless it exited by itself
	Signal     string        // SIGKILL, …: what ended it
	Duration   time.Duration
	Message    string   // why, where the outcome alone does not say it
	Tail       []string // last lines of the output, valid UTF-8
	Stragglers []Straggler
	Lost       int64 // bytes of output that Output did not take in time
}

// BecomeSubreaper makes this process the parent of orphans among its descendants (prctl(2), PR_SET_CHILD_SUBREAPER), so
// that a daemon which a step started is still found. Once per process that runs steps.
func BecomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a subreaper: %w", err)
	}
	return nil
}

// wait waits for the script's own process, and ends all of the step at its deadline or when the context is over.
func wait(ctx context.Context, deadline <-chan time.Time, s Spec, g *group, ended <-chan exit) Result {
	tick := time.NewTicker(5 * time.Second) // orphans that have ended are zombies until somebody asks for them
	defer tick.Stop()
	for {
		select {
		case e := <-ended:
			return verdict(s, e)
		case <-tick.C:
			g.reap()
			continue
		case <-deadline:
		case <-ctx.Done():
		}
		why, msg := cut(ctx, s)
		r := stop(g, s.Grace, ended)
		r.Outcome, r.Message = why, msg
		return r
	}
}

// cut says why a step is ended by the agent: the context, else the deadline.
func cut(ctx context.Context, s Spec) (proto.Outcome, string) {
	switch {
	case ctx.Err() == nil:
		return proto.OutcomeTimeout, fmt.Sprintf("not done after %s: ended by the agent", proto.Duration(s.Timeout))
	case errors.Is(context.Cause(ctx), ErrAbort):
		return proto.OutcomeAborted, "ended by an order"
	}
	return proto.OutcomeInterrupted, "ended because the agent was told to stop"
}

// stop ends every process of the step: TERM, grace, KILL. What the script's own process said at its end is dropped: it was
// ended by us, even if it then exits with 0.
func stop(g *group, grace time.Duration, ended <-chan exit) Result {
	gone := false
	over := func() bool {
		select {
		case <-ended:
			gone, g.ended = true, true
		default:
		}
		return gone && len(g.members()) == 0
	}
	if grace > 0 {
		g.signal(unix.SIGTERM)
		g.signal(unix.SIGCONT) // a stopped process takes no TERM
		if until(grace, over) {
			return Result{Signal: "SIGTERM"}
		}
	}
	g.kill()
	until(killWait, over)
	return Result{Signal: "SIGKILL"}
}

// until asks over every poll for at most d.
func until(d time.Duration, over func() bool) bool {
	for end := time.Now().Add(d); ; time.Sleep(poll) {
		if over() {
			return true
		}
		if !time.Now().Before(end) {
			return false
		}
	}
}

// verdict reads how the script's own process ended.
func verdict(s Spec, e exit) Result {
	if e.err != nil {
		return Result{Outcome: proto.OutcomeFailed, Exit: -1, Message: "waiting for it: " + e.err.Error()}
	}
	if e.status.Signaled() {
		return Result{Outcome: proto.OutcomeSignal, Signal: unix.SignalName(e.status.Signal())}
	}
	code := e.status.ExitStatus()
	good := s.SuccessCodes
	if len(good) == 0 {
		good = []int{0}
	}
	if slices.Contains(good, code) {
		return Result{Outcome: proto.OutcomeOK, Exit: code}
	}
	return Result{Outcome: proto.OutcomeFailed, Exit: code}
}

// explainEnd is the message of a failure: the last line that was printed says most.
func explainEnd(r Result) string {
	for _, l := range slices.Backward(r.Tail) {
		if l != "" {
			return l
		}
	}
	switch {
	case r.Outcome == proto.OutcomeSignal:
		return "ended by " + r.Signal + " that did not come from the agent"
	case r.Exit == 126:
		return "exit status 126: a command was found but could not be executed"
	case r.Exit == 127:
		return "exit status 127: a command was not found"
	}
	return fmt.Sprintf("exit status %d, and nothing was printed", r.Exit)
}

func explainStart(err error) string {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return "it is no script and no program of this machine's kind: begin it with #!/bin/sh"
	case errors.Is(err, syscall.ETXTBSY):
		return "it is still being written"
	case errors.Is(err, syscall.E2BIG):
		return "its environment is too large"
	case errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EAGAIN):
		return err.Error() + ": the machine has no memory or no process left"
	}
	return err.Error()
}
