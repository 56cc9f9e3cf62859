// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"provost/agent/internal/host"
	"provost/agent/internal/probe"
	"provost/agent/internal/proc"
	"provost/proto"
)

const (
	// probeEvery is the time between two looks at the installer.
	probeEvery = time.Second
	// probeStop bounds the wait for the last look: a look reads /proc, where a process that is stuck in the kernel can
	// hold its reader.
	probeStop = 2 * time.Second
	// probeMarks is the state file that says how far the installer's logs have been read.
	probeMarks = "probe.json"
)

// probe watches the installer in the background until the function that it returns is called.
func (a *agent) probe(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil { // the journal must go on being delivered
				a.log.Error("watching the installer ended", "panic", p, "stack", string(debug.Stack()))
			}
		}()
		p := prober{a: a, sys: probeSystem{a.host, make(chan struct{}, 1)}, watch: probe.New(probe.Generic)}
		p.run(ctx)
	}()
	return func() {
		cancel()
		select {
		case <-done:
		case <-time.After(probeStop):
		}
	}
}

// prober writes what a watch finds into the journal.
type prober struct {
	a       *agent
	sys     probe.System
	watch   *probe.Watch
	log     io.Closer
	pending []proto.Event // found, but the journal has not taken them yet
	marks   []byte        // what the state file says
	hidden  bool          // secrets are, those of the next two
	planned time.Time     // when the plan was written
	token   string
}

func (p *prober) run(ctx context.Context) {
	p.begin(probe.Generic)
	for {
		p.look()
		select {
		case <-ctx.Done():
			p.end()
			return
		case <-time.After(probeEvery):
		}
	}
}

// begin watches for a family from now on.
func (p *prober) begin(family string) {
	p.watch = probe.New(family)
	for key := range p.reported() {
		p.watch.Known(key.stage, key.failed)
	}
	if family == probe.Generic {
		return
	}
	p.a.log.Info("watching the installer", "family", family)
	var marks map[string]probe.Mark
	if b, err := os.ReadFile(p.a.dir.Path(probeMarks)); err == nil && json.Unmarshal(b, &marks) == nil {
		p.watch.Resume(marks)
	}
	var size int64
	name := p.a.logName(probe.LogBase)
	for _, l := range p.a.journal.Logs() {
		if l.Name == name {
			size = l.Size
		}
	}
	w, err := p.a.journal.Log(name)
	if err != nil {
		p.a.say(err.Error())
		return
	}
	p.log = w
	p.watch.Ship(w, size)
	p.hidden = false
	p.hide()
}

// hide keeps secrets out of the installer's logs: those that are proofs, and those of the plan as soon as it is there.
func (p *prober) hide() {
	var planned time.Time
	for _, name := range []string{"plan.json", localPlan} {
		if info, err := os.Stat(p.a.dir.Path(name)); err == nil && info.ModTime().After(planned) {
			planned = info.ModTime()
		}
	}
	token := p.a.dir.Token()
	if p.hidden && planned.Equal(p.planned) && p.token == token {
		return
	}
	p.hidden, p.planned, p.token = true, planned, token
	secrets := []string{p.a.settings.Claim, p.a.joinKey, p.token}
	if plan, err := p.a.ready(); err == nil {
		for _, s := range plan.Steps {
			for _, v := range s.SecretEnv {
				secrets = append(secrets, v)
			}
		}
	}
	p.watch.Hide(proc.NewRedactor(secrets).String)
}

func (p *prober) end() {
	p.watch.Close()
	if p.log != nil {
		if err := p.log.Close(); err != nil {
			p.a.say(err.Error())
		}
	}
}

type told struct {
	stage  string
	failed bool
}

func toldBy(e *proto.Event) told {
	if e.Kind == proto.KindStalled {
		return told{string(e.Kind), false}
	}
	return told{e.Stage, e.Failed}
}

// reported is what the journal says already of this boot's install, whoever said it.
func (p *prober) reported() map[told]bool {
	out := map[told]bool{}
	for r, err := range p.a.journal.Events() {
		if err == nil && r.Event.Stage != "" && r.Event.Boot == p.a.boot {
			out[toldBy(&r.Event)] = true
		}
	}
	return out
}

// look looks once. What it has read of the logs is noted only when what it found there is in the journal: a kill between
// the two repeats a look, and loses none.
func (p *prober) look() {
	if p.watch.Family() == probe.Generic { // the installer's files may come with its second stage
		if family := probe.Detect(p.sys); family != probe.Generic {
			p.begin(family)
		}
	}
	p.hide()
	for _, f := range p.watch.Observe(p.sys) {
		p.pending = append(p.pending, f.Event(p.a.logName(probe.LogBase)))
		if f.Waiting {
			p.pending = append(p.pending, proto.Event{Kind: proto.KindNote, Warning: true, Message: waitingFor(f)})
		}
	}
	if len(p.pending) > 0 {
		known := p.reported()
		for len(p.pending) > 0 {
			e := p.pending[0]
			if !known[toldBy(&e)] {
				if _, err := p.a.journal.Append(e); err != nil {
					p.a.log.Warn("recording what the installer does", "stage", e.Stage, "error", err)
					return
				}
			}
			p.pending = p.pending[1:]
		}
	}
	marks := p.watch.Marks()
	if len(marks) == 0 {
		return
	}
	b, err := json.Marshal(marks)
	if err == nil && !bytes.Equal(b, p.marks) {
		err = p.a.dir.WriteFile(probeMarks, b, 0o600)
	}
	if err != nil {
		p.a.log.Warn("noting how far the installer's logs are read", "error", err)
		return
	}
	p.marks = b
}

func waitingFor(f probe.Finding) string {
	if f.Stage == "wait" {
		return "the file /tmp/wait is there: the install waits until it is removed"
	}
	return proto.Clip(fmt.Sprintf("the installer waits for somebody at its screen: %s", f.Message), proto.MaxMessage)
}

// probeSystem is this machine as the watch sees it.
type probeSystem struct {
	host.Host
	looks chan struct{} // has a token while processes are asked for their arguments
}

// argsLimit bounds the reading of all processes' arguments, for which the kernel may wait as long as one of them waits for a disk.
const argsLimit = time.Second

func (s probeSystem) Now() time.Duration { return host.SinceBoot() }

func (s probeSystem) Read(path string, offset int64, max int) (probe.File, []byte, error) {
	id, size, b, err := s.ReadAt(path, offset, max)
	return probe.File{ID: id, Size: size}, b, err
}

func (s probeSystem) Processes() []probe.Process {
	list, err := s.Host.Processes()
	if err != nil {
		return nil
	}
	out := make([]probe.Process, len(list))
	for i, p := range list {
		out[i].Name = p.Name
	}
	select {
	case s.looks <- struct{}{}:
	default: // the last look hangs: names have to do
		return out
	}
	full := make([]probe.Process, len(list))
	if !proc.Within(argsLimit, func() {
		for i, p := range list {
			full[i] = probe.Process{Name: p.Name, Args: s.Args(p.PID)}
		}
		<-s.looks
	}) {
		return out
	}
	return full
}
