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

	"provost/proto"
)

type historyOptions struct {
	since, output string
	plan          bool
}

func (o *historyOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.since, "since", "", "only what came after: `AGO` like 7d or 12h, or a date")
	f.BoolVar(&o.plan, "plan", false, "with the steps of each plan, and the SHA-256 of their scripts")
	f.StringVarP(&o.output, "output", "o", "table", "`FORMAT`: table, json or yaml")
}

func historyCommand(s *session) *cobra.Command {
	var o historyOptions
	cmd := &cobra.Command{
		Use:   "history NODE",
		Short: "who ordered what of a node, and why",
		Long: `History shows every order that touched a node, the newest first: when, by whom,
what, and why. Behind the collector's socket "by whom" is the user, and who
logged in if that was another one; elsewhere it is the token's name. The last
1,000 orders of a node are kept, longer than its installs and their events. Of a
node that was removed there is who did it, and why.`,
		Args: arguments(1, 1, "say which node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneNode(cmd, args[0]); err != nil {
				return err
			}
			if err := checkOutput(cmd, o.output, "table", "json", "yaml"); err != nil {
				return err
			}
			since, err := pastTime(o.since, s.Now())
			if err != nil {
				return usage(cmd, "--since %v", err)
			}
			return runHistory(cmd.Context(), s, o, args[0], since)
		},
		ValidArgsFunction: s.completeNodes,
	}
	o.addFlags(cmd.Flags())
	complete(cmd, "output", "table", "json", "yaml")
	help(cmd, `provost history n1
provost history n1 --since 7d
provost history n1 --plan -o json | jq '.entries[0].steps'`, exitUsual)
	return cmd
}

// pastTime reads how long ago something was (7d, 12h, 90m), or a local date with or without its time. Empty is zero.
func pastTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= 36500 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: write how long ago, like 7d or 12h, or a date like %s", text, now.Format(time.DateOnly))
}

func runHistory(ctx context.Context, s *session, o historyOptions, node string, since time.Time) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	h, err := cl.History(ctx, node, since, o.plan)
	if err != nil {
		return err
	}
	switch o.output {
	case "json":
		return writeJSON(s.Stdout, h)
	case "yaml":
		return writeYAMLOf(s.Stdout, h)
	}
	out := bufio.NewWriter(s.Stdout)
	if len(h.Entries) == 0 {
		fmt.Fprintf(out, "no order of %s\n", clean(node))
	}
	for i := range h.Entries {
		writeHistoryEntry(out, s.screen(s.Stdout), &h.Entries[i], s.Now())
	}
	return flush(out)
}

// writeHistoryEntry writes an order: when, what and by whom in one line, then why, then the rest.
func writeHistoryEntry(w *bufio.Writer, sc screen, e *proto.HistoryEntry, now time.Time) {
	const at = 18
	width := min(sc.width, defaultWidth)
	what := e.Order
	if e.Step != "" {
		what += " of step " + e.Step
	}
	if e.Order == "boot" {
		what += " " + e.Detail
	}
	if e.Actor != "" {
		what += " by " + e.Actor
	}
	head := e.At.In(now.Location()).Format("2006-01-02 15:04")
	for _, l := range wrap(clean(what), width-at) {
		w.WriteString(pad(head, at) + sc.paint(bold, l) + "\n")
		head = ""
	}
	line := func(text string) {
		if text == "" {
			return
		}
		for _, l := range wrap(clean(text), width-at) {
			w.WriteString(pad("", at) + l + "\n")
		}
	}
	if e.Reason != "" {
		line("reason: " + e.Reason)
	}
	if e.Order != "boot" {
		line(e.Detail)
	}
	if e.Install != "" {
		text := fmt.Sprintf("install %d, %s", e.Ordinal, e.Install)
		if e.Profile != "" {
			text += ", profile " + e.Profile
		}
		if e.Label != "" {
			text += ", label " + e.Label
		}
		line(text)
	}
	if e.Steps == nil {
		return
	}
	versions := ""
	for _, v := range []struct{ what, is string }{{"provostd ", e.Collector}, {"given by ", e.Client}} {
		if v.is != "" {
			versions += "; " + v.what + v.is
		}
	}
	line(fmt.Sprintf("plan %d%s", e.Plan, versions))
	names := 0
	for _, st := range e.Steps {
		names = max(names, min(cells(clean(st.Name)), 24))
	}
	for _, st := range e.Steps { // a digest is never cut: it is there to be compared
		fmt.Fprintf(w, "  %s  %s  %s\n", pad(string(st.Phase), 9), pad(cut(clean(st.Name), names), names), clean(st.Digest))
	}
}
