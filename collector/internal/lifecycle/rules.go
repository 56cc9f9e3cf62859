// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"provost/proto"
)

// rule is one row of the table of statuses: the first whose condition holds gives the status.
type rule struct {
	status proto.Status
	name   string // the condition, for people
	when   func(*facts) bool
	since  func(*facts) time.Time
	why    string
	text   func(*facts) string // the summary; the status's own name if nil
}

// rules is the whole table. The order of its rows is the order of precedence.
var rules = []rule{
	{
		proto.StatusHeld, "the agent waits, and no failure is why",
		func(f *facts) bool { return f.waiting && !f.state.Wait.Failed && f.cause == nil },
		func(f *facts) time.Time { return f.state.Wait.Pos.At() },
		"an operator or the file /tmp/wait holds it; release ends that", nil,
	},
	{
		proto.StatusFailed, "a cause is open",
		func(f *facts) bool { return f.cause != nil },
		func(f *facts) time.Time { return f.cause.Pos.At() },
		"the first cause stands until an order closes it; what the agent says goes before what was inferred",
		func(f *facts) string { return f.cause.Cause.Summary() },
	},
	{
		proto.StatusBooted, "the installed system says that its first-boot steps are done, in a boot that was no installer's; or it says so without an agent, and the profile trusts that source",
		func(f *facts) bool { return !f.booted.zero() },
		func(f *facts) time.Time { return f.booted.At() },
		"only the installed system itself can prove that it runs", bootedSummary,
	},
	{
		proto.StatusStalled, "a stage was overdue, and neither it nor a later one has come since",
		func(f *facts) bool { return f.stalled && !f.waiting },
		func(f *facts) time.Time { return f.state.Stall.Pos.At() },
		"what should have happened is named, so that one knows where to look",
		func(f *facts) string { return fmt.Sprintf("stalled(%s)", f.state.Stall.Stage) },
	},
	stageRule(proto.StatusFirstboot, "the disk has booted, or a diskless node's steps run", "disk-booted"),
	stageRule(proto.StatusRebooting, "the installer is done; the disk has not been heard of", "sealed"),
	stageRule(proto.StatusPostinstall, "steps run in the target", "post-started"),
	stageRule(proto.StatusInstalling, "the agent, or the installer, was heard of", "agent-started"),
	stageRule(proto.StatusPXEBooting, "firmware or boot loader were heard of", "powered-on"),
	{
		proto.StatusOrdered, "nothing else", func(*facts) bool { return true },
		func(f *facts) time.Time { seen, _ := f.state.Stages.Get("ordered"); return seen.First.At() },
		"there is no sign of life yet", nil,
	},
}

// stageRule gives a status from the furthest stage: that of the shipped order or any later one.
func stageRule(status proto.Status, why, from string) rule {
	first := slices.Index(proto.Stages, from)
	at := func(f *facts) (earliest Pos, ok bool) {
		for _, s := range f.state.Stages {
			name, seen := s.Key, s.Value
			if i := slices.Index(proto.Stages, canonical(f.in.Sequence, name)); i < first || f.state.earlier(seen.Last) {
				continue
			}
			p := seen.First
			if f.state.earlier(p) {
				p = seen.Last
			}
			if !ok || earliest.after(p) {
				earliest, ok = p, true
			}
		}
		return earliest, ok
	}
	return rule{
		status, "stage " + from + " or a later one was reached",
		func(f *facts) bool { _, ok := at(f); return ok },
		func(f *facts) time.Time { p, _ := at(f); return p.At() },
		why, nil,
	}
}

// canonical is the sequence's own name of a stage that may be known by an alias.
func canonical(q Sequence, name string) string {
	if i := q.Index(name); i >= 0 {
		return q.Stages[i].Name
	}
	return name
}

func bootedSummary(f *facts) string {
	if s := f.state.skipped(); s != "" {
		return "booted(skipped=" + s + ")"
	}
	return string(proto.StatusBooted)
}

func (r rule) summary(f *facts) string {
	if r.text == nil {
		return string(r.status)
	}
	return r.text(f)
}

func decide(f *facts) rule {
	last := len(rules) - 1 // its condition always holds
	for _, r := range rules[:last] {
		if r.when(f) {
			return r
		}
	}
	return rules[last]
}

// Table is the table of statuses as Markdown, for the documentation.
func Table() string {
	var b strings.Builder
	b.WriteString("| # | status | when | why |\n|---|---|---|---|\n")
	for i, r := range rules {
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s |\n", i+1, r.status, r.name, r.why)
	}
	return b.String()
}
