// SPDX-License-Identifier: Apache-2.0

package run

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"provost/proto"
)

// PrivateArchive is the file of the state directory with PROVOST_RUN packed (JSON, gzip; a tar would link os/user): the
// reboot's record takes it to the collector, and the hello after it brings it back.
const PrivateArchive = "run.packed"

// ackWait bounds the wait for the collector's acknowledgement of a reboot without a disk, before the plan is held: what is
// done so far is known to nobody else.
const ackWait = 10 * time.Minute

// asks turns the end of a try into what the step asked for by its exit status, or into a failure where it has asked for
// too much.
func (r *runner) asks(s proto.Step, e proto.Event) proto.Event {
	p := r.history.steps[key(r.o.Phase, s.Name)]
	switch took := p.took + time.Duration(e.DurationMS)*time.Millisecond; {
	case e.Exit == proto.ExitStop:
	case p.asked >= s.Reboot.Max:
		e.Message = fmt.Sprintf("it asked %d times for a restart or to be run again (now by exit status %d); its reboot: max is %d", p.asked+1, e.Exit, s.Reboot.Max)
		return e
	case took > s.Reboot.Within.D():
		e.Message = fmt.Sprintf("it asked by exit status %d for more %s after its first start; its reboot: within is %s", e.Exit, proto.Duration(took.Round(time.Second)), s.Reboot.Within)
		return e
	}
	e.Outcome, e.Again, e.Tail = proto.OutcomeOK, e.Exit&proto.ExitAgain != 0, nil
	e.Message = map[int]string{
		proto.ExitStop: "it is done, and so is the phase", proto.ExitPoweroff: "it is done, and asked for the machine to be switched off",
		proto.ExitReboot: "it is done, and asked for a restart", proto.ExitAgain: "it asked to be run again",
		proto.ExitRebootAgain: "it asked for a restart, and to be run again then",
	}[e.Exit]
	return e
}

// restarts reports whether a step's last end in this boot asked for the machine to go down. The machine may still be up
// since the agent died before it brought that about.
func (h *history) restarts(s proto.Step, phase proto.Phase) bool {
	p := h.steps[key(phase, s.Name)]
	return s.Asks(p.exit) && p.exit&(proto.ExitReboot|proto.ExitPoweroff) != 0 && p.outcome == proto.OutcomeOK && !p.open && p.ended == h.boot
}

// stops reports whether a step ended the phase.
func (h *history) stops(s proto.Step, phase proto.Phase) bool {
	p := h.steps[key(phase, s.Name)]
	return s.Asks(p.exit) && p.exit == proto.ExitStop && p.outcome == proto.OutcomeOK && h.done(s, phase)
}

// skipRest passes over what a step has ended the phase before.
func (r *runner) skipRest(by proto.Step) {
	for _, s := range r.steps() {
		if !r.history.done(s, r.o.Phase) {
			try := max(1, r.history.steps[key(r.o.Phase, s.Name)].tries)
			r.end(s, proto.Event{Try: try, Outcome: proto.OutcomeSkipped, Message: "step " + by.Name + " ended the phase"}, false)
		}
	}
}

// restart announces that the machine goes down, and leaves it to the caller. Without a disk it waits until the collector
// knows, or somebody decides.
func (r *runner) restart(ctx context.Context, s proto.Step) *proto.Event {
	p := r.history.steps[key(r.o.Phase, s.Name)]
	e := p.reboot
	if e.Boot != r.d.Boot {
		if r.o.Phase.Fleeting() {
			if err := r.packPrivate(); err != nil {
				r.note(s.Name, "what steps keep in PROVOST_RUN does not survive the restart: "+err.Error(), true)
			}
		}
		what := "the machine restarts, as the step asked"
		if p.exit == proto.ExitPoweroff {
			what = "the machine is switched off, as the step asked"
		}
		e = r.append(proto.Event{Kind: proto.KindReboot, Phase: r.o.Phase, Step: s.Name, Try: p.tries, Exit: p.exit, Message: what})
		r.history.apply(e)
		r.point("reboot-recorded")
	}
	if r.o.Phase.Fleeting() {
		if cause := r.awaitAck(ctx, s, e.Seq); cause != nil {
			return cause
		}
	}
	r.result.Reboot, r.result.Action = &e, ActReboot
	if p.exit == proto.ExitPoweroff {
		r.result.Action = ActPoweroff
	}
	return nil
}

// awaitAck waits for the collector's acknowledgement of a record, at most ackWait; then it holds.
func (r *runner) awaitAck(ctx context.Context, s proto.Step, seq uint64) *proto.Event {
	acked := func() bool { return r.d.Acknowledged(seq) }
	r.state.set(func(st *State) { st.Message = "waiting for the collector's acknowledgement before the restart" })
	tick := time.NewTicker(ordersEvery)
	defer tick.Stop()
	for end := time.Now().Add(ackWait); !acked(); {
		if time.Now().After(end) {
			return r.holdForAck(ctx, s, acked)
		}
		select {
		case <-ctx.Done():
			return r.stopped(s, proto.OutcomeInterrupted, "the agent was told to stop before the restart")
		case <-tick.C:
			if o := r.takeAbort(); o != nil {
				r.carriedOut(*o, s.Name, "")
				return r.stopped(s, proto.OutcomeAborted, abortMessage(*o))
			}
		}
	}
	return nil
}

// holdForAck holds until the acknowledgement comes, or somebody says that it is not needed.
func (r *runner) holdForAck(ctx context.Context, s proto.Step, acked func() bool) *proto.Event {
	msg := fmt.Sprintf("step %s asked for a restart, but the collector has not acknowledged that within %s: what is done so far would be forgotten. "+
		"It goes on when the collector answers. Orders: release restarts all the same, abort", s.Name, proto.Duration(ackWait))
	e := proto.Event{Kind: proto.KindHold, Phase: r.o.Phase, Step: s.Name, Message: msg}
	r.append(e)
	var cause *proto.Event
	r.standBy(ctx, e, func() bool {
		if acked() {
			r.endHold(e, proto.OutcomeOK, "the collector has acknowledged the restart")
			return true
		}
		for _, o := range r.orders() {
			switch o.Verb {
			case proto.VerbRelease:
				r.carriedOut(o, s.Name, "")
				return true
			case proto.VerbAbort:
				r.carriedOut(o, s.Name, "")
				cause = r.stopped(s, proto.OutcomeAborted, abortMessage(o))
				return true
			}
			r.carriedOut(o, o.Step, "the machine is about to restart: release or abort")
		}
		return false
	}, func(why string, o proto.Outcome) { cause = r.stopped(s, o, why) })
	return cause
}

// kept is one file of PROVOST_RUN in PrivateArchive.
type kept struct {
	Name string      `json:"name"` // below PROVOST_RUN
	Mode fs.FileMode `json:"mode"`
	Body []byte      `json:"body"`
}

// packPrivate writes PROVOST_RUN to PrivateArchive.
func (r *runner) packPrivate() error {
	var files []kept
	room := int64(maxPrivate)
	from := filepath.Join(r.d.StateDir, "run")
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".status-")) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		body, err := io.ReadAll(io.LimitReader(f, room+1)) // one byte more than there is room for
		if err != nil {
			return err
		}
		if room -= int64(len(body)); room < 0 {
			return fmt.Errorf("it holds more than %d bytes", maxPrivate)
		}
		rel, err := filepath.Rel(from, p)
		files = append(files, kept{filepath.ToSlash(rel), info.Mode().Perm(), body})
		return err
	})
	if err != nil {
		return err
	}
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	if err := errors.Join(json.NewEncoder(zip).Encode(files), zip.Close()); err != nil {
		return err
	}
	if b.Len() > proto.MaxRun {
		return fmt.Errorf("packed it has more than %d bytes", proto.MaxRun)
	}
	return replaceFile(filepath.Join(r.d.StateDir, PrivateArchive), b.Bytes(), 0o600)
}

// unpackPrivate fills the fresh PROVOST_RUN in dir with what an earlier boot kept.
func (l *layer) unpackPrivate(dir *ground) error {
	f, err := os.Open(filepath.Join(l.d.StateDir, PrivateArchive))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	var files []kept
	if err := json.NewDecoder(io.LimitReader(zip, 4*maxPrivate)).Decode(&files); err != nil { // base 64, and the names
		return err
	}
	for _, k := range files {
		if !filepath.IsLocal(k.Name) {
			return fmt.Errorf("%q leads out of it", k.Name)
		}
		name := path.Join("run", k.Name)
		if err := errors.Join(dir.MkdirAll(path.Dir(name), 0o700), dir.WriteFile(name, k.Body, k.Mode&0o777)); err != nil {
			return err
		}
	}
	return nil
}
