// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	logs "provost/collector/internal/evidence"
	"provost/collector/internal/nodeset"
	"provost/proto"
)

type probeOptions struct {
	logs         []string
	verbose      bool
	output       string
	layout       string
	timeout      time.Duration
	back         string
	since, until string
	from, to     time.Time // of since, until and back
	dhcp         dhcpOptions
}

// defaultProbe bounds a probe that watches: an install takes less, and somebody is waiting for it.
const defaultProbe = time.Hour

func (o *probeOptions) addFlags(f *pflag.FlagSet) {
	f.StringArrayVar(&o.logs, "logs", nil, "a log `FILE`, plain, gz, zst or xz; - is standard input; repeatable")
	f.BoolVar(&o.dhcp.ask, "dhcp", false, "ask the network of --interface for its DHCP servers, and take no lease")
	f.StringVarP(&o.dhcp.inter, "interface", "i", "", "`IF` for --dhcp")
	f.StringVar(&o.dhcp.mac, "mac", "", "the `MAC` to ask with; the interface's own without it")
	f.StringSliceVar(&o.dhcp.ours, "ours", nil, "`ADDRESS` of a DHCP server that is ours, beside this machine; repeatable")
	f.BoolVarP(&o.verbose, "verbose", "V", false, "every node in full, with all likely causes")
	f.DurationVarP(&o.timeout, "time", "t", defaultProbe, "watch for at most this `TIME`")
	f.StringVarP(&o.back, "replay", "r", "", "show what happened since so long `AGO`, like 2h or 3d")
	f.StringVar(&o.since, "since", "", "the same from a `TIME` on: how long ago, or a date with or without a time")
	f.StringVar(&o.until, "until", "", "and up to a `TIME`")
	f.StringVarP(&o.layout, "print", "p", "", "`LAYOUT`: compact, phase or origin")
	f.StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text, json or yaml")
}

func probeCommand(s *session) *cobra.Command {
	var o probeOptions
	cmd := &cobra.Command{
		Use:   "probe [NODES]",
		Short: "the whole way of each node, live or replayed",
		Long: `Probe looks whether the frontend is fit for installs, watches the installs of
NODES (of all nodes under way, without it) until they have ended, the time (-t)
is up or you press Ctrl-C, and then shows the whole way of each: every stage
with its time, where it stopped, and what that is likely to come from, in order.
With -r, --since and --until it shows what happened before, as it is recorded.

With --logs it needs no collector, no inventory and no agent, and is the first
command to try on an existing site: it reads the logs of ISC dhcpd, Kea,
dnsmasq, tftpd-hpa, atftpd, Apache and nginx, in syslog files of any form, in
files of their own, as journalctl -o json writes them, rotated and compressed.
There NODES are names, MAC or IP addresses, and an argument that is a file or
has a slash in it is one more log, so that --logs /var/log/messages* does what
it says.

With --dhcp -i IF it sends one DHCPDISCOVER, as a network card's firmware does,
and lists every server that answers within 5 s with what it offers: address,
next-server, boot file. It takes no lease. Servers that are neither this machine
nor named by --ours are marked; one on this machine itself does not hear it.

-p compact is a line for each node, -p phase the stages of each, -p origin the
same by who told of them; without it failures are shown in full. -V adds every
line of evidence.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, "text", "json", "yaml"); err != nil {
				return err
			}
			if err := checkLayout(cmd, o.layout); err != nil {
				return err
			}
			if err := o.window(cmd, s.Now()); err != nil {
				return err
			}
			if o.dhcp.ask {
				if len(args) > 0 || len(o.logs) > 0 {
					return usage(cmd, "--dhcp asks a network: it takes no nodes and no logs")
				}
				return probeDHCP(cmd.Context(), s, cmd, o)
			}
			return runProbe(cmd.Context(), s, cmd, o, args)
		},
	}
	o.addFlags(cmd.Flags())
	complete(cmd, "output", "text", "json", "yaml")
	complete(cmd, "print", "compact", "phase", "origin")
	help(cmd, `provost probe -t 30m @rack1
provost probe -r 2h -p phase n07
sudo provost probe --dhcp -i eth1 --ours 10.0.0.2
provost probe --logs /var/log/messages --logs /var/log/httpd/access_log
provost probe --logs /var/log/syslog* /var/log/nginx/access.log n[01-20]
journalctl -o json --since today | provost probe --logs - 52:54:00:12:34:56`, `0   every node has booted; by logs: it got its kernel and initrd
1   a node failed or stalled; by logs: it stopped, a selected one is in no
    line, or a log could not be read; --dhcp: a server is not ours, or silent
2   not finished in time
64  usage: the command line, or a name in it, makes no sense
69  the collector cannot be reached
77  not allowed
78  configuration: --server, --ca or --token-file`)
	return cmd
}

func runProbe(ctx context.Context, s *session, cmd *cobra.Command, o probeOptions, args []string) error {
	var nodes, rest []string
	for _, a := range args {
		if fi, err := os.Stat(a); strings.Contains(a, "/") || err == nil && fi.Mode().IsRegular() {
			o.logs = append(o.logs, a)
			continue
		}
		rest = append(rest, a)
	}
	if len(o.logs) == 0 {
		return probeSite(ctx, s, cmd, o, strings.Join(rest, ","))
	}
	if cmd.Flags().Changed("time") {
		return &usageError{text: "--logs reads what is written already, and -t watches", hint: "leave one of them out", cmd: cmd}
	}
	for _, a := range rest {
		names, err := probeNodes(a)
		if err != nil {
			return &usageError{text: err.Error(), hint: "without a collector, nodes are names, MAC or IP addresses", cmd: cmd}
		}
		nodes = append(nodes, names...)
	}
	now := s.Now()
	r, err := logs.Probe(ctx, o.logs, logs.ProbeOptions{Stdin: s.Stdin, Now: now, Location: now.Location(), Nodes: nodes, Since: o.from, Until: o.to})
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &hintError{err, "the logs are for root: run it with sudo"}
	case errors.Is(err, fs.ErrNotExist):
		return &hintError{err, "`ls /var/log` shows what there is; a frontend without syslog files has journald:\njournalctl -o json --since today | provost probe --logs -"}
	case err != nil:
		return err
	}
	if err := o.show(s, r); err != nil {
		return err
	}
	if r.Stopped() > 0 || len(r.NotSeen) > 0 || len(r.Nodes) == 0 || slices.ContainsFunc(r.Files, func(f logs.FileReport) bool { return f.Error != "" }) {
		return &exitError{exitFailed}
	}
	return nil
}

// show writes a report.
func (o *probeOptions) show(s *session, r *logs.Report) error {
	switch o.output {
	case "json":
		return writeJSON(s.Stdout, r)
	case "yaml":
		return writeYAMLOf(s.Stdout, r)
	}
	w := bufio.NewWriter(s.Stdout)
	v := &probeView{w: w, sc: s.screen(s.Stdout), r: r, loc: s.Now().Location(), verbose: o.verbose, layout: o.layout}
	v.write()
	return flush(w)
}

// probeNodes reads one argument: an address, or a node set of names.
func probeNodes(arg string) ([]string, error) {
	if m, err := proto.NormalMAC(arg); err == nil {
		return []string{m}, nil
	}
	if a, err := netip.ParseAddr(arg); err == nil {
		return []string{a.String()}, nil
	}
	return nodeset.Eval(arg, noInventory{})
}

// noInventory is what node sets can refer to where there is no collector.
type noInventory struct{}

func (noInventory) Group(string) ([]string, bool)  { return nil, false }
func (noInventory) All() []string                  { return nil }
func (noInventory) Status(string) ([]string, bool) { return nil, false }

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
	layout  string // compact, phase, origin, or empty: failures in full
	days    bool   // the report spans more than one day
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
		for _, n := range brief {
			v.row(n)
		}
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
		from, until := r.From.In(v.loc), r.Until.In(v.loc)
		line += ", " + from.Format("Mon 2006-01-02 15:04:05") + " to "
		if v.days {
			line += until.Format("Mon 2006-01-02 15:04:05 MST")
		} else {
			line += until.Format("15:04:05 MST")
		}
	}
	fmt.Fprintf(v.w, "%s\n", v.sc.paint(bold, line))
	fmt.Fprintf(v.w, "%s\n", v.counts())
}

// counts says how many nodes are in which state.
func (v *probeView) counts() string {
	n := map[logs.State]int{}
	for i := range v.r.Nodes {
		n[v.r.Nodes[i].State]++
	}
	parts, arrived := []string{count(len(v.r.Nodes), "node")}, "arrived"
	if v.site() {
		parts, arrived = []string{count(len(v.r.Nodes), "install")}, "booted"
	}
	for _, st := range []struct {
		state  logs.State
		text   string
		colour string
	}{{logs.Stopped, "stopped", red}, {logs.Moving, "on their way", ""}, {logs.Arrived, arrived, green}, {logs.Leased, "only leased", ""}} {
		if k := n[st.state]; k > 0 {
			parts = append(parts, v.sc.paint(st.colour, strconv.Itoa(k)+" "+st.text))
		}
	}
	if v.r.Omitted > 0 {
		parts = append(parts, v.sc.paint(yellow, strconv.Itoa(v.r.Omitted)+" lines of more nodes left out"))
	}
	return strings.Join(parts, " · ")
}

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

// identity is the name with what else the node is known by.
func identity(n *logs.NodeReport) string {
	s := clean(n.Name)
	if n.MAC != "" && n.MAC != n.Name {
		s += "  " + clean(n.MAC)
	}
	for _, ip := range n.IPs {
		if ip != n.Name {
			s += "  " + clean(ip)
		}
	}
	return s
}

// line writes left and right at the two ends of a row.
func (v *probeView) line(left, right, colour string) {
	room := v.width() - cells(right) - gap
	if room < 12 {
		room = 12
	}
	fmt.Fprintf(v.w, "%s%s%s\n", v.sc.paint(bold, pad(cut(left, room), room)), strings.Repeat(" ", gap), v.sc.paint(colour, right))
}

// node writes one node in full.
func (v *probeView) node(n *logs.NodeReport) {
	text, colour := v.state(n)
	fmt.Fprintln(v.w)
	v.line(identity(n), text, colour)
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
		lines := wrap(clean(sentence(n.Why)), v.width()-2)
		for _, l := range lines {
			fmt.Fprintf(v.w, "  %s\n", v.sc.paint(red, l))
		}
		v.causes(n)
	}
	for _, w := range n.Warnings {
		v.mark("!", yellow, w)
	}
	if v.verbose {
		for _, l := range n.Lines {
			v.mark("|", dim, l)
		}
	}
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
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
	rest := ""
	if st.File != "" {
		rest = pathEnd(clean(st.File), 24)
	}
	if st.Bytes > 0 {
		rest += ", " + size(st.Bytes)
	}
	if st.Count > 1 {
		rest = strings.TrimSpace(rest + "  ×" + strconv.Itoa(st.Count))
	}
	row := "  " + v.stamp(st.At) + "  " + pad(since, gapColumn) + "  " + pad(string(st.Name), stageColumn) + pad(clean(st.Program), programColumn+1) + rest
	fmt.Fprintf(v.w, "%s\n", strings.TrimRight(cut(row, v.width()), " "))
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
	head := "  " + v.stamp(p.First) + "  " + pad("", gapColumn) + "  " + pad(string(p.Kind), stageColumn) + pad(clean(p.Program), programColumn+1)
	lines := wrap(text, max(v.width()-cells(head), 20))
	fmt.Fprintf(v.w, "%s\n", v.sc.paint(colour, strings.TrimRight(head+lines[0], " ")))
	for _, l := range lines[1:] {
		fmt.Fprintf(v.w, "%s%s\n", pad("", cells(head)), v.sc.paint(colour, l))
	}
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
		text += ", nothing more until the logs end"
	}
	row := "  " + pad("-", len(v.stampForm())) + "  " + pad(since, gapColumn) + "  " + pad(string(n.Next), stageColumn)
	fmt.Fprintf(v.w, "%s%s\n", row, v.sc.paint(red, text))
}

func (v *probeView) causes(n *logs.NodeReport) {
	list := n.Causes
	if !v.verbose && len(list) > causesShown {
		list = list[:causesShown]
	}
	if len(list) > 0 {
		fmt.Fprintf(v.w, "  likely, in this order:\n")
		writeCauses(v.w, list, v.width())
	}
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

// row writes a node in one line.
func (v *probeView) row(n *logs.NodeReport) {
	text, colour := v.state(n)
	if len(n.Warnings) > 0 || slices.ContainsFunc(n.Problems, func(p logs.Problem) bool { return !p.Mended }) {
		text += " !"
	}
	took := ""
	if d := n.Until.Sub(n.From); !n.From.IsZero() && d > 0 {
		took = span(d)
	}
	left := cut(identity(n), 42)
	fmt.Fprintf(v.w, "%s  %s %s  %s\n", pad(left, 42), pad(v.stamp(n.From), 8), pad(took, 5), v.sc.paint(colour, text))
}

func (v *probeView) frontend() {
	if len(v.r.Frontend) == 0 && len(v.r.Missing) == 0 && len(v.r.NotSeen) == 0 {
		return
	}
	fmt.Fprintf(v.w, "\n%s\n", v.sc.paint(bold, "frontend"))
	what := map[string]string{"dhcp": "DHCP server's log", "tftp": "TFTP server's log", "web": "web server's log"}
	for _, m := range v.r.Missing {
		v.mark("-", dim, "no "+what[m]+" among these: what only it sees is not known")
	}
	if len(v.r.NotSeen) > 0 {
		v.mark("!", yellow, "in no line: "+strings.Join(v.r.NotSeen, ", "))
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
	const name, number = 35, 9
	heads := []string{"lines", "known", "ignored", "unknown", "broken"}
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
	fmt.Fprintf(v.w, "\n%s\n", v.counts())
	for _, g := range groups {
		v.mark("X", red, strconv.Itoa(len(g.names))+"  "+g.why+": "+foldNames(g.names))
	}
	if len(v.r.Nodes) == 0 && v.site() {
		v.mark("!", yellow, "no install of these nodes is under way, or was in that time")
	} else if len(v.r.Nodes) == 0 {
		v.mark("!", yellow, "no line in these logs is about a node that boots: are they those of the DHCP, TFTP or web server?")
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
		return strings.Join(names[:namesShown], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}
