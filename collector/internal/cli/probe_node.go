// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	logs "provost/collector/internal/evidence"
)

func (v *probeView) state(n *logs.NodeReport) (text, colour string) {
	if n.Summary != "" {
		return clean(n.Summary), map[logs.State]string{logs.Stopped: red, logs.Arrived: green}[n.State]
	}
	switch n.State {
	case logs.Stopped:
		if n.Stage == "" {
			return "STOPPED", red
		}
		return "STOPPED after " + string(n.Stage), red
	case logs.Moving:
		return "on its way, " + string(n.Stage), ""
	case logs.Arrived:
		return "arrived, " + string(n.Stage), green
	}
	return "leased", dim
}

// known is what else than its name a node is known by.
func known(n *logs.NodeReport) string {
	var out []string
	if n.MAC != "" && n.MAC != n.Name {
		out = append(out, clean(n.MAC))
	}
	for _, ip := range n.IPs {
		if ip != n.Name {
			out = append(out, clean(ip))
		}
	}
	return strings.Join(out, "  ")
}

// heading writes the name and what else the node is known by at the begin of a row, its state at the end: in two or three
// rows where one is too short, so that nothing of it is cut.
func (v *probeView) heading(n *logs.NodeReport) {
	state, colour := v.state(n)
	name, rest := clean(n.Name), known(n)
	row := func(left, paint string) {
		room := v.width() - cells(left) - cells(state)
		fmt.Fprintf(v.w, "%s%s%s\n", v.sc.paint(paint, left), strings.Repeat(" ", max(room, gap)), v.sc.paint(colour, state))
	}
	switch room := v.width() - cells(state) - gap; {
	case cells(name)+gap+cells(rest) <= room:
		row(strings.TrimRight(name+"  "+rest, " "), bold)
		return
	case cells(name) <= room:
		row(name, bold)
	default:
		fmt.Fprintf(v.w, "%s\n", v.sc.paint(bold, name))
		if cells(rest)+gap <= room {
			row(pad("", gap)+rest, dim)
			return
		}
		row("", "")
	}
	for _, l := range fold(rest, v.width()-gap) {
		if l != "" {
			fmt.Fprintf(v.w, "%s%s\n", pad("", gap), v.sc.paint(dim, strings.TrimSpace(l)))
		}
	}
}

// node writes one node in full.
func (v *probeView) node(n *logs.NodeReport) {
	fmt.Fprintln(v.w)
	v.heading(n)
	if n.Boots > 1 && v.site() {
		fmt.Fprintf(v.w, "  %s\n", v.sc.paint(dim, "attempt "+strconv.Itoa(n.Boots)))
	} else if n.Boots > 1 {
		fmt.Fprintf(v.w, "  %s\n", v.sc.paint(dim, "the last of "+strconv.Itoa(n.Boots)+" boots in these logs"))
	}
	problems, stages := n.Problems, n.Stages
	if v.layout == "origin" {
		problems, stages = slices.Clone(problems), slices.Clone(stages)
		slices.SortStableFunc(stages, func(a, b logs.StageReport) int { return strings.Compare(a.Program, b.Program) })
	}
	for i := range stages {
		st := &stages[i]
		if v.layout == "origin" && (i == 0 || stages[i-1].Program != st.Program) {
			fmt.Fprintf(v.w, "  %s\n", v.sc.paint(bold, clean(st.Program)))
		}
		for v.layout != "origin" && len(problems) > 0 && !problems[0].First.IsZero() && problems[0].First.Before(st.At) {
			v.problem(&problems[0])
			problems = problems[1:]
		}
		v.stage(st)
	}
	for i := range problems {
		v.problem(&problems[i])
	}
	if n.State == logs.Stopped {
		v.awaited(n)
		for _, l := range wrap(clean(sentence(n.Why)), v.width()-2) {
			fmt.Fprintf(v.w, "  %s\n", v.sc.paint(red, l))
		}
		v.causes(n)
	}
	for _, w := range n.Warnings {
		v.mark("!", yellow, w)
	}
	if v.verbose {
		if n.Dropped > 0 {
			v.mark("|", dim, "… "+count(n.Dropped, "line")+" before these")
		}
		for _, text := range n.Lines {
			v.raw("|", clean(text))
		}
	}
}

// sentence makes one of a text. What begins with a name, of a file or a status, is left as it is.
func sentence(s string) string {
	first, _, _ := strings.Cut(s, " ")
	if s == "" || strings.IndexFunc(first, func(r rune) bool { return r < 'a' || r > 'z' }) >= 0 {
		return s + "."
	}
	return upper(s) + "."
}

// The columns of a stage: stamp, time since the stage before, name, program, and the rest of the row.
const (
	gapColumn     = 6
	stageColumn   = 17
	programColumn = 12
)

func (v *probeView) stage(st *logs.StageReport) {
	since := ""
	if st.GapMS >= 1000 {
		since = "+" + span(time.Duration(st.GapMS)*time.Millisecond)
	}
	more := ""
	if st.Bytes > 0 {
		more += ", " + size(st.Bytes)
	}
	if st.Count > 1 {
		more += "  ×" + strconv.Itoa(st.Count)
	}
	row := "  " + v.stamp(st.At) + "  " + pad(since, gapColumn) + "  " + pad(string(st.Name)+" ", stageColumn) + pad(clean(st.Program), programColumn+1)
	file := pathEnd(clean(st.File), max(v.width()-cells(row)-cells(more), 8))
	if file == "" {
		more = strings.TrimLeft(more, " ,")
	}
	fmt.Fprintf(v.w, "%s\n", strings.TrimRight(cut(row+file+more, v.width()), " "))
}

// problem writes what went wrong, as a row in its place; what went well later is marked as such.
func (v *probeView) problem(p *logs.Problem) {
	text := clean(p.File)
	if p.Reason != "" {
		if text != "" {
			text += ": "
		}
		text += clean(p.Reason)
	}
	if p.Count > 1 {
		text += "  ×" + strconv.Itoa(p.Count)
	}
	colour := red
	if p.Mended {
		text += ", went well later"
		colour = yellow
	}
	head := "  " + v.stamp(p.First) + "  " + pad("", gapColumn) + "  " + pad(string(p.Kind)+" ", stageColumn) + pad(clean(p.Program), programColumn+1)
	at := cells(head)
	if longest(text) > v.width()-at { // a path is whole below it, so that it can be copied
		fmt.Fprintf(v.w, "%s\n", v.sc.paint(colour, strings.TrimRight(head, " ")))
		head, at = pad("", underColumn), underColumn
	}
	for _, l := range wrap(text, max(v.width()-at, 20)) {
		fmt.Fprintf(v.w, "%s\n", v.sc.paint(colour, strings.TrimRight(head+l, " ")))
		head = pad("", at)
	}
}

// underColumn is where a text begins that stands below its row.
const underColumn = 6

// longest is the width of a text's longest word.
func longest(text string) int {
	most := 0
	for w := range strings.FieldsSeq(text) {
		most = max(most, cells(w))
	}
	return most
}

// pathEnd keeps the end of a path, which tells files apart.
func pathEnd(s string, max int) string {
	r := []rune(s)
	if len(r) <= max {
		return s
	}
	return "…" + string(r[len(r)-max+1:])
}

func (v *probeView) awaited(n *logs.NodeReport) {
	if n.Next == "" {
		return
	}
	since := ""
	if !n.Until.IsZero() && v.r.Until.After(n.Until) {
		since = span(v.r.Until.Sub(n.Until))
	}
	text := "awaited"
	if since != "" && !v.site() {
		text += " until the logs end"
	}
	row := "  " + pad("-", len(v.stampForm())) + "  " + pad(since, gapColumn) + "  " + pad(string(n.Next)+" ", stageColumn)
	fmt.Fprintf(v.w, "%s%s\n", row, v.sc.paint(red, text))
}

func (v *probeView) causes(n *logs.NodeReport) {
	list := n.Causes
	if !v.verbose && len(list) > causesShown {
		list = list[:causesShown]
	}
	if len(list) == 0 {
		return
	}
	key := strings.Join(list, "\n")
	if first := v.told[key]; first != "" && !v.verbose {
		for _, l := range wrap("likely: as for "+clean(first), v.width()-gap) {
			fmt.Fprintf(v.w, "  %s\n", l)
		}
		return
	}
	if v.told == nil {
		v.told = map[string]string{}
	}
	v.told[key] = n.Name
	fmt.Fprintf(v.w, "  likely, in this order:\n")
	writeCauses(v.w, list, v.width())
}

// mark writes a text with a sign in front, folded.
func (v *probeView) mark(sign, colour, text string) {
	lines := wrap(clean(text), v.width()-4)
	for i, l := range lines {
		if i > 0 {
			sign = " "
		}
		fmt.Fprintf(v.w, "  %s %s\n", v.sc.paint(colour, sign), l)
	}
}

// raw writes a log's line, cleaned, with a sign in front, folded and with all its blanks.
func (v *probeView) raw(sign, text string) {
	for _, l := range fold(text, v.width()-4) {
		fmt.Fprintf(v.w, "  %s %s\n", v.sc.paint(dim, sign), strings.TrimRight(l, " "))
		sign = " "
	}
}
