// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"provost/collector/internal/nodeset"
	"provost/proto"
)

const (
	// silentAfter is how long an agent may say nothing before it is counted as silent: ten heartbeats.
	silentAfter = 5 * time.Minute
	// manyFailures is the number up to which each failure has its own log command; beyond, they are grouped by cause.
	manyFailures = 10
)

// statusNode is what the status needs of a proto.Node. Decoding no more than that takes half the time.
type statusNode struct {
	Name       string           `json:"name"`
	Status     proto.Status     `json:"status"`
	Waiting    bool             `json:"waiting"`
	Summary    string           `json:"summary"`
	Stage      string           `json:"stage"`
	Step       string           `json:"step"`
	Install    string           `json:"install"`
	Attempt    int              `json:"attempt"`
	Label      string           `json:"label"`
	Since      time.Time        `json:"since"`
	LastSeen   time.Time        `json:"last_seen"`
	Deadline   proto.Deadline   `json:"deadline"`
	Orders     []proto.Pending  `json:"orders"`
	Warnings   []string         `json:"warnings"`
	BootAction proto.BootAction `json:"boot_action"`
	Contested  bool             `json:"contested"`
	Profile    string           `json:"profile"`
	Cause      struct {
		Log string `json:"log"`
	} `json:"cause"`
}

// statusRow is what the table needs of a node: some 300 bytes, so that 100,000 of them fit.
type statusRow struct {
	name, status, summary, stage, step, log string
	label, profile, boot, install           string
	since, seen                             time.Time
	next                                    proto.Deadline
	order                                   string // the last one that is not carried out yet
	ordered                                 time.Time
	waiting, contested                      bool
	attempt, warnings                       int
}

// statusView is a list of nodes as people read it.
type statusView struct {
	now      time.Time
	warnings []string // of the frontend
	rows     []*statusRow
	room     []statusRow // what rows point into, piece by piece: 40 MB are never moved
	counts   map[proto.Status]int
	total    int
	silent   int
	resuming int // failed, and ordered to go on
	// everything: all nodes were asked for, so that none means that there is none.
	everything bool
	words      map[string]string // one copy of each text that many nodes share
}

func newStatusView(now time.Time) *statusView {
	return &statusView{now: now, counts: map[proto.Status]int{}, words: map[string]string{}}
}

// count adds a node to the header alone.
func (v *statusView) count(n *statusNode) {
	v.total++
	v.counts[n.Status]++
	if v.quiet(n) {
		v.silent++
	}
	if n.Status == proto.StatusFailed && n.Waiting && proto.Resumes(n.Orders) {
		v.resuming++
	}
}

// pendingMatters reports whether an order that is not carried out yet says anything: to an agent whose install has ended
// it will never get through.
func pendingMatters(st proto.Status, waiting bool) bool {
	return waiting || st != proto.StatusFailed && st != proto.StatusBooted
}

// quiet reports whether the node's agent should have spoken. Before its first word, while the machine reboots, and
// after the end it need not.
func (v *statusView) quiet(n *statusNode) bool {
	switch n.Status {
	case proto.StatusInstalling, proto.StatusPostinstall, proto.StatusFirstboot, proto.StatusHeld:
	default:
		if !n.Waiting {
			return false
		}
	}
	return !n.LastSeen.IsZero() && v.now.Sub(n.LastSeen) > silentAfter
}

const rowsAtOnce = 256

// add keeps a node's row.
func (v *statusView) add(n *statusNode) {
	v.count(n)
	r := statusRow{name: clean(n.Name), status: v.word(string(n.Status)), summary: v.word(n.Summary), stage: v.word(n.Stage), step: v.word(n.Step),
		label: v.word(n.Label), profile: v.word(n.Profile), boot: v.word(string(n.BootAction)), log: v.word(n.Cause.Log), install: n.Install,
		since: n.Since, seen: n.LastSeen, next: proto.Deadline{Stage: v.word(n.Deadline.Stage), Since: n.Deadline.Since, At: n.Deadline.At, Usual: n.Deadline.Usual},
		waiting: n.Waiting, contested: n.Contested, attempt: n.Attempt, warnings: len(n.Warnings)}
	if r.summary == "" {
		r.summary = r.status
	}
	if k := len(n.Orders); k > 0 && pendingMatters(n.Status, n.Waiting) {
		r.order, r.ordered = v.word(string(n.Orders[k-1].Verb)), n.Orders[k-1].Since
	}
	if len(v.room) == cap(v.room) {
		v.room = make([]statusRow, 0, rowsAtOnce)
	}
	v.room = append(v.room, r)
	v.rows = append(v.rows, &v.room[len(v.room)-1])
}

func (v *statusView) word(s string) string {
	w, ok := v.words[s]
	if !ok {
		w = clean(s)
		v.words[strings.Clone(s)] = w
	}
	return w
}

// order is the place of a status in the table: what needs somebody first, what is on its way, what is done.
var order = []proto.Status{proto.StatusFailed, proto.StatusStalled, proto.StatusHeld, proto.StatusDiscovered, proto.StatusOrdered, proto.StatusPXEBooting,
	proto.StatusInstalling, proto.StatusPostinstall, proto.StatusRebooting, proto.StatusFirstboot, proto.StatusBooted, proto.StatusDefined}

func rank(s string) int {
	if i := slices.Index(order, proto.Status(s)); i >= 0 {
		return i
	}
	return 0 // a status that this program does not know needs somebody
}

// finish puts the rows in order, those of the same rank in the collector's, which is by name.
func (v *statusView) finish(warnings, blind []string) {
	v.warnings = warnings
	if len(blind) > 0 {
		v.warnings = append([]string{"blind: " + strings.Join(blind, ", ") + " cannot be read; `provost doctor` says how to mend it"}, warnings...)
	}
	ranks := map[string]int{}
	for _, r := range v.rows {
		if _, ok := ranks[r.status]; !ok {
			ranks[r.status] = rank(r.status)
		}
	}
	slices.SortStableFunc(v.rows, func(a, b *statusRow) int {
		return cmp.Compare(ranks[a.status], ranks[b.status])
	})
}

func (v *statusView) bad() int { return v.counts[proto.StatusFailed] + v.counts[proto.StatusStalled] }

// headline is the counts: what is good, what is bad, then what is on its way.
func (v *statusView) headline() []cell {
	if v.total == 0 && v.everything {
		return []cell{{text: "there is no node yet; provost node add NAME --mac MAC adds one"}}
	}
	if v.total == 0 {
		return []cell{{text: "no node selected"}}
	}
	var parts []cell
	part := func(st proto.Status, colour string, always bool) {
		n := v.counts[st]
		if n == 0 {
			colour = ""
		}
		if n > 0 || always {
			parts = append(parts, cell{fmt.Sprintf("%d %s", n, clean(string(st))), colour})
		}
	}
	part(proto.StatusBooted, green, true)
	part(proto.StatusFailed, red, true)
	if v.resuming > 0 {
		parts = append(parts, cell{text: fmt.Sprintf("%d of them ordered to go on", v.resuming)})
	}
	part(proto.StatusStalled, yellow, false)
	part(proto.StatusHeld, purple, false)
	for _, st := range slices.Backward(order[3:10]) {
		part(st, "", false)
	}
	part(proto.StatusDefined, "", false)
	for _, st := range unknownStatuses(v.counts) {
		part(st, yellow, false)
	}
	silent := cell{text: fmt.Sprintf("%d silent over 5 min", v.silent)}
	if v.silent > 0 {
		silent.colour = yellow
	}
	return append(parts, silent)
}

func unknownStatuses(counts map[proto.Status]int) []proto.Status {
	var out []proto.Status
	for st := range counts {
		if !slices.Contains(order, st) {
			out = append(out, st)
		}
	}
	slices.Sort(out)
	return out
}

// write draws header, failures and rows. When a terminal cannot show all of it at once, the header and the failures
// come once more at the end, where they stay in sight.
func (v *statusView) write(w *bufio.Writer, sc screen, o statusOptions) {
	top := v.top(sc, o)
	w.WriteString(top)
	if v.total == 0 {
		return
	}
	if o.by == "cause" {
		return
	}
	w.WriteByte('\n')
	v.table(w, sc, o)
	if sc.terminal && strings.Count(top, "\n")+len(v.rows)+2 > sc.height {
		w.WriteByte('\n')
		w.WriteString(top)
	}
}

// top is everything above the rows.
func (v *statusView) top(sc screen, o statusOptions) string {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	v.head(w, sc)
	if v.total > 0 {
		switch {
		case o.by == "cause":
			w.WriteByte('\n')
			v.groups(w, sc, v.rows, o.output == "wide")
		case v.bad() > manyFailures:
			w.WriteByte('\n')
			v.groups(w, sc, v.rows[:v.badRows()], o.output == "wide")
		}
	}
	w.Flush()
	return b.String()
}

// badRows is the number of rows, from the first, that are failed or stalled.
func (v *statusView) badRows() int {
	i := slices.IndexFunc(v.rows, func(r *statusRow) bool { return !isBad(r.status) })
	if i < 0 {
		return len(v.rows)
	}
	return i
}

func isBad(status string) bool {
	return status == string(proto.StatusFailed) || status == string(proto.StatusStalled)
}

// head writes the counts and the frontend's own warnings.
func (v *statusView) head(w *bufio.Writer, sc screen) {
	room := min(sc.width, defaultWidth)
	writeParts(w, sc, room, v.headline())
	for _, warning := range v.warnings {
		mark := "! "
		for _, l := range wrap(clean(warning), room-2) {
			w.WriteString(sc.paint(yellow, mark+l) + "\n")
			mark = "  "
		}
	}
}

// groups writes one line per summary, the most frequent first among equals in rank, with its nodes as a node set, and
// for the bad ones the command that shows the log of the first.
func (v *statusView) groups(w *bufio.Writer, sc screen, rows []*statusRow, whole bool) {
	type group struct {
		first *statusRow
		names []string
	}
	by := map[string]*group{}
	var all []*group
	for _, r := range rows {
		g := by[r.summary]
		if g == nil {
			g = &group{first: r}
			by[r.summary] = g
			all = append(all, g)
		}
		g.names = append(g.names, r.name)
	}
	slices.SortStableFunc(all, func(a, b *group) int {
		return cmp.Or(cmp.Compare(rank(a.first.status), rank(b.first.status)), cmp.Compare(len(b.names), len(a.names)))
	})
	causes, digits := 0, 0
	for _, g := range all {
		causes = max(causes, cells(g.first.summary))
		digits = max(digits, len(strconv.Itoa(len(g.names))))
	}
	causes = min(causes, 40)
	for _, g := range all {
		n := strconv.Itoa(len(g.names))
		w.WriteString(sc.paint(statusColour(g.first.status), cut(g.first.summary, causes)))
		w.WriteString(pad("", causes-cells(cut(g.first.summary, causes))+gap+digits-len(n)) + n + "  ")
		at := causes + digits + 2*gap
		set := []string{nodeset.Fold(g.names)}
		if !whole {
			set = wrapList(set[0], max(min(sc.width, defaultWidth)-at, 24))
		}
		w.WriteString(set[0] + "\n")
		for _, l := range set[1:] {
			w.WriteString(pad("", at) + l + "\n")
		}
		if isBad(g.first.status) {
			w.WriteString("    " + g.first.evidence() + "\n")
		}
	}
}

// evidence is the command that shows why a node is failed or stalled.
func (r *statusRow) evidence() string {
	switch {
	case r.status == string(proto.StatusFailed) && r.step != "":
		return "provost log " + r.name + " " + r.step
	case r.status == string(proto.StatusFailed) && r.log != "":
		return "provost log " + r.name + " " + r.log
	}
	return "provost explain " + r.name
}

func statusColour(status string) string {
	switch proto.Status(status) {
	case proto.StatusFailed:
		return red
	case proto.StatusStalled:
		return yellow
	case proto.StatusHeld:
		return purple
	case proto.StatusBooted:
		return green
	}
	return ""
}

// table writes one row per node. The plain one is at most 80 columns wide.
func (v *statusView) table(w *bufio.Writer, sc screen, o statusOptions) {
	cols := []column{{title: "NODE"}, {title: "STATUS", min: 24}, {title: "STAGE", min: 12, drop: 2}, {title: "SINCE", min: 6, drop: 1}, {title: "NEXT", min: nextWidth}}
	width := min(sc.width, defaultWidth)
	if o.output == "wide" {
		cols = append(cols, column{title: "SEEN"}, column{title: "BOOT"}, column{title: "PROFILE"}, column{title: "LABEL"}, column{title: "TRY"}, column{title: "INSTALL"})
		width = 0
	}
	few := v.bad() <= manyFailures
	writeTable(w, sc, width, cols, len(v.rows), func(i int, cs []cell) []string {
		r := v.rows[i]
		cs[0] = cell{text: r.name}
		cs[1] = cell{r.summary, statusColour(r.status)}
		cs[2] = cell{text: r.stage}
		cs[3] = cell{text: v.since(r.since)}
		cs[4] = v.next(r)
		if o.output == "wide" {
			cs[5], cs[6], cs[7], cs[8] = cell{text: v.since(r.seen)}, cell{text: r.boot}, cell{text: r.profile}, cell{text: r.label}
			cs[9], cs[10] = cell{}, cell{}
			if r.install != "" {
				cs[9], cs[10] = cell{text: strconv.Itoa(r.attempt)}, cell{text: clean(r.install)}
			}
		}
		if few && isBad(r.status) && o.output == "table" {
			return []string{"    " + r.evidence()}
		}
		return nil
	})
}

func (v *statusView) since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(v.now.Sub(t))
}

// next is what comes next for a node: its deadline, or that it needs somebody.
func (v *statusView) next(r *statusRow) cell {
	switch {
	case r.contested:
		return cell{"contested", red}
	case r.order != "" && r.ordered.IsZero():
		return cell{text: r.order + " ordered"}
	case r.order != "":
		return cell{text: r.order + " ordered " + ago(r.ordered, v.now)}
	case r.waiting:
		return cell{"waits for an order", bold}
	case r.next.Stage != "":
		c := cell{text: due(&r.next, v.now)}
		if r.next.At.Before(v.now) {
			c.colour = yellow
		} else if slow(&r.next, v.now) {
			short, _, _ := strings.Cut(c.text, " of ") // one row has 80 columns
			short, _, _ = strings.Cut(short, "/")
			c.text, c.colour = short+" slow", yellow
		}
		return c
	case r.status == string(proto.StatusFailed):
		return cell{text: "ended"}
	case r.warnings > 0:
		return cell{count(r.warnings, "warning"), yellow}
	}
	return cell{}
}
