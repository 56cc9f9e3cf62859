// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"provost/proto"
)

// explanation is why a node is as it is. Its texts hold what nodes said and are not cleaned.
type explanation struct {
	Node     string       `json:"node"`
	Status   proto.Status `json:"status"`
	Summary  string       `json:"summary"`
	What     []string     `json:"what"`               // sentences: what happened
	Log      string       `json:"log,omitempty"`      // of Tail
	Tail     []string     `json:"tail,omitempty"`     // the step's last lines
	Likely   []string     `json:"likely,omitempty"`   // likely causes, in the order in which to look
	Because  []string     `json:"because,omitempty"`  // what did and did not run
	Now      []string     `json:"now,omitempty"`      // what the machine does
	Warnings []string     `json:"warnings,omitempty"` // of the install
	Next     []action     `json:"next,omitempty"`
	Evidence []evidence   `json:"evidence,omitempty"`
}

// action is a command that is of use, and what it does.
type action struct {
	Command string `json:"command"`
	What    string `json:"what"`
}

// evidence is what one source said.
type evidence struct {
	Source string    `json:"source"`
	Events int       `json:"events"`
	Last   time.Time `json:"last"`
	Text   string    `json:"text"` // the last of them
}

// explain puts into words what the collector knows of a node. list is nil when there is no install, or no history of it.
func explain(n *proto.Node, list *proto.EventList, now time.Time) explanation {
	x := explanation{Node: n.Name, Status: n.Status, Summary: n.Summary, Warnings: n.Warnings}
	if x.Summary == "" {
		x.Summary = string(n.Status)
	}
	f := finding{n: n, now: now}
	if list != nil {
		f.in, f.events = &list.Install, list.Events
	}
	f.order(&x)
	switch n.Status {
	case proto.StatusFailed:
		f.failed(&x)
	case proto.StatusStalled:
		f.stalled(&x)
	case proto.StatusHeld:
		f.held(&x)
	case proto.StatusBooted:
		f.booted(&x)
	case proto.StatusDefined:
		x.What = append(x.What, "The node is known, and no install of it was ordered yet.")
		x.Next = append(x.Next, action{"provost install " + n.Name, "order one"})
	case proto.StatusDiscovered:
		x.What = append(x.What, "A machine with these addresses was seen ("+strings.Join(n.MACs, " ")+"), and nobody has added it.")
		x.Next = append(x.Next, action{"provost node add NAME --mac MAC", "make it a node"})
	default:
		f.underWay(&x)
	}
	f.pending(&x)
	f.machine(&x)
	f.boot(&x)
	f.site(&x)
	f.evidence(&x)
	return x
}

// finding is what an explanation is made from.
type finding struct {
	n      *proto.Node
	in     *proto.Install // nil without history
	events []proto.Event
	now    time.Time
}

// last gives the newest event of a kind, or nil.
func (f *finding) last(k proto.Kind) *proto.Event {
	for i := len(f.events) - 1; i >= 0; i-- {
		if f.events[i].Kind == k {
			return &f.events[i]
		}
	}
	return nil
}

func (f *finding) clock(t time.Time) string { return t.In(f.now.Location()).Format("15:04:05") }

// moment is a time as people tell it: 14:03:11, 9m ago.
func (f *finding) moment(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	if f.now.Sub(t) > 20*time.Hour {
		return "on " + t.In(f.now.Location()).Format("2006-01-02 at 15:04:05")
	}
	return "at " + f.clock(t) + ", " + ago(t, f.now)
}

func (f *finding) order(x *explanation) {
	if f.in == nil {
		return
	}
	text := fmt.Sprintf("Install %d with profile %s", f.in.Ordinal, f.in.Profile)
	if f.in.Label != "" {
		text += " (label " + f.in.Label + ")"
	}
	text += " was ordered " + f.moment(f.in.Ordered)
	if f.in.Actor != "" {
		text += ", by " + f.in.Actor
	}
	if f.in.Reason != "" {
		text += ": " + f.in.Reason
	}
	x.What = append(x.What, strings.TrimRight(text, ".")+".")
	if f.n.Attempt > 1 {
		x.What = append(x.What, fmt.Sprintf("This is attempt %d.", f.n.Attempt))
	}
}

// likely gives what the collector thinks of why it came no further.
func (f *finding) likely(x *explanation) {
	if f.n.Stuck == nil {
		return
	}
	for _, c := range f.n.Stuck.Likely {
		x.Likely = append(x.Likely, strings.ReplaceAll(c, "NODE", f.n.Name))
	}
}

// evidence sums up what each source said, the one with the newest word first.
func (f *finding) evidence(x *explanation) {
	by := map[proto.Source]int{}
	for i := range f.events {
		e := &f.events[i]
		at, ok := by[e.Source]
		if !ok {
			at = len(x.Evidence)
			by[e.Source] = at
			x.Evidence = append(x.Evidence, evidence{Source: string(e.Source)})
		}
		v := &x.Evidence[at]
		v.Events++
		if !when(e).Before(v.Last) {
			v.Last = when(e).In(f.now.Location())
			v.Text, _ = describe(e)
		}
	}
	slices.SortStableFunc(x.Evidence, func(a, b evidence) int { return b.Last.Compare(a.Last) })
}
