// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"provost/collector/internal/client"
	logs "provost/collector/internal/evidence"
	"provost/proto"
)

// lastLook bounds the requests for the report after Ctrl-C.
const lastLook = 30 * time.Second

func checkLayout(cmd *cobra.Command, layout string) error {
	if layout != "" && !slices.Contains([]string{"compact", "phase", "origin"}, layout) {
		return usage(cmd, "--print %q: use compact, phase or origin", layout)
	}
	return nil
}

// window reads --replay, --since and --until.
func (o *probeOptions) window(cmd *cobra.Command, now time.Time) (err error) {
	if o.back != "" && o.since != "" {
		return usage(cmd, "--replay and --since say the same in two ways: use one")
	}
	if o.from, err = pastTime(o.back+o.since, now); err != nil {
		return usage(cmd, "--replay or --since %v", err)
	}
	if o.to, err = pastTime(o.until, now); err != nil {
		return usage(cmd, "--until %v", err)
	}
	switch {
	case cmd.Flags().Changed("time") && (!o.from.IsZero() || !o.to.IsZero()):
		return usage(cmd, "-t watches what comes, and -r, --since and --until show what was: use one")
	case o.timeout <= 0:
		return usage(cmd, "-t %s: use more than 0", o.timeout)
	case !o.to.IsZero() && !o.from.Before(o.to):
		return usage(cmd, "--until is before --since")
	}
	return nil
}

func (o *probeOptions) replays() bool { return !o.from.IsZero() || !o.to.IsZero() }

// probeSite asks a collector: for what happened, or for what happens until it is over.
func probeSite(ctx context.Context, s *session, cmd *cobra.Command, o probeOptions, expr string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	list, err := cl.Nodes(ctx, client.Query{Nodes: expr})
	if err != nil {
		var u *client.UnreachableError
		if errors.As(err, &u) {
			_, hint := judge(err)
			return &hintError{err, strings.TrimSpace(hint + "\nwithout a collector: provost probe --logs /var/log/messages --logs /var/log/httpd/access_log")}
		}
		return err
	}
	r := &logs.Report{Schema: proto.Schema, Nodes: []logs.NodeReport{}, Files: []logs.FileReport{}}
	if o.replays() {
		err = replaySite(ctx, cl, o, list.Nodes, r, s.Now())
	} else {
		err = watchSite(ctx, s, cl, o, expr, list, r)
	}
	if err != nil {
		return err
	}
	order := []logs.State{logs.Stopped, logs.Moving, logs.Arrived}
	slices.SortStableFunc(r.Nodes, func(a, b logs.NodeReport) int { return slices.Index(order, a.State) - slices.Index(order, b.State) })
	if err := o.show(s, r); err != nil {
		return err
	}
	has := func(st logs.State) bool {
		return slices.ContainsFunc(r.Nodes, func(n logs.NodeReport) bool { return n.State == st })
	}
	switch {
	case has(logs.Stopped):
		return &exitError{exitFailed}
	case has(logs.Moving):
		return &exitError{exitUnfinished}
	}
	return nil
}

// replaySite reports every install of the nodes that had an event in the window.
func replaySite(ctx context.Context, cl *client.Client, o probeOptions, nodes []proto.Node, r *logs.Report, now time.Time) error {
	for i := range nodes {
		n := &nodes[i]
		if n.Install == "" {
			continue
		}
		all, err := cl.Installs(ctx, n.Name)
		if err != nil {
			return err
		}
		for _, in := range slices.Backward(all.Installs) {
			if !o.to.IsZero() && in.Ordered.After(o.to) {
				continue
			}
			if err := addInstall(ctx, cl, o, n, in.ID, r, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// watchSite looks at the frontend, shows what happens to the nodes until their installs have ended, the time is up or the
// operator has seen enough, and reports on each.
func watchSite(ctx context.Context, s *session, cl *client.Client, o probeOptions, expr string, list *proto.NodeList, r *logs.Report) error {
	if d, err := cl.Doctor(ctx); err == nil {
		r.Checks = d.Checks
	} else if !passing(err) {
		r.Checks = []proto.Check{{Name: "frontend", State: proto.CheckWarn, Detail: "it was not looked at: " + err.Error()}}
	}
	names := map[string]bool{}
	var selected []string
	for i := range list.Nodes {
		n := &list.Nodes[i]
		if n.Install != "" && (expr != "" || !ended(n.Status)) {
			names[n.Name] = true
			selected = append(selected, n.Name)
		}
	}
	if len(selected) > 0 {
		if err := watchNodes(ctx, s, cl, o, selected, names, client.Cursor(list.Cursor)); err != nil {
			return err
		}
	}
	if ctx.Err() != nil { // the operator has seen enough: what there is, is told
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), lastLook)
		defer cancel()
	}
	now, err := cl.Nodes(ctx, client.Query{Nodes: expr})
	if err != nil {
		return err
	}
	for i := range now.Nodes {
		if n := &now.Nodes[i]; names[n.Name] && n.Install != "" {
			if err := addInstall(ctx, cl, o, n, n.Install, r, s.Now()); err != nil {
				return err
			}
		}
	}
	return nil
}

// watchNodes returns when nothing more is to be waited for. Events are shown as they come, unless the output is a document.
func watchNodes(ctx context.Context, s *session, cl *client.Client, o probeOptions, selected []string, names map[string]bool, at client.Cursor) error {
	feed, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	if o.output == "text" {
		done.Add(1)
		go func() {
			defer done.Done()
			out := bufio.NewWriter(s.Stdout)
			line := eventLine{sc: s.screen(s.Stdout), location: s.Now().Location(), names: 6, sources: 8}
			err := follow(feed, s, cl, at, func(e *proto.Event, more bool) error {
				if names[e.Node] {
					line.write(out, e)
				}
				if more {
					return nil
				}
				return flush(out)
			})
			if err != nil && feed.Err() == nil {
				s.say("provost: ", "events are not shown any more: "+err.Error())
			}
		}()
	}
	_, err := wait(ctx, s, cl, client.Query{Nodes: strings.Join(selected, ",")}, o.timeout)
	stop()
	done.Wait()
	if err != nil && ctx.Err() == nil {
		return err
	}
	if o.output == "text" {
		fmt.Fprintln(s.Stdout)
	}
	return nil
}

// addInstall adds an install to a report. One whose history was trimmed is left out, and so is one without an event in the
// window.
func addInstall(ctx context.Context, cl *client.Client, o probeOptions, n *proto.Node, id string, r *logs.Report, now time.Time) error {
	list, err := cl.Events(ctx, n.Name, id)
	var p *proto.Problem
	if errors.As(err, &p) && p.Status == 404 {
		return nil
	}
	if err != nil {
		return err
	}
	in := &list.Install
	x := logs.NodeReport{Name: n.Name, MAC: append(slices.Clone(n.MACs), "")[0], Stages: []logs.StageReport{}, Summary: in.Summary, Ordinal: in.Ordinal, Boots: in.Attempt}
	if n.IP != "" {
		x.IPs = []string{n.IP}
	}
	for i := range list.Events {
		e := &list.Events[i]
		if at := when(e); at.Before(o.from) || !o.to.IsZero() && at.After(o.to) {
			continue
		}
		addEvent(&x, e, now.Location())
		r.Total.Lines++
	}
	if x.Until.IsZero() && o.replays() {
		return nil
	}
	judgeInstall(&x, n, in, list.Events, now)
	if r.From.IsZero() || x.From.Before(r.From) {
		r.From = x.From
	}
	if x.Until.After(r.Until) {
		r.Until = x.Until
	}
	if !ended(in.Status) && o.to.IsZero() {
		r.Until = now
	}
	r.Nodes = append(r.Nodes, x)
	return nil
}

// addEvent adds a stage, or what went wrong.
func addEvent(x *logs.NodeReport, e *proto.Event, loc *time.Location) {
	at := when(e)
	text, w := describe(e)
	if x.From.IsZero() {
		x.From = at
	}
	x.Lines = append(x.Lines, at.In(loc).Format(time.TimeOnly)+" "+string(e.Source)+": "+text)
	defer func() { x.Until = at }()
	if e.Stage != "" && !e.Failed && e.Kind != proto.KindStalled && e.Kind != proto.KindDeadline {
		if i := slices.IndexFunc(x.Stages, func(s logs.StageReport) bool { return string(s.Name) == e.Stage }); i >= 0 {
			x.Stages[i].Count++
			x.Stages[i].Last = at
			return
		}
		st := logs.StageReport{Name: logs.Kind(e.Stage), At: at, Last: at, Count: 1, Program: string(e.Source)}
		if k := len(x.Stages); k > 0 {
			st.GapMS = at.Sub(x.Stages[k-1].At).Milliseconds()
		}
		x.Stages = append(x.Stages, st)
		return
	}
	if w == plain || w == good || e.Kind == proto.KindHold || e.Kind == proto.KindRunEnd {
		return
	}
	kind := string(e.Kind)
	if e.Kind == proto.KindNote {
		kind = "warning"
	}
	x.Problems = append(x.Problems, logs.Problem{Kind: logs.Kind(kind), Reason: text, Program: string(e.Source), First: at, Last: at, Count: 1,
		Mended: e.Kind == proto.KindStalled && e.Source != proto.SourceAgent})
}

// judgeInstall says how an install did. What the collector knows of causes counts for the node's newest.
func judgeInstall(x *logs.NodeReport, n *proto.Node, in *proto.Install, events []proto.Event, now time.Time) {
	newest := n.Install == in.ID
	for _, st := range x.Stages {
		x.Stage = st.Name
	}
	switch {
	case in.Status == proto.StatusBooted:
		x.State = logs.Arrived
	case in.Status == proto.StatusFailed, in.Status == proto.StatusStalled:
		x.State, x.Why = logs.Stopped, in.Summary
		if newest && n.Stuck != nil {
			x.Next, x.Until = logs.Kind(n.Stuck.Stage), n.Stuck.Since
			x.Stage = logs.Kind(n.Stuck.Last)
			x.Why += ": nothing came after " + n.Stuck.Last
			for _, c := range n.Stuck.Likely {
				x.Causes = append(x.Causes, strings.ReplaceAll(c, "NODE", n.Name))
			}
		}
		if c := in.Cause; c != nil && c.Message != "" && !strings.Contains(x.Why, c.Message) {
			x.Why += ": " + c.Message
		}
	case !newest || slices.ContainsFunc(events, func(e proto.Event) bool { return e.Kind == proto.KindSuperseded }):
		x.State, x.Why = logs.Stopped, "a newer install was ordered before it ended"
	default:
		x.State = logs.Moving
		if u := usually(n.Deadline, now); u != "" {
			x.Warnings = append(x.Warnings, u)
		}
	}
	for i := range x.Problems { // a stall is over if anything came after it
		p := &x.Problems[i]
		p.Mended = p.Mended && len(x.Stages) > 0 && x.Stages[len(x.Stages)-1].At.After(p.Last)
	}
	x.Warnings = append(slices.Clone(in.Warnings), x.Warnings...)
	if len(x.Problems) > 0 { // the same words
		x.Warnings = slices.DeleteFunc(slices.Clone(x.Warnings), func(w string) bool {
			return slices.ContainsFunc(x.Problems, func(p logs.Problem) bool { return strings.Contains(p.Reason, w) })
		})
	}
}

// checks writes what is not good of the frontend, everything with --verbose.
func (v *probeView) checks() {
	if len(v.r.Checks) == 0 {
		return
	}
	bad := 0
	for _, c := range v.r.Checks {
		if c.State != proto.CheckGood {
			bad++
		}
	}
	fmt.Fprintf(v.w, "frontend: %s, %d not good\n", count(len(v.r.Checks), "check"), bad)
	for _, c := range v.r.Checks {
		sign, colour := "X", red
		switch c.State {
		case proto.CheckGood:
			sign, colour = "+", green
			if !v.verbose {
				continue
			}
		case proto.CheckWarn:
			sign, colour = "!", yellow
		}
		v.mark(sign, colour, c.Name+": "+c.Detail)
		if c.Fix == "" {
			continue
		}
		begin := "    → "
		for _, l := range fixLines(c.Fix, v.width()-6) {
			v.w.WriteString(begin + l + "\n")
			begin = pad("", 6)
		}
	}
}
