// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"provost/collector/internal/client"
	"provost/proto"
)

// maxExplain is the number of nodes up to which each is explained: it takes a request and half a screen for each.
const maxExplain = 50

type explainOptions struct{ output string }

func explainCommand(s *session) *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain NODES",
		Short: "why a node is as it is, and what to type next",
		Long: `Explain says in words what happened to a node: the first cause, the last lines
of the step's log, what did not run because of it, what the machine does now,
the commands that are of use, and whose word all this is.`,
		Args: arguments(1, 1, "say which nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, "text", "json", "yaml"); err != nil {
				return err
			}
			return runExplain(cmd.Context(), s, cmd, o, args[0])
		},
		ValidArgsFunction: s.completeNodes,
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text, json or yaml")
	complete(cmd, "output", "text", "json", "yaml")
	help(cmd, "provost explain n007\nprovost explain '%failed'\nprovost explain '%stalled&@rack1'", `0   good: no selected node is failed or stalled
1   a selected node failed or stalled
64  usage: the command line, or a name in it, makes no sense
69  the collector cannot be reached
77  not allowed
78  configuration: --server, --ca or --token-file`)
	return cmd
}

func runExplain(ctx context.Context, s *session, cmd *cobra.Command, o explainOptions, expr string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	list, err := cl.Nodes(ctx, client.Query{Nodes: expr})
	if err != nil {
		return err
	}
	if len(list.Nodes) > maxExplain {
		return &usageError{text: fmt.Sprintf("%s is %s, and explain takes up to %d", expr, count(len(list.Nodes), "node"), maxExplain),
			hint: "`provost status --by cause` groups them; then explain one of each group", cmd: cmd}
	}
	now := s.Now()
	failed := false
	all := make([]explanation, 0, len(list.Nodes))
	for i := range list.Nodes {
		n := &list.Nodes[i]
		failed = failed || isBad(string(n.Status))
		var events *proto.EventList
		if n.Install != "" {
			if events, err = cl.Events(ctx, n.Name, n.Install); err != nil {
				var p *proto.Problem
				if !errors.As(err, &p) || p.Status != 404 {
					return err
				}
				events = nil // its history was trimmed: what the node itself says is still true
			}
		}
		all = append(all, explain(n, events, now))
	}
	doc := struct {
		Schema int           `json:"schema"`
		Nodes  []explanation `json:"nodes"`
	}{proto.Schema, all}
	switch o.output {
	case "json":
		err = writeJSON(s.Stdout, doc)
	case "yaml":
		err = writeYAMLOf(s.Stdout, doc)
	default:
		err = writeExplanations(s, all)
	}
	if err == nil && failed {
		err = &exitError{exitFailed}
	}
	return err
}

func writeExplanations(s *session, all []explanation) error {
	out, sc := bufio.NewWriter(s.Stdout), s.screen(s.Stdout)
	if len(all) == 0 {
		out.WriteString("no node selected\n")
	}
	for i := range all {
		if i > 0 {
			out.WriteByte('\n')
		}
		all[i].write(out, sc)
	}
	return flush(out)
}

// write writes the explanation as text, folded to the screen, 80 columns at most.
func (x *explanation) write(w *bufio.Writer, sc screen) {
	width := min(sc.width, defaultWidth)
	para := func(by int, text string) {
		for _, l := range indented(wrap(clean(text), width-by), by) {
			w.WriteString(l + "\n")
		}
	}
	w.WriteString(sc.paint(bold, clean(x.Node)) + ": " + sc.paint(statusColour(string(x.Status)), clean(x.Summary)) + "\n\n")
	para(2, strings.Join(x.What, " "))
	if len(x.Likely) > 0 {
		w.WriteString("\n  Likely, in this order:\n")
		writeCauses(w, x.Likely, width)
	}
	if len(x.Tail) > 0 {
		w.WriteString("\n")
		para(2, "The last lines of "+x.Log+":")
		for _, l := range x.Tail {
			w.WriteString("    | " + cut(clean(l), width-6) + "\n")
		}
	}
	for _, text := range []string{strings.Join(x.Because, " "), strings.Join(x.Now, " ")} {
		if text != "" {
			w.WriteString("\n")
			para(2, text)
		}
	}
	for _, text := range x.Warnings {
		w.WriteString("\n")
		lines := indented(wrap(clean(text), width-4), 2)
		for i, l := range lines {
			w.WriteString(sc.paint(yellow, []string{"! ", "  "}[min(i, 1)]+l[2:]) + "\n")
		}
	}
	if len(x.Next) > 0 {
		w.WriteString("\n  What to type next:\n")
		room := 0
		for _, a := range x.Next {
			room = max(room, cells(clean(a.Command)))
		}
		room = min(room, 36)
		for _, a := range x.Next {
			cmd, what := clean(a.Command), clean(a.What)
			if cells(cmd) > room || 4+room+gap+cells(what) > width {
				w.WriteString("    " + cmd + "\n")
				for _, l := range indented(wrap(what, width-8), 8) {
					w.WriteString(l + "\n")
				}
				continue
			}
			w.WriteString("    " + pad(cmd, room+gap) + what + "\n")
		}
	}
	if len(x.Evidence) > 0 {
		w.WriteString("\n  Evidence by source:\n")
		x.writeEvidence(w, width)
	}
}

func (x *explanation) writeEvidence(w *bufio.Writer, width int) {
	sources, events := 0, 0
	for _, e := range x.Evidence {
		sources = max(sources, min(cells(clean(e.Source)), 16))
		events = max(events, len(count(e.Events, "event")))
	}
	for _, e := range x.Evidence {
		head := "    " + pad(cut(clean(e.Source), sources), sources+gap) + pad(count(e.Events, "event"), events+gap)
		w.WriteString(head + cut(e.Last.Format("15:04:05")+" "+clean(e.Text), width-cells(head)) + "\n")
	}
}

// writeCauses writes a numbered list, folded.
func writeCauses(w *bufio.Writer, causes []string, width int) {
	for i, c := range causes {
		lines := wrap(clean(c), width-7)
		fmt.Fprintf(w, "    %d. %s\n", i+1, lines[0])
		for _, l := range lines[1:] {
			fmt.Fprintf(w, "       %s\n", l)
		}
	}
}
