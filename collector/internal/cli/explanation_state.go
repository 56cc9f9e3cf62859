// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"
	"time"

	"provost/proto"
)

// pending says which orders the agent has not carried out yet.
func (f *finding) pending(x *explanation) {
	if !pendingMatters(f.n.Status, f.n.Waiting) {
		return
	}
	for _, o := range f.n.Orders {
		text := upper(string(o.Verb))
		if o.Step != "" {
			text += " of step " + o.Step
		}
		text += " was ordered"
		if !o.Since.IsZero() {
			text += " " + f.moment(o.Since)
		}
		if o.Actor != "" {
			text += ", by " + o.Actor
		}
		x.Now = append(x.Now, text+"; the agent takes it at its next heartbeat.")
	}
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// reached names the last stage that did come.
func (f *finding) reached() string {
	if f.n.Stage == "" {
		return ""
	}
	if st := f.n.Stuck; st != nil && st.Last != "" && st.LastSource != "" {
		return "The last stage that it reached is " + st.Last + ", " + f.moment(st.LastAt) + ", told by " + string(st.LastSource) + "."
	}
	for i := len(f.events) - 1; i >= 0; i-- {
		if e := &f.events[i]; e.Stage == f.n.Stage && e.Kind != proto.KindStalled && e.Kind != proto.KindDeadline {
			return "The last stage that it reached is " + f.n.Stage + ", " + f.moment(when(e)) + "."
		}
	}
	return "The last stage that it reached is " + f.n.Stage + "."
}

// moved says that a deadline is later because the collector was down.
func (f *finding) moved() string {
	if d := f.n.Deadline; d != nil && d.MovedMS > 0 {
		return fmt.Sprintf("Its time is longer by %s, in which the collector was down.", span(time.Duration(d.MovedMS)*time.Millisecond))
	}
	return ""
}

// slow reports whether what is awaited takes far longer than it usually does.
func slow(d *proto.Deadline, now time.Time) bool {
	return d.Usual != nil && !d.Usual.SlowAt.IsZero() && !now.Before(d.Usual.SlowAt)
}

// usually says how long the wait usually is.
func usually(d *proto.Deadline, now time.Time) string {
	if d == nil || d.Usual == nil {
		return ""
	}
	ms := func(n int64) string { return span(time.Duration(n) * time.Millisecond) }
	text := fmt.Sprintf("The wait for %s is usually %s, nine times of ten at most %s (%s); this one is %s so far", d.Stage, ms(d.Usual.MedianMS), ms(d.Usual.P90MS),
		count(d.Usual.Installs, "install"), span(now.Sub(d.Since)))
	if slow(d, now) {
		text += ": slow"
	}
	return text + "."
}

func (f *finding) stalled(x *explanation) {
	n := f.n
	stage := ""
	if e := f.last(proto.KindStalled); e != nil && e.Source == proto.SourceAgent {
		stage = e.Stage
		x.What = append(x.What, fmt.Sprintf("The installer stands still before stage %s: %s, %s.", stage, e.Message, f.moment(when(e))))
	} else if e != nil {
		stage = e.Stage
		should := "Stage " + stage
		if unheard(n) {
			should = "A sign of life, " + stage + " or any later stage,"
		}
		x.What = append(x.What, fmt.Sprintf("%s should have come and has not; its time ended %s.", should, f.moment(when(e))))
	} else {
		x.What = append(x.What, fmt.Sprintf("A stage did not come in its time: %s, %s.", n.Summary, f.moment(n.Since)))
	}
	if s := f.reached(); s != "" {
		x.What = append(x.What, s)
	}
	f.likely(x)
	if n.Deadline != nil && n.Deadline.At.After(f.now) {
		x.Now = append(x.Now, fmt.Sprintf("If %s, or a later stage, comes after all, it goes on; in %s it is failed.", n.Deadline.Stage, span(n.Deadline.At.Sub(f.now))))
	} else {
		x.Now = append(x.Now, "If that stage, or a later one, comes after all, it goes on.")
	}
	if m := f.moved(); m != "" {
		x.Now = append(x.Now, m)
	}
	x.Next = append(x.Next, action{"provost timeline " + n.Name, "every event"})
	if f.in != nil && len(f.in.Logs) > 0 {
		x.Next = append(x.Next, action{"provost log " + n.Name, "the logs that there are"})
	}
	x.Next = append(x.Next, action{"provost install " + n.Name, "install it again from the start"})
}

func (f *finding) held(x *explanation) {
	n := f.n
	text := "It holds by an order"
	if h := f.last(proto.KindHold); h != nil {
		text += ", since " + f.clock(when(h)) + " (" + roughly(f.now.Sub(when(h))) + ")"
		if h.Message != "" {
			text += ": " + strings.TrimRight(h.Message, ". \n")
		}
	}
	x.What = append(x.What, text+".")
	x.Now = append(x.Now, "It was last heard "+ago(n.LastSeen, f.now)+".")
	x.Next = append(x.Next, action{"provost release " + n.Name, "go on"}, action{"provost abort " + n.Name, "end the install"})
}

func (f *finding) booted(x *explanation) {
	text := "The installed system proved that it runs, " + f.moment(f.n.Since)
	if f.in != nil && !f.n.Since.IsZero() {
		text += ", " + roughly(f.n.Since.Sub(f.in.Ordered)) + " after the order"
	}
	x.What = append(x.What, text+".")
	x.Next = append(x.Next, action{"provost timeline " + f.n.Name, "every event"})
}

// unheard reports whether nothing came of a node since the order: then any stage is the sign of life that is awaited.
func unheard(n *proto.Node) bool { return n.Stage == "" || n.Stage == "ordered" }

// awaitedStage names what must come next.
func awaitedStage(n *proto.Node) string {
	if unheard(n) {
		return "A sign of life, " + n.Deadline.Stage + " or any later stage,"
	}
	return "Stage " + n.Deadline.Stage + ", or a later one,"
}

func (f *finding) underWay(x *explanation) {
	n := f.n
	switch n.Status {
	case proto.StatusOrdered:
		x.What = append(x.What, "The machine has not been heard of since: reset it or power it on.")
	default:
		text := "It is under way: " + string(n.Status)
		if n.Stage != "" {
			text += ", at stage " + n.Stage
		}
		if n.Step != "" {
			text += ", step " + n.Step + " runs"
		}
		x.What = append(x.What, text+".")
	}
	if d := n.Deadline; d != nil && !d.At.IsZero() {
		if left := d.At.Sub(f.now); left > 0 {
			text := fmt.Sprintf("%s must come within %s", awaitedStage(n), span(left))
			if !d.Since.IsZero() && d.Since.Before(f.now) {
				text += ", and has been waited for since " + f.clock(d.Since)
			}
			x.Now = append(x.Now, text+".")
		} else {
			x.Now = append(x.Now, fmt.Sprintf("%s is overdue by %s.", awaitedStage(n), span(left)))
		}
		if u := usually(d, f.now); u != "" {
			x.Now = append(x.Now, u)
		}
		if m := f.moved(); m != "" {
			x.Now = append(x.Now, m)
		}
	}
	if !n.LastSeen.IsZero() {
		x.Now = append(x.Now, "Its agent was last heard "+ago(n.LastSeen, f.now)+".")
	}
	if n.Step != "" {
		x.Next = append(x.Next, action{"provost log " + n.Name + " -f", "what the step writes now"})
	}
	x.Next = append(x.Next, action{"provost status " + n.Name + " --wait", "return when it has ended"}, action{"provost timeline " + n.Name, "every event"})
}

// external reports whether the site's own servers boot the node.
func (f *finding) external() bool { return f.in != nil && f.in.Boot == "external" }

// site says what is known of the way to the installer where the site's own servers boot the node.
func (f *finding) site(x *explanation) {
	if !f.external() || f.n.Status == proto.StatusBooted {
		return
	}
	x.Now = append(x.Now, "Your own PXE server boots this node, and Provost can neither start nor stop that.")
	for i := len(f.events) - 1; i >= 0; i-- {
		if e := &f.events[i]; strings.HasPrefix(string(e.Source), "log:") && e.Stage != "" && !e.Failed {
			x.Now = append(x.Now, fmt.Sprintf("Of its way there the frontend's logs last showed %s, %s (%s).", e.Stage, f.moment(when(e)), e.Source))
			return
		}
	}
	x.Now = append(x.Now, "No log of the frontend has shown anything of its way there: the logs that are read are named under evidence: in provostd.yaml.")
}

// boot says what a network boot would do to the machine, where that is not just what is awaited.
func (f *finding) boot(x *explanation) {
	if f.external() {
		return
	}
	switch f.n.Status {
	case proto.StatusFailed, proto.StatusStalled, proto.StatusHeld, proto.StatusBooted:
	default:
		if f.n.BootAction == proto.BootInstall {
			return
		}
	}
	what := map[proto.BootAction]string{
		proto.BootInstall: "the installer, while it has attempts left",
		proto.BootDisk:    "the system on its disk",
		proto.BootNetboot: "its diskless system",
		proto.BootBlock:   "a screen that says why it is blocked",
		proto.BootRescue:  "the rescue environment",
	}[f.n.BootAction]
	if what != "" {
		x.Now = append(x.Now, fmt.Sprintf("Its boot action is %s: at a network boot it gets %s.", f.n.BootAction, what))
	}
}
