// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/collector/internal/client"
	"provost/proto"
)

// gapAfter is how long nothing may happen before the timeline says so.
const gapAfter = 5 * time.Minute

type timelineOptions struct{ install, output string }

func (o *timelineOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.install, "install", client.Latest, "`ID` or number of an older install")
	f.StringVarP(&o.output, "output", "o", "table", "`FORMAT`: table, json or yaml")
}

func timelineCommand(s *session) *cobra.Command {
	var o timelineOptions
	cmd := &cobra.Command{
		Use:   "timeline NODE",
		Short: "every event of a node's install, in order",
		Long: `Timeline shows every event of an install: the local time, the time since the
order, whose word it is, and what happened. "!" marks a warning, "X" a failure;
when nothing happened for 5 minutes, a line says so.`,
		Args: arguments(1, 1, "say which node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneNode(cmd, args[0]); err != nil {
				return err
			}
			if err := checkOutput(cmd, o.output, "table", "json", "yaml"); err != nil {
				return err
			}
			return runTimeline(cmd.Context(), s, cmd, o, args[0])
		},
		ValidArgsFunction: s.completeNodes,
	}
	o.addFlags(cmd.Flags())
	complete(cmd, "output", "table", "json", "yaml")
	help(cmd, `provost timeline n1
provost timeline n1 --install 3
provost timeline n1 -o json | jq '.events[] | select(.source=="boot")'`, exitUsual)
	return cmd
}

func runTimeline(ctx context.Context, s *session, cmd *cobra.Command, o timelineOptions, node string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	id, err := installID(ctx, cl, cmd, node, o.install)
	if err != nil {
		return err
	}
	list, err := cl.Events(ctx, node, id)
	if err != nil {
		return err
	}
	switch o.output {
	case "json":
		return writeJSON(s.Stdout, list)
	case "yaml":
		return writeYAMLOf(s.Stdout, list)
	}
	out := bufio.NewWriter(s.Stdout)
	writeTimeline(out, s.screen(s.Stdout), list, s.Now())
	if !ended(list.Install.Status) {
		if n, err := cl.Node(ctx, node); err == nil && n.Install == list.Install.ID {
			writeAwaited(out, s.screen(s.Stdout), n, s.Now())
		}
	}
	return flush(out)
}

// installID turns what an operator calls an install into its id: latest, a ULID, or its number.
func installID(ctx context.Context, cl *client.Client, cmd *cobra.Command, node, which string) (string, error) {
	if which == client.Latest || proto.ValidID(which) {
		return which, nil
	}
	ordinal, err := strconv.ParseUint(which, 10, 64)
	if err != nil || ordinal == 0 {
		return "", usage(cmd, "--install %q: use an install's number, its id, or latest", which)
	}
	list, err := cl.Installs(ctx, node)
	if err != nil {
		return "", err
	}
	var have []string
	for _, in := range list.Installs {
		if in.Ordinal == ordinal {
			return in.ID, nil
		}
		have = append(have, strconv.FormatUint(in.Ordinal, 10))
	}
	return "", &usageError{text: fmt.Sprintf("%s has no install %d", node, ordinal), hint: "it has: " + strings.Join(have, ", "), cmd: cmd}
}

func writeTimeline(w *bufio.Writer, sc screen, list *proto.EventList, now time.Time) {
	in := &list.Install
	var title []cell
	for _, text := range []string{in.Node, fmt.Sprintf("install %d", in.Ordinal), in.Summary, "profile " + in.Profile, "label " + in.Label} {
		if text != "label " {
			title = append(title, cell{clean(text), bold})
		}
	}
	writeParts(w, sc, sc.width, title)
	ordered := in.Ordered.In(now.Location()).Format("Mon 2006-01-02 15:04:05 MST")
	if in.Actor != "" {
		ordered += " by " + in.Actor
	}
	head := "ordered "
	for _, l := range wrap(clean(ordered), sc.width-len(head)) {
		fmt.Fprintf(w, "%s%s\n", head, l)
		head = pad("", len(head))
	}
	fmt.Fprintf(w, "id      %s\n\n", clean(in.ID))
	sources := 6
	for i := range list.Events {
		sources = max(sources, min(cells(clean(string(list.Events[i].Source))), 14))
	}
	at := 8 + gap + 7 + gap + sources + gap
	room := max(sc.width-at-2, 20)
	day, last := in.Ordered.In(now.Location()).Format(time.DateOnly), in.Ordered
	for i := range list.Events {
		e := &list.Events[i]
		t := when(e).In(now.Location())
		if between := t.Sub(last); between > gapAfter && !last.IsZero() {
			fmt.Fprintf(w, "%s%s\n", pad("", at+2), sc.paint(dim, "… "+span(between)+" without an event"))
		}
		if d := t.Format(time.DateOnly); d != day {
			fmt.Fprintf(w, "%s\n", sc.paint(dim, t.Format("Mon 2006-01-02")))
			day = d
		}
		if t.After(last) {
			last = t
		}
		text, weight := describe(e)
		sign, colour := weight.mark()
		lines := wrap(clean(text), room)
		fmt.Fprintf(w, "%s  %s  %s  %s %s\n", t.Format(time.TimeOnly), pad(offset(t.Sub(in.Ordered)), 7), pad(cut(clean(string(e.Source)), sources), sources),
			sc.paint(colour, sign), sc.paint(colour, lines[0]))
		for _, l := range lines[1:] {
			fmt.Fprintf(w, "%s%s\n", pad("", at+2), sc.paint(colour, l))
		}
	}
	if since := now.Sub(last); since > gapAfter && !ended(in.Status) {
		fmt.Fprintf(w, "%s%s\n", pad("", at+2), sc.paint(yellow, "… nothing since, "+span(since)))
	}
}

// writeAwaited says what should come next, and by when.
func writeAwaited(w *bufio.Writer, sc screen, n *proto.Node, now time.Time) {
	d := n.Deadline
	if d == nil {
		return
	}
	at := d.At.In(now.Location()).Format(time.TimeOnly)
	stage := d.Stage
	if unheard(n) {
		stage += ", or any later stage,"
	}
	text, colour := stage+" is awaited, until "+at+", in "+span(d.At.Sub(now)), dim
	switch {
	case n.Status == proto.StatusStalled:
		text, colour = d.Stage+" is overdue; unless it comes, the install is failed at "+at, yellow
	case !d.At.After(now):
		text, colour = stage+" is overdue since "+at, yellow
	}
	for _, l := range wrap(clean(text), sc.width) {
		fmt.Fprintf(w, "%s\n", sc.paint(colour, l))
	}
}

// when is the time of an event as the collector computed it; an event that it has not committed has only its own.
func when(e *proto.Event) time.Time {
	if e.At.IsZero() {
		return e.Time
	}
	return e.At
}

// offset writes a time since the order in at most seven characters.
func offset(d time.Duration) string {
	sign := "+"
	if d < 0 {
		sign, d = "-", -d
	}
	if d >= 10*time.Minute && d < time.Hour {
		return sign + strconv.Itoa(int(d/time.Minute)) + "m" + two(int(d/time.Second)%60) + "s"
	}
	return sign + span(d)
}

// ended reports whether nothing more is expected of an install with this status.
func ended(s proto.Status) bool { return s == proto.StatusBooted || s == proto.StatusFailed }
