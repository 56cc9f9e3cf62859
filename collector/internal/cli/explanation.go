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

func (f *finding) failed(x *explanation) {
	n, c := f.n, f.n.Cause
	if c == nil {
		x.What = append(x.What, "It failed, and the collector did not say why.")
		x.Next = append(x.Next, action{"provost timeline " + n.Name, "every event"})
		return
	}
	x.What = append(x.What, f.cause(c)...)
	f.likely(x)
	x.Log, x.Tail = c.Log, c.Tail
	if x.Log == "" {
		x.Log = "its output"
	}
	f.steps(x)
	f.presence(x)
	step := c.Name
	if c.Kind == proto.CauseInstaller || c.Kind == proto.CauseStageDeadline || c.Kind == proto.CauseForeign {
		step = ""
	}
	if step == "" {
		step = "the failed step"
	}
	if n.Waiting && proto.Resumes(n.Orders) {
		x.Next = append(x.Next, action{"provost status " + n.Name + " --wait", "return when it has ended"})
	}
	if n.Waiting {
		x.Next = append(x.Next, action{"provost retry " + n.Name, "run " + step + " again, then go on"},
			action{"provost skip " + n.Name, "go on without it, with a warning"},
			action{"provost release " + n.Name, "end the hold; it stays failed"})
	}
	switch {
	case c.Log != "":
		x.Next = append(x.Next, action{"provost log " + n.Name + " " + strings.TrimSuffix(c.Log, ".log"), "the whole log"})
	case f.in != nil && len(f.in.Logs) > 0:
		x.Next = append(x.Next, action{"provost log " + n.Name, "the logs that there are"})
	}
	x.Next = append(x.Next, action{"provost timeline " + n.Name, "every event"}, action{"provost install " + n.Name, "install it again from the start"})
}

// cause tells the first cause.
func (f *finding) cause(c *proto.Cause) []string {
	after := ""
	if c.DurationMS > 0 {
		after = " after " + took(c.DurationMS)
	}
	at := f.moment(c.At)
	step := "Step " + c.Name
	if c.Name == "" {
		step = "A step"
	}
	if c.Phase != "" {
		step += " of phase " + string(c.Phase)
	}
	var out []string
	switch c.Kind {
	case proto.CauseStep:
		out = append(out, fmt.Sprintf("%s ended with exit status %d%s%s, %s.", step, c.Exit, meaning(c.Exit), after, at))
	case proto.CauseTimeout:
		out = append(out, fmt.Sprintf("%s did not end in its time and was ended%s, %s.", step, after, at))
	case proto.CauseSignal:
		out = append(out, fmt.Sprintf("%s was killed by %s%s, %s.", step, c.Signal, after, at))
		if c.Signal == "SIGKILL" {
			out = append(out, "Provost did not do that; the kernel does when memory runs out.")
		}
	case proto.CausePreflight:
		out = append(out, fmt.Sprintf("%s could not be started, and nothing of it ran, %s.", step, at))
	case proto.CauseInterrupted:
		out = append(out, fmt.Sprintf("The machine or the agent went away while %s ran, %s; half of it may be done.", lower(step), at))
	case proto.CausePlan:
		out = append(out, fmt.Sprintf("The agent could not get its plan, or could not trust it, %s; no step ran.", at))
	case proto.CauseDownload:
		out = append(out, fmt.Sprintf("A download failed, %s.", at))
	case proto.CauseInstaller:
		out = append(out, fmt.Sprintf("The installer said that it failed%s, %s.", inStage(c.Name), at))
	case proto.CauseForeign:
		out = append(out, fmt.Sprintf("%s said that it failed%s, %s.", c.Source, inStage(c.Name), at))
	case proto.CauseAgent:
		out = append(out, fmt.Sprintf("The agent itself failed, %s.", at))
	case proto.CauseLoop:
		if f.external() {
			out = append(out, fmt.Sprintf("Its installer was booted again after %s that did not come to an end, %s.", count(max(c.Count-1, 1), "attempt"), at))
			break
		}
		out = append(out, fmt.Sprintf("It asked for the installer again after %s that did not come to an end, %s: it is kept from installing for ever.", count(c.Count, "attempt"), at))
	case proto.CauseStageDeadline:
		out = append(out, fmt.Sprintf("Stage %s did not come in its last time, which ended %s.", c.Name, at), f.reached())
	case proto.CauseAbort:
		by := ""
		if e := f.last(proto.KindAborted); e != nil && e.Actor != "" {
			by = " by " + e.Actor
		}
		out = append(out, fmt.Sprintf("It was aborted%s, %s.", by, at))
	default:
		out = append(out, fmt.Sprintf("It failed (%s), %s.", c.Kind, at))
	}
	if c.Try > 1 {
		out = append(out, fmt.Sprintf("That was try %d.", c.Try))
	}
	if c.Message != "" && !slices.Contains(c.Tail, c.Message) {
		says := "It says: "
		if c.Kind == proto.CauseAbort {
			says = "The reason given: "
		}
		out = append(out, says+strings.TrimRight(c.Message, ". \n")+".")
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

func lower(s string) string { return strings.ToLower(s[:1]) + s[1:] }

func inStage(name string) string {
	if name == "" {
		return ""
	}
	return " in stage " + name
}

// meaning is what a shell means by an exit status (POSIX.1-2017, 2.8.2).
func meaning(exit int) string {
	switch {
	case exit == 126:
		return " (a command was found and could not be run)"
	case exit == 127:
		return " (a command was not found)"
	case exit > 128 && exit <= 128+31:
		return fmt.Sprintf(" (a command was killed by signal %d)", exit-128)
	}
	return ""
}

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

// steps says what had run before, and what did not because of the failure.
func (f *finding) steps(x *explanation) {
	if f.in == nil {
		return
	}
	done, not := 0, []string(nil)
	for _, st := range f.in.Steps {
		switch {
		case st.Outcome == proto.OutcomeOK:
			done++
		case st.Try == 0 && st.Outcome == "":
			not = append(not, st.Name)
		}
	}
	if len(f.in.Steps) == 0 {
		return
	}
	switch {
	case done == 1:
		x.Because = append(x.Because, "1 step before it succeeded.")
	case done > 1:
		x.Because = append(x.Because, fmt.Sprintf("%d steps before it succeeded.", done))
	}
	if len(not) > 0 {
		x.Because = append(x.Because, fmt.Sprintf("Because of it, %s did not run: %s.", count(len(not), "step"), strings.Join(not, ", ")))
	} else {
		x.Because = append(x.Because, "No step was left to run after it.")
	}
}

// presence says whether the machine is up and takes orders.
func (f *finding) presence(x *explanation) {
	n := f.n
	silent := !n.LastSeen.IsZero() && f.now.Sub(n.LastSeen) > silentAfter
	if n.Waiting {
		text := "The machine holds and waits for an order"
		if h := f.last(proto.KindHold); h != nil {
			text += ", since " + f.clock(when(h)) + " (" + roughly(f.now.Sub(when(h))) + ")"
		}
		x.Now = append(x.Now, text+".")
		if silent {
			x.Now = append(x.Now, "But it was last heard "+ago(n.LastSeen, f.now)+": if it is off, or cut off, orders do not reach it.")
		} else {
			x.Now = append(x.Now, "It was last heard "+ago(n.LastSeen, f.now)+".")
		}
		return
	}
	switch {
	case n.LastSeen.IsZero():
		x.Now = append(x.Now, "Its agent was never heard.")
	default:
		x.Now = append(x.Now, "Its agent was last heard "+ago(n.LastSeen, f.now)+", and takes no orders.")
	}
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

// likely gives what the collector thinks of why it came no further.
func (f *finding) likely(x *explanation) {
	if f.n.Stuck == nil {
		return
	}
	for _, c := range f.n.Stuck.Likely {
		x.Likely = append(x.Likely, strings.ReplaceAll(c, "NODE", f.n.Name))
	}
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
		x.What = append(x.What, fmt.Sprintf("Stage %s should have come and has not; its time ended %s.", stage, f.moment(when(e))))
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
			text := fmt.Sprintf("Stage %s must come within %s", d.Stage, span(left))
			if !d.Since.IsZero() && d.Since.Before(f.now) {
				text += ", and has been waited for since " + f.clock(d.Since)
			}
			x.Now = append(x.Now, text+".")
		} else {
			x.Now = append(x.Now, fmt.Sprintf("Stage %s is overdue by %s.", d.Stage, span(left)))
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
		if e := &f.events[i]; strings.HasPrefix(string(e.Source), "log:") && e.Stage != "" {
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
