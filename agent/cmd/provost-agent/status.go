// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"provost/agent/internal/host"
	"provost/agent/internal/journal"
	"provost/agent/internal/report"
	steps "provost/agent/internal/run"
	"provost/proto"
)

func statusCommand() command {
	return command{
		name: "status", args: "[-o json]", summary: "show how far this machine is",
		help: `
It reads the state directory only: it works without the network, and while
everything else hangs.

Examples:
  provost-agent status
  provost-agent status -o json

Exit status: 0, or 1 there is nothing to show, 64 wrong usage.`,
		setup: func(f *flag.FlagSet, s *streams) func(context.Context, []string) error {
			var c common
			c.stateFlag(f)
			format := f.String("o", "text", "`FORMAT`: text or json")
			return func(_ context.Context, args []string) error {
				if len(args) > 0 {
					return usage("status: unexpected argument %q", args[0])
				}
				if *format != "text" && *format != "json" {
					return usage("status: -o %q: use text or json", *format)
				}
				var st *localStatus
				if err := c.onState(askWait, func() (err error) { st, err = readStatus(c.dir()); return err }); err != nil {
					return err
				}
				if *format == "json" {
					e := json.NewEncoder(s.out)
					e.SetIndent("", "  ")
					return e.Encode(st)
				}
				return st.write(s.out)
			}
		},
	}
}

// localStatus is what this machine knows of itself: one JSON document.
type localStatus struct {
	Schema    int              `json:"schema"`
	Node      string           `json:"node,omitempty"`
	Install   string           `json:"install,omitempty"`
	Attempt   int              `json:"attempt,omitempty"`
	Phase     proto.Phase      `json:"phase,omitempty"` // of the run that goes on
	Step      string           `json:"step,omitempty"`
	Waiting   bool             `json:"waiting"`
	Summary   string           `json:"summary"` // of the last run
	Message   string           `json:"message,omitempty"`
	Steps     []proto.StepInfo `json:"steps"`
	Records   uint64           `json:"records"`
	Delivered uint64           `json:"delivered"`
	Reporting bool             `json:"reporting"` // some process tries to deliver
	Trouble   string           `json:"trouble,omitempty"`
}

func readStatus(dir report.Dir) (*localStatus, error) {
	id, err := dir.Identity()
	if err != nil {
		return nil, fmt.Errorf("no agent has run with state directory %s: %w", dir, err)
	}
	sent := dir.Sent()
	st := &localStatus{
		Schema: proto.Schema, Node: id.Node, Install: id.Install, Attempt: id.Attempt, Summary: "nothing has run", Steps: []proto.StepInfo{},
		Delivered: max(sent.Next, 1) - 1, Reporting: dir.Locked(), Trouble: sent.Trouble,
	}
	at := map[string]int{}
	for r, err := range journal.Scan(dir.Path("journal")) {
		if err != nil {
			return nil, err
		}
		st.Records = r.Seq
		st.fold(r.Event, at)
	}
	run, err := steps.ReadState(string(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if run.Alive && !run.Done {
		st.Phase, st.Step, st.Waiting = run.Phase, run.Step, run.Waiting
	}
	return st, nil
}

// fold adds an event to what is shown.
func (st *localStatus) fold(e proto.Event, at map[string]int) {
	switch e.Kind {
	case proto.KindRunStart:
		st.Summary, st.Message = "running "+string(e.Phase), ""
	case proto.KindRunEnd:
		st.Summary = string(e.Phase) + " done"
		if !e.Outcome.Good() {
			st.Summary, st.Message = summary(&e), e.Message
		}
	case proto.KindSealed:
		st.Summary = "sealed"
	case proto.KindStage:
		if e.Stage == "booted" && !e.Failed && e.Step == "" {
			st.Summary = "booted"
		}
	case proto.KindStepStart, proto.KindStepEnd:
		key := string(e.Phase) + "/" + e.Step
		i, ok := at[key]
		if !ok {
			i = len(st.Steps)
			at[key] = i
			st.Steps = append(st.Steps, proto.StepInfo{})
		}
		st.Steps[i] = proto.StepInfo{
			Name: e.Step, Phase: e.Phase, Try: e.Try, Outcome: e.Outcome, Exit: e.Exit, Signal: e.Signal, DurationMS: e.DurationMS, At: e.Time,
		}
	}
}

func (st *localStatus) write(w io.Writer) error {
	var b strings.Builder
	node := st.Node
	if node == "" {
		node = "(no name yet)"
	}
	fmt.Fprintf(&b, "%s  %s", node, st.Summary)
	if st.Message != "" {
		fmt.Fprintf(&b, ": %s", st.Message)
	}
	if st.Waiting {
		b.WriteString("  waiting: retry, skip, release or abort")
	}
	fmt.Fprintf(&b, "\ninstall %s, attempt %d\n", st.Install, st.Attempt)
	for _, s := range st.Steps {
		outcome := string(s.Outcome)
		switch {
		case s.Outcome == "":
			outcome = "running"
		case s.Outcome == proto.OutcomeFailed:
			outcome = "failed " + strconv.Itoa(s.Exit)
		case s.Signal != "":
			outcome += " " + s.Signal
		}
		fmt.Fprintf(&b, "  %-9s %-24s %-16s %s\n", s.Phase, s.Name, outcome, (time.Duration(s.DurationMS) * time.Millisecond).Round(100*time.Millisecond))
	}
	fmt.Fprintf(&b, "delivered %d of %d records", st.Delivered, st.Records)
	if !st.Reporting {
		b.WriteString("; no process delivers at the moment")
	}
	if st.Trouble != "" {
		fmt.Fprintf(&b, "\n%s", st.Trouble)
	}
	_, err := io.WriteString(w, host.Printable(b.String())+"\n")
	return err
}
