// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"

	"provost/proto"
)

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
	aborted := slices.ContainsFunc(n.Orders, func(o proto.Pending) bool { return o.Verb == proto.VerbAbort })
	if n.Waiting && !aborted {
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
		out = append(out, fmt.Sprintf("It asked for the installer again after %s that did not come to an end, %s: it is kept from installing for ever.", count(max(c.Count-1, 1), "attempt"), at))
	case proto.CauseStageDeadline:
		late := c.Message // X did not come within twice 5m
		if late == "" {
			late = c.Name + " did not come in its last time"
		}
		out = append(out, fmt.Sprintf("Stage %s; that ended %s.", late, at), f.reached())
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
	told := c.Kind == proto.CauseStageDeadline || c.Kind == proto.CauseLoop && c.Source == proto.SourceBoot
	if c.Message != "" && !told && !slices.Contains(c.Tail, c.Message) {
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
