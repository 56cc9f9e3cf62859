// SPDX-License-Identifier: Apache-2.0

package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// maxOrder is the length of an order's file at most: a plan of 1000 steps in base 64 is some 600 KiB.
const maxOrder = proto.MaxBody

// WriteOrder puts an order where a run finds it. The same id twice is the same order. On a full disk it goes where space for one
// order is set aside.
func WriteOrder(stateDir string, o proto.Order) error {
	if err := proto.CheckName("order", o.ID); err != nil {
		return fmt.Errorf("writing order: %w", err)
	}
	if _, err := proto.ParseVerb(string(o.Verb)); err != nil {
		return fmt.Errorf("writing order: %w", err)
	}
	dir := filepath.Join(stateDir, "orders")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("writing order: %w", err)
	}
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("writing order: %w", err)
	}
	path := filepath.Join(dir, o.ID+".json")
	if err = replaceFile(path, b, 0o600); noSpace(err) {
		if serr := takeSlot(path, b); serr != nil {
			return fmt.Errorf("writing order: %w; %w", err, serr)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing order: %w", err)
	}
	keepSlot(dir)
	return nil
}

// replaceFile writes a file that outlives a crash of the agent, not one of the machine: orders come again, and the state
// of a run ends with its machine. Where there is a file already the two names are exchanged: ext4 takes a plain rename over a
// file for a wish to have the new one on disk (ext4(5), auto_da_alloc), and waits for that longer than most steps take.
func replaceFile(path string, b []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if mode != 0o600 { // CreateTemp's
		err = errors.Join(err, tmp.Chmod(mode))
	}
	err = errors.Join(err, tmp.Close())
	if err == nil && unix.Renameat2(unix.AT_FDCWD, tmp.Name(), unix.AT_FDCWD, path, unix.RENAME_EXCHANGE) != nil {
		err = os.Rename(tmp.Name(), path) // there is no file yet, or the file system cannot exchange
	}
	os.Remove(tmp.Name()) // the old one, or what could not be put in place
	return err
}

// orders gives what waits to be carried out, oldest first. Those that were carried out before are removed; a file that
// is no order is put aside with a note.
func (r *runner) orders() []proto.Order {
	dir := filepath.Join(r.d.StateDir, "orders")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // mostly there is none
	}
	var out []proto.Order
	for _, e := range entries { // sorted by their names, which are the orders' ids
		path := filepath.Join(dir, e.Name())
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		o, err := readOrder(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			if os.Rename(path, path+".bad") == nil {
				r.note("", fmt.Sprintf("an order in %s cannot be read: %v", path, err), true)
			}
		case r.history.orders[o.ID]:
			os.Remove(path)
		default:
			out = append(out, o)
		}
	}
	return out
}

func readOrder(path string) (proto.Order, error) {
	var o proto.Order
	info, err := os.Lstat(path)
	if err != nil {
		return o, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxOrder {
		return o, errors.New("it is no file of an order's size")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(b, &o); err != nil {
		return o, err
	}
	if err := proto.CheckName("order", o.ID); err != nil {
		return o, err
	}
	_, err = proto.ParseVerb(string(o.Verb))
	return o, err
}

// carriedOut records an order and removes its file. A refusal, the reason why it was not carried out, is recorded too:
// else it would come again for ever.
func (r *runner) carriedOut(o proto.Order, step, refusal string) {
	e := proto.Event{Kind: proto.KindOrder, Phase: r.o.Phase, Step: step, Order: string(o.Verb), OrderID: o.ID, Actor: o.Actor, Message: o.Reason}
	if refusal != "" {
		e.Failed, e.Message = true, "not carried out: "+refusal
	}
	w := r.append(e)
	r.history.apply(w)
	r.history.orders[o.ID] = true
	r.point("order-recorded")
	os.Remove(filepath.Join(r.d.StateDir, "orders", o.ID+".json")) // one that stays is known by its id
}

// takeAbort gives the oldest order to abort.
func (r *runner) takeAbort() *proto.Order {
	for _, o := range r.orders() {
		if o.Verb == proto.VerbAbort {
			return &o
		}
	}
	return nil
}

// force forgets what --force names.
func (r *runner) force(step string) {
	if step == "" {
		return
	}
	if step == "all" {
		for _, s := range r.steps() {
			r.history.forget(s.Name)
		}
	} else {
		r.history.forget(step)
	}
	r.note("", "forced: "+step, false)
}

// before looks for orders before a step, and holds where one, or the wait file, says so.
func (r *runner) before(ctx context.Context, s proto.Step) *proto.Event {
	if ctx.Err() != nil {
		return r.stopped(s, proto.OutcomeInterrupted, "the agent was told to stop before it began")
	}
	if cause := r.takeOrders(s); cause != nil {
		return cause
	}
	if _, err := os.Lstat(r.o.WaitFile); err != nil {
		r.ignored = false
	} else if !r.ignored && r.hold == nil {
		return r.held(ctx, s, proto.Event{Order: "wait", Message: fmt.Sprintf("held before step %s because %s exists: remove it, or give the order release", s.Name, r.o.WaitFile)})
	}
	if o := r.hold; o != nil {
		r.hold = nil
		msg := "held before step " + s.Name
		if o.Actor != "" {
			msg += " by " + o.Actor
		}
		if o.Reason != "" {
			msg += ": " + o.Reason
		}
		return r.held(ctx, s, proto.Event{Order: string(proto.VerbHold), Actor: o.Actor, Message: msg})
	}
	return nil
}

// takeOrders carries out what is there before step s, while nothing has failed.
func (r *runner) takeOrders(s proto.Step) *proto.Event {
	for _, o := range r.orders() {
		switch o.Verb {
		case proto.VerbAbort:
			r.carriedOut(o, s.Name, "")
			return r.stopped(s, proto.OutcomeAborted, abortMessage(o))
		case proto.VerbHold:
			r.carriedOut(o, "", "")
			r.hold = &o
		case proto.VerbForce:
			r.forceOrder(o)
		case proto.VerbSkip:
			r.skip(o, s)
		case proto.VerbRetry:
			r.retryBefore(o, s)
		case proto.VerbRelease:
			if r.hold != nil {
				r.hold = nil
				r.carriedOut(o, "", "")
			} else {
				r.carriedOut(o, "", "nothing is held")
			}
		}
	}
	return nil
}

// retryBefore takes a retry where nothing has failed in this run: it may be meant for a failure of an earlier one. It reports
// whether it took it.
func (r *runner) retryBefore(o proto.Order, s proto.Step) bool {
	step := o.Step
	if step == "" {
		step = s.Name
	}
	p, ran := r.history.steps[key(r.o.Phase, step)]
	if !ran || p.outcome.Good() && !p.open {
		r.carriedOut(o, step, "step "+step+" has not failed")
		return false
	}
	if !r.newPlan(o) {
		return false
	}
	r.carriedOut(o, step, "")
	return true
}

func (r *runner) forceOrder(o proto.Order) {
	step := o.Step
	if step == "" {
		r.carriedOut(o, "", "it names no step: give a step's name, or all")
		return
	}
	r.carriedOut(o, step, "")
}

// skip passes over the step that is next, or one that the order names. It reports whether it did.
func (r *runner) skip(o proto.Order, next proto.Step) bool {
	step := next
	if o.Step != "" && o.Step != next.Name {
		i := slices.IndexFunc(r.steps(), func(s proto.Step) bool { return s.Name == o.Step })
		if i < 0 {
			r.carriedOut(o, o.Step, "phase "+string(r.o.Phase)+" has no such step")
			return false
		}
		step = r.steps()[i]
	}
	if r.history.done(step, r.o.Phase) {
		r.carriedOut(o, step.Name, "step "+step.Name+" is done")
		return false
	}
	r.carriedOut(o, step.Name, "")
	r.skipped(step, o)
	return true
}

// skipped records that a step is passed over.
func (r *runner) skipped(s proto.Step, o proto.Order) {
	msg := "skipped"
	if o.Actor != "" {
		msg += " by " + o.Actor
	}
	if o.Reason != "" {
		msg += ": " + o.Reason
	}
	try := max(1, r.history.steps[key(r.o.Phase, s.Name)].tries)
	r.end(s, proto.Event{Try: try, Outcome: proto.OutcomeSkipped, Message: msg}, true)
	r.result.Warnings = append(r.result.Warnings, "step "+s.Name+": "+msg)
}

// newPlan takes the plan that came with an order. When it is no good the order is refused.
func (r *runner) newPlan(o proto.Order) bool {
	if o.Plan == nil {
		return true
	}
	if r.d.LoadPlan == nil {
		r.carriedOut(o, o.Step, "this run takes no new plan: use --same-plan")
		return false
	}
	p, digest, err := r.d.LoadPlan(o.Plan)
	if err == nil && p.Install != r.plan.Install {
		err = fmt.Errorf("it is the plan of install %s", p.Install)
	}
	if err != nil {
		r.carriedOut(o, o.Step, "its plan is no good: "+err.Error())
		return false
	}
	r.note("", fmt.Sprintf("plan revision %d: %s", p.Revision, proto.DiffSteps(r.plan.Steps, p.Steps)), false)
	r.setPlan(p)
	r.d.PlanDigest = digest
	return true
}
