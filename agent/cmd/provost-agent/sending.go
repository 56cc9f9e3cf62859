// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"provost/agent/internal/host"
	"provost/agent/internal/probe"
	"provost/agent/internal/report"
	steps "provost/agent/internal/run"
	"provost/proto"
)

// reports says whether there is anybody to report to.
func (a *agent) reports() bool { return len(a.settings.URLs) > 0 }

// sender makes the sender of this process; it does not start it. Said lines also go to show.
func (a *agent) sender(show func(string)) (*report.Sender, error) {
	s := a.settings
	c := report.Config{
		Dir: a.dir, Journal: a.journal, Past: a.past, URLs: s.URLs, CA: s.CA, Node: s.Node,
		Hello: func() proto.Hello {
			id, _ := a.dir.Identity()
			return proto.Hello{
				Version: release(), Env: a.env, Node: cmp.Or(s.Node, id.Node), Install: id.Install, Claim: s.Claim, JoinKey: a.joinKey,
				MACs: a.host.MACs(), Serial: a.host.Serial(), UUID: a.host.UUID(), Hardware: a.host.Hardware(),
			}
		},
		Clock: func() proto.Clock {
			return proto.Clock{Boot: a.boot, OffsetMS: host.SinceBoot().Milliseconds(), Time: time.Now()}
		},
		Beat:  a.beat,
		Facts: a.facts(),
		Take: func(o proto.Order) error {
			a.log.Info("order", "verb", string(o.Verb), "step", o.Step, "id", o.ID, "actor", o.Actor)
			return steps.WriteOrder(string(a.dir), o)
		},
		Taken: a.knows,
		Say:   func(text string) { a.log.Warn(text); show(text) },
		Met: func(h proto.HelloAnswer) {
			a.log.Info("the collector answered", "node", h.Node, "install", h.Install, "attempt", h.Attempt, "boot_action", string(h.BootAction))
		},
	}
	if s.Claim != "" {
		c.Order = s.Install
	}
	if a.dir.Token() == "" && s.Claim == "" && a.joinKey == "" {
		if s.Rescue { // it has no claim
			return nil, config("reboot the machine when you are done", errors.New("this boot is for rescue: nothing is reported to the collector"))
		}
		return nil, config("boot with provost.claim=, or give --token-file or --join-key-file", errors.New("there is nothing to prove to the collector who this machine is"))
	}
	snd, err := report.New(c)
	if err != nil {
		return nil, config("", err)
	}
	return snd, nil
}

// beat is what a heartbeat says of the run that goes on.
func (a *agent) beat() proto.Heartbeat {
	h := proto.Heartbeat{Rescue: a.dir.Rescue()}
	if s, err := steps.ReadState(string(a.dir)); err == nil && s.Alive && !s.Done {
		h.Phase, h.Step, h.Waiting, h.Progress, h.Message = s.Phase, s.Step, s.Waiting, s.Progress, s.Message
	}
	return h
}

// factsLimit bounds a look at the machine: the target's file system may hang.
const factsLimit = time.Second

// facts gives what looks at the machine. A look that hangs is not begun twice, and gives nothing.
func (a *agent) facts() func() *proto.Facts {
	looked := make(chan proto.Facts, 1)
	busy := false
	return func() *proto.Facts {
		if !busy {
			busy = true
			go func() { looked <- a.host.Facts(string(a.dir), a.target()) }()
		}
		select {
		case f := <-looked:
			busy = false
			return &f
		case <-time.After(factsLimit):
			return nil
		}
	}
}

// target is where the system that is being installed is mounted, "" while it is not.
func (a *agent) target() string {
	if a.env == proto.EnvInstalled {
		return "/"
	}
	if root := a.journal.Mirror(); root != "" {
		return root
	}
	mounts := a.host.Mounts()
	for _, t := range probe.Targets() {
		if slices.Contains(mounts, t) {
			return t
		}
	}
	return ""
}

// knows reports whether the journal acknowledges an order already.
func (a *agent) knows(orderID string) bool {
	for r, err := range a.journal.Events() {
		if err == nil && r.Event.Kind == proto.KindOrder && r.Event.OrderID == orderID {
			return true
		}
	}
	return false
}

// background sends in the background until close, or the returned function, ends it; if there is a collector and no
// other process sends.
func (a *agent) background(ctx context.Context) (stop func(), err error) {
	none := func() {}
	if !a.reports() {
		return none, nil
	}
	release, err := a.dir.Lock()
	if errors.Is(err, report.ErrBusy) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	s, err := a.sender(func(text string) { a.tell("%s", text) })
	if err != nil {
		release()
		return none, err
	}
	a.own = true
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // a flush comes after the signal to end
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done // each request ends with its context
		a.own = false
		release()
	})
	a.closers = append(a.closers, stop)
	return stop, nil
}

// sending reports whether some process, maybe this one, tries to deliver.
func (a *agent) sending() bool { return a.dir.Locked() }

// sendEvery is how often a run looks whether anybody sends.
const sendEvery = 5 * time.Second

// keepSending has this process send as soon as nobody else does: the watch of this directory may die under a run, and then nobody
// would hear of it, nor could anybody give it an order. The returned function ends the look, not the sending.
func (a *agent) keepSending(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(sendEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			a.ensureSending(ctx)
		}
	}()
	return func() { cancel(); <-done }
}

// ensureSending begins to send if nobody does. Why it cannot was said when the command began.
func (a *agent) ensureSending(ctx context.Context) {
	if !a.sending() {
		if _, err := a.background(ctx); err != nil {
			a.log.Warn(err.Error())
		}
	}
}

// flush waits until all is delivered, at most for the time given, and says so if it was not. Logs are waited for if they are
// asked for, or nobody else sends them later.
func (a *agent) flush(ctx context.Context, limit time.Duration, logs bool) bool {
	a.ensureSending(ctx)
	if !a.sending() {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := report.Flush(ctx, a.dir, a.journal, a.past, logs || a.own); err != nil {
		a.tell("not everything is delivered after %s%s; the journal keeps it", limit, because(a.dir.Sent().Trouble))
		return false
	}
	return true
}

func because(trouble string) string {
	if trouble == "" {
		return ""
	}
	return " (" + trouble + ")"
}
