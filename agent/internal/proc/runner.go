// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"

	"provost/proto"
)

const (
	// busyTries and busyWait: a script that was just written may be open in a child that is between fork and exec
	// (https://go.dev/issue/22315). 50 times 20 ms are a second.
	busyTries = 50
	busyWait  = 20 * time.Millisecond
)

// Runner runs steps one after the other. Between two of them it keeps what costs as much to make as a short step takes: the
// thread that starts them, the memory for their output, and an empty cgroup. What a step used and did not give back, the
// next one does not get.
type Runner struct {
	spawner *spawner
	bufs    *buffers
	cgroup  *cgroup
	null    *os.File
	seen    map[inside]bool // interpreters that were looked at
}

// inside is a path as it is seen in a root.
type inside struct{ root, path string }

// NewRunner makes a Runner. It is to be closed.
func NewRunner() *Runner { return &Runner{} }

// Close gives back what was kept between steps. A step that is run after it begins with nothing.
func (r *Runner) Close() {
	r.bufs = nil
	if r.spawner != nil {
		close(r.spawner.jobs)
		r.spawner = nil
	}
	if r.cgroup != nil {
		r.cgroup.remove()
		r.cgroup = nil
	}
	if r.null != nil {
		r.null.Close()
		r.null = nil
	}
}

// Run runs one step with a Runner of its own.
func Run(ctx context.Context, s Spec) Result {
	r := NewRunner()
	defer r.Close()
	return r.Run(ctx, s)
}

// Run runs the step to its end, and returns within three times checkWait, Timeout, Grace, and some ten seconds (settleTime, straggleGrace,
// killWait, drainWait). A context that ends, ends the step as the deadline does: TERM to all its processes, grace, KILL.
func (r *Runner) Run(ctx context.Context, s Spec) Result {
	if why := r.check(s); why != "" {
		return Result{Outcome: proto.OutcomePreflight, Message: proto.Clip(why, proto.MaxMessage)}
	}
	if r.bufs == nil {
		r.bufs = &buffers{}
	}
	out, err := newOutput(s, r.bufs)
	if err != nil {
		return Result{Outcome: proto.OutcomePreflight, Message: "opening its output: " + err.Error()}
	}
	g := newGroup(s, r.cgroup)
	r.cgroup = nil
	begin := time.Now()
	deadline := time.NewTimer(s.Timeout)
	defer deadline.Stop()
	pid, ended, err := r.launch(ctx, deadline.C, s, out, g)
	if errors.Is(err, errLate) {
		res := Result{Duration: time.Since(begin)}
		res.Outcome, res.Message = cut(ctx, s)
		res.Message += "; it had not even started: the disk that holds " + s.Path + " does not answer"
		r.bufs = nil // the start may still use it
		return res
	}
	if err != nil {
		out.abandon()
		r.cgroup = g.release()
		return Result{Outcome: proto.OutcomePreflight, Message: proto.Clip(refused(s, err), proto.MaxMessage)}
	}
	g.leader(pid)
	out.begin()
	if s.Started != nil {
		s.Started(pid, g.dir)
	}
	res := wait(ctx, deadline.C, s, g, ended)
	res.Duration = time.Since(begin)
	res.Stragglers = g.finish(s.LeaveRunning)
	g.reap()
	r.cgroup = g.release()
	reusable := false
	if res.Tail, res.Lost, reusable = out.end(); !reusable {
		r.bufs = nil
	}
	if res.Message == "" && !res.Outcome.Good() {
		res.Message = explainEnd(res)
	}
	return res
}

// check says why the step cannot start. It waits at most twice checkWait.
func (r *Runner) check(s Spec) string {
	var by string
	var flaw error
	if !Within(checkWait, func() { by, flaw = look(s) }) {
		return noAnswer
	}
	if flaw != nil {
		return flaw.Error()
	}
	seen := inside{s.Root, by}
	if by == "" || r.seen[seen] {
		return ""
	}
	if !Within(checkWait, func() { flaw = Preflight(s) }) {
		return noAnswer
	}
	if flaw != nil {
		return flaw.Error()
	}
	if r.seen == nil {
		r.seen = map[inside]bool{}
	}
	r.seen[seen] = true
	return ""
}

// refused says why the kernel did not execute the script, which was good at the first look.
func refused(s Spec, err error) string {
	var flaw error
	if Within(checkWait, func() { flaw = Preflight(s) }) && flaw != nil {
		return flaw.Error()
	}
	return "starting " + s.Path + ": " + explainStart(err)
}

// exit is how the script's own process ended.
type exit struct {
	status syscall.WaitStatus
	err    error // of waiting for it
}

// job is one script to be started, with where to say that it is.
type job struct {
	spec  Spec
	out   *output
	group *group
	null  *os.File
	up    chan<- started
	end   chan<- exit
}

type started struct {
	pid int
	err error
}

// spawner starts scripts and waits for them, in a thread of its own: when that thread dies, which is when the agent dies, the
// kernel kills the script (prctl(2), PR_SET_PDEATHSIG). So no step goes on without anybody who looks after its deadline;
// what it had started itself is ended by EndLeftover.
type spawner struct {
	jobs chan job
	idle chan struct{} // has a token when it waits for a job
}

func newSpawner() *spawner {
	if runtime.GOMAXPROCS(0) < 2 { // Go gives a start no thread of its own: one that hangs would hold up all of a machine with one processor
		runtime.GOMAXPROCS(2)
	}
	p := &spawner{jobs: make(chan job, 1), idle: make(chan struct{}, 1)}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		for j := range p.jobs {
			pid, err := start(j)
			if err != nil {
				p.idle <- struct{}{}
				j.up <- started{err: err}
				continue
			}
			j.up <- started{pid: pid}
			e := await(pid)
			p.idle <- struct{}{}
			j.end <- e
		}
	}()
	return p
}

const noAnswer = "the disk that holds the script does not answer: see the kernel's log, dmesg"

var errLate = errors.New("the start takes too long")

// launch starts the script. A spawner that still waits for an earlier one, which not even KILL ended, ends with that. Fork and exec
// wait for the disk that holds the script, and are waited for until the step's deadline, or the context's end: then errLate comes,
// what was to be the step's belongs to the start, and a script that starts after all is killed.
func (r *Runner) launch(ctx context.Context, deadline <-chan time.Time, s Spec, out *output, g *group) (pid int, ended <-chan exit, err error) {
	if r.null == nil {
		if r.null, err = os.Open(os.DevNull); err != nil {
			return 0, nil, err
		}
	}
	if r.spawner != nil {
		select {
		case <-r.spawner.idle:
		default:
			close(r.spawner.jobs)
			r.spawner = nil
		}
	}
	if r.spawner == nil {
		r.spawner = newSpawner()
	}
	up, end := make(chan started, 1), make(chan exit, 1)
	r.spawner.jobs <- job{s, out, g, r.null, up, end}
	select {
	case u := <-up:
		return u.pid, end, u.err
	case <-deadline:
	case <-ctx.Done():
	}
	r.null = nil
	go func() {
		if u := <-up; u.err == nil {
			g.leader(u.pid)
			g.kill()
			<-end
			g.finish(false)
		}
		out.abandon()
		g.release().remove()
	}()
	return 0, nil, errLate
}

// start starts the script. A cgroup that the kernel does not take is given up.
func start(j job) (pid int, err error) {
	s, g := j.spec, j.group
	attr := &syscall.ProcAttr{Dir: s.Dir, Env: s.Env, Files: []uintptr{j.null.Fd(), j.out.w.Fd(), j.out.w.Fd()}}
	if attr.Dir == "" {
		attr.Dir = "/"
	}
	for range busyTries {
		attr.Sys = &syscall.SysProcAttr{Setsid: true, Chroot: s.Root, Pdeathsig: syscall.SIGKILL}
		if g.cgroup != nil {
			attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(g.cgroup.fd.Fd())
		}
		pid, err = syscall.ForkExec(s.Path, append([]string{s.Path}, s.Args...), attr)
		switch {
		case err == nil:
			return pid, nil
		case errors.Is(err, syscall.ETXTBSY):
			time.Sleep(busyWait)
		case g.cgroup != nil:
			g.release().remove()
			g.remember()
		default:
			return 0, err
		}
	}
	return 0, err
}

// await waits for the end of a child, and for its exit status.
func await(pid int) (e exit) {
	for {
		if _, e.err = syscall.Wait4(pid, &e.status, 0, nil); !errors.Is(e.err, syscall.EINTR) {
			return e
		}
	}
}
