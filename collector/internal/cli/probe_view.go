// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	logs "provost/collector/internal/evidence"
	"provost/collector/internal/nodeset"
	"provost/proto"
)

// sameShown is how many nodes with the same failure are shown in full, causesShown how many likely causes, unless
// --verbose asks for all.
const (
	sameShown   = 3
	causesShown = 3
	fewNodes    = 3 // up to so many, nodes that arrived are shown in full, too
)

// probeView writes a report for people.
type probeView struct {
	w       *bufio.Writer
	sc      screen
	r       *logs.Report
	loc     *time.Location
	verbose bool
	layout  string            // compact, phase, origin, or empty: failures in full
	days    bool              // the report spans more than one day
	told    map[string]string // the node of which a list of causes was written
}

func (v *probeView) width() int { return min(v.sc.width, defaultWidth) }

func (v *probeView) stamp(t time.Time) string {
	switch {
	case t.IsZero():
		return pad("-", len(v.stampForm()))
	default:
		return t.In(v.loc).Format(v.stampForm())
	}
}

func (v *probeView) stampForm() string {
	if v.days {
		return "Jan _2 15:04:05"
	}
	return time.TimeOnly
}

func (v *probeView) write() {
	r := v.r
	v.days = r.From.In(v.loc).Format(time.DateOnly) != r.Until.In(v.loc).Format(time.DateOnly)
	v.header()
	v.checks()
	v.odd()
	shown := map[string]int{}
	var brief []*logs.NodeReport
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if v.full(n, shown) {
			v.node(n)
		} else {
			brief = append(brief, n)
		}
	}
	if len(brief) > 0 {
		fmt.Fprintln(v.w)
		v.rows(brief)
	}
	v.frontend()
	if !v.site() {
		v.files()
	}
	v.summary()
}

// full reports whether a node is shown in full.
func (v *probeView) full(n *logs.NodeReport, shown map[string]int) bool {
	switch {
	case v.layout == "compact":
		return false
	case v.layout != "" || v.verbose:
		return true
	case n.State == logs.Stopped:
		key := string(n.Stage) + n.Why
		shown[key]++
		return shown[key] <= sameShown
	}
	return len(v.r.Nodes) <= fewNodes
}

// site reports whether the report is a collector's.
func (v *probeView) site() bool { return len(v.r.Files) == 0 }

func (v *probeView) header() {
	r := v.r
	line := count(len(r.Files), "log") + ", " + count(int(r.Total.Lines), "line")
	if v.site() {
		line = count(len(r.Nodes), "install") + ", " + count(int(r.Total.Lines), "event")
	}
	if !r.From.IsZero() {
		line += ", " + v.period()
	}
	for _, l := range wrap(line, v.width()) {
		fmt.Fprintf(v.w, "%s\n", v.sc.paint(bold, l))
	}
	v.counts()
}

// period is the time that the logs are about.
func (v *probeView) period() string {
	from, until := v.r.From.In(v.loc), v.r.Until.In(v.loc)
	form := "15:04:05 MST"
	if v.days {
		form = "Mon 2006-01-02 15:04:05 MST"
	}
	return from.Format("Mon 2006-01-02 15:04:05") + " to " + until.Format(form)
}

// counts says how many nodes are in which state.
func (v *probeView) counts() {
	n := map[logs.State]int{}
	for i := range v.r.Nodes {
		n[v.r.Nodes[i].State]++
	}
	noun, arrived := "node", "arrived"
	if v.site() {
		noun, arrived = "install", "booted"
	}
	parts := []cell{{text: count(len(v.r.Nodes), noun)}}
	for _, st := range []struct {
		state  logs.State
		text   string
		colour string
	}{{logs.Stopped, "stopped", red}, {logs.Moving, "on their way", ""}, {logs.Arrived, arrived, green}, {logs.Leased, "only leased", ""}} {
		if k := n[st.state]; k > 0 {
			parts = append(parts, cell{strconv.Itoa(k) + " " + st.text, st.colour})
		}
	}
	if v.r.Omitted > 0 {
		parts = append(parts, cell{strconv.Itoa(v.r.Omitted) + " lines of more nodes left out", yellow})
	}
	writeParts(v.w, v.sc, v.width(), parts)
}

// odd says which lines were not understood: what is judged without them may be wrong.
func (v *probeView) odd() {
	for i := range v.r.Odd {
		o := &v.r.Odd[i]
		of := " of " + o.Program
		if o.Program == "" {
			of = ", torn or damaged,"
		}
		v.mark("!", yellow, count(int(o.Lines), "line")+of+" not understood, the first in "+o.File+":")
		v.raw(" ", cut(clean(o.Example), exampleCells))
	}
}

// exampleCells is the most that is shown of a line that was not understood: two rows.
const exampleCells = 150

// stateCells is what a row leaves to a node's state at least: failed(STEP=127) with a step's name of 24.
const stateCells = 38

// rows writes nodes in one line each. The address goes first where room is short, then the MAC.
func (v *probeView) rows(nodes []*logs.NodeReport) {
	cols := []column{{title: "NODE"}, {title: "STATE", min: stateCells}, {title: "BEGAN", min: len(v.stampForm()), drop: 1}, {title: "TOOK", min: gapColumn, drop: 2},
		{title: "MAC", min: 17, drop: 3}, {title: "IP", min: 39, drop: 4}}
	writeTable(v.w, v.sc, v.width(), cols, len(nodes), func(i int, cs []cell) []string {
		n := nodes[i]
		text, colour := v.state(n)
		if len(n.Warnings) > 0 || slices.ContainsFunc(n.Problems, func(p logs.Problem) bool { return !p.Mended }) {
			text += " !"
		}
		took, mac, ip := "", clean(n.MAC), ""
		if d := n.Until.Sub(n.From); !n.From.IsZero() && d >= time.Second {
			took = span(d)
		}
		if n.MAC == n.Name {
			mac = ""
		}
		if len(n.IPs) > 0 && n.IPs[0] != n.Name {
			ip = clean(n.IPs[0])
		}
		cs[0], cs[1], cs[2], cs[3], cs[4], cs[5] = cell{text: clean(n.Name)}, cell{text, colour}, cell{text: strings.TrimRight(v.stamp(n.From), " ")}, cell{text: took}, cell{text: mac}, cell{text: ip}
		return nil
	})
}

func (v *probeView) frontend() {
	if len(v.r.Frontend) == 0 && len(v.r.Missing) == 0 && len(v.r.NotSeen) == 0 && len(v.r.Advice) == 0 {
		return
	}
	fmt.Fprintf(v.w, "\n%s\n", v.sc.paint(bold, "frontend"))
	what := map[string]string{"dhcp": "DHCP server's log", "tftp": "TFTP server's log", "web": "web server's log"}
	for _, m := range v.r.Missing {
		v.mark("-", dim, "no "+what[m]+" among these: what only it sees is not known")
	}
	for _, a := range v.r.Advice {
		v.mark("-", dim, a)
	}
	if len(v.r.NotSeen) > 0 {
		v.mark("!", yellow, "in no line: "+foldNames(v.r.NotSeen))
	}
	for i := range v.r.Frontend {
		p := &v.r.Frontend[i]
		text := string(p.Kind)
		if p.File != "" {
			text += " " + p.File
		}
		if p.Reason != "" {
			text += ": " + p.Reason
		}
		text += " (" + p.Program
		if p.Client != "" {
			text += ", asked by " + p.Client
		}
		if p.Count > 1 {
			text += ", " + strconv.Itoa(p.Count) + " times"
		}
		v.mark("!", yellow, text+")")
	}
}

func (v *probeView) files() {
	const number = 9
	heads := []string{"lines", "known", "ignored", "unknown", "broken"}
	name := max(v.width()-len(heads)*number, 12)
	fmt.Fprintf(v.w, "\n%s", v.sc.paint(bold, pad("log", name)))
	for _, h := range heads {
		fmt.Fprintf(v.w, "%*s", number, h)
	}
	fmt.Fprintln(v.w)
	for i := range v.r.Files {
		f := &v.r.Files[i]
		fmt.Fprintf(v.w, "%s", pad(pathEnd(clean(f.Name), name-1), name))
		for _, n := range []int64{f.Lines, f.Known, f.Ignored, f.Unknown, f.Broken} {
			fmt.Fprintf(v.w, "%*d", number, n)
		}
		fmt.Fprintln(v.w)
		if f.Error != "" {
			v.mark("X", red, "reading it ended early: "+f.Error)
		} else if f.Known == 0 && f.Lines > 0 {
			v.mark("-", dim, "no line in it is about booting")
		}
	}
}

// summary says once more, where the eye is at the end, what failed: one row per reason.
func (v *probeView) summary() {
	type group struct {
		why   string
		names []string
	}
	var groups []*group
	for i := range v.r.Nodes {
		n := &v.r.Nodes[i]
		if n.State != logs.Stopped {
			continue
		}
		g := slices.IndexFunc(groups, func(g *group) bool { return g.why == n.Why })
		if g < 0 {
			groups = append(groups, &group{why: n.Why})
			g = len(groups) - 1
		}
		groups[g].names = append(groups[g].names, n.Name)
	}
	slices.SortStableFunc(groups, func(a, b *group) int { return len(b.names) - len(a.names) })
	fmt.Fprintln(v.w)
	v.counts()
	for _, g := range groups {
		names := foldNames(g.names)
		if len(g.names) > 1 {
			names = count(len(g.names), "node") + ", " + names
		}
		v.mark("X", red, g.why+": "+names)
	}
	if slices.ContainsFunc(v.r.Nodes, func(n logs.NodeReport) bool { return n.State == logs.Leased }) {
		v.mark("-", dim, "only leased: it got an address, and nothing in these logs says that it booted from the network")
	}
	if len(v.r.Nodes) == 0 {
		v.mark("!", yellow, v.nothing())
	}
}

// nothing says why a report has no node.
func (v *probeView) nothing() string {
	switch n := v.r.Others; {
	case v.site():
		return "no install of these nodes is under way, or was in that time"
	case n == 0:
		return "no line in these logs is about a node that boots: are they those of the DHCP, TFTP or web server? `provost probe --help` names the servers that it knows"
	case v.r.From.IsZero():
		return "these logs are about " + count(n, "node") + ", in lines without a time, and not about what was asked for: the same command without names and times shows them"
	case n == 1:
		return "these logs are about 1 node, " + v.period() + ", and it is not what was asked for: the same command without names and times shows it"
	default:
		return "these logs are about " + count(n, "node") + ", " + v.period() + ", and none of them is what was asked for: the same command with -p compact, and without names and times, lists them"
	}
}

// namesShown bounds the names of one row of the summary.
const namesShown = 8

// foldNames writes node names as a node set, where they are ones; else the first few.
func foldNames(names []string) string {
	if !slices.ContainsFunc(names, func(n string) bool { return proto.CheckNode(n) != nil }) {
		return nodeset.Fold(names)
	}
	if len(names) > namesShown {
		return strings.Join(names[:namesShown], ", ") + ", and " + strconv.Itoa(len(names)-namesShown) + " more"
	}
	return strings.Join(names, ", ")
}
