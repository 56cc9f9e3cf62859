// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"provost/proto"
)

// weight says how an event, or a line, is to be marked.
type weight int

const (
	plain weight = iota
	good
	warning
	bad
)

// mark is the sign and the colour of a weight.
func (w weight) mark() (sign, colour string) {
	switch w {
	case good:
		return " ", green
	case warning:
		return "!", yellow
	case bad:
		return "X", red
	}
	return " ", ""
}

// describe says in words what an event is. The text is not cleaned.
func describe(e *proto.Event) (string, weight) {
	text, w := describeKind(e)
	if e.Message != "" && !strings.Contains(text, e.Message) {
		text += ": " + e.Message
	}
	if w == plain && e.Warning {
		w = warning
	}
	return text, w
}

func describeKind(e *proto.Event) (string, weight) {
	by := ""
	if e.Actor != "" {
		by = " by " + e.Actor
	}
	switch e.Kind {
	case proto.KindAgentStart:
		return "agent started" + during(e.Stage), plain
	case proto.KindStage:
		switch {
		case e.Failed:
			return "stage " + e.Stage + " failed", bad
		case e.Stage == string(proto.StatusBooted):
			return "stage booted", good
		}
		return "stage " + e.Stage, plain
	case proto.KindRunStart:
		return fmt.Sprintf("phase %s begins", e.Phase), plain
	case proto.KindStepStart:
		return "step " + e.Step + " begins" + try(e.Try), plain
	case proto.KindStepEnd:
		text := "step " + e.Step + ": " + outcome(e)
		if e.DurationMS > 0 {
			text += " after " + took(e.DurationMS)
		}
		text += try(e.Try)
		switch {
		case e.Outcome.Good() && e.Outcome != proto.OutcomeSkipped:
			return text, plain
		case e.Outcome == proto.OutcomeSkipped, e.Warning:
			return text, warning
		}
		return text, bad
	case proto.KindRunEnd:
		if e.Outcome.Good() {
			return fmt.Sprintf("phase %s done", e.Phase), plain
		}
		text := fmt.Sprintf("phase %s ended: %s", e.Phase, outcome(e))
		if e.Step != "" {
			text = fmt.Sprintf("phase %s ended at step %s: %s", e.Phase, e.Step, outcome(e))
		}
		return text, bad
	case proto.KindHold:
		switch {
		case e.Outcome.Good():
			return "waits no more", plain
		case e.Outcome != "":
			return "waits no more", warning
		case e.Failed:
			return "waits for an order", bad
		}
		return "held", warning
	case proto.KindOrder:
		text := "order " + e.Order + " carried out"
		if e.Failed {
			text = "order " + e.Order + " refused"
		}
		if e.Step != "" {
			text += " on step " + e.Step
		}
		return text + by, warning
	case proto.KindSealed:
		return "sealed: the installer is done", plain
	case proto.KindNote:
		return e.Message, plain
	case proto.KindOrdered:
		return "install ordered" + by, plain
	case proto.KindAttempt:
		return fmt.Sprintf("attempt %d begins", e.Attempt), plain
	case proto.KindBound:
		boot, _, _ := strings.Cut(e.Boot, "-")
		return "the claim belongs to kernel boot " + boot, plain
	case proto.KindContested:
		return "contested: a second machine showed the same claim", bad
	case proto.KindBootAction:
		return "boot action is now " + e.Message, plain
	case proto.KindLoop:
		if e.Source != proto.SourceBoot { // the site boots it
			return fmt.Sprintf("loop: the installer was booted again after %s", count(e.Attempt, "attempt")), bad
		}
		return "loop", bad // the boot server's message says how often
	case proto.KindStalled:
		if e.Source == proto.SourceAgent {
			return "stalled before stage " + e.Stage, warning
		}
		if e.Message != "" {
			return "stalled: " + e.Message, warning
		}
		return "stalled: stage " + e.Stage + " did not come in its time", warning
	case proto.KindDeadline:
		if e.Message != "" {
			return "failed: " + e.Message, bad
		}
		return "failed: stage " + e.Stage + " did not come in its last time", bad
	case proto.KindAborted:
		return "aborted" + by, bad
	case proto.KindSuperseded:
		return "superseded by a newer install", plain
	}
	text := string(e.Kind) // of a collector that is newer than this program
	if e.Stage != "" {
		text += " " + e.Stage
	}
	return text + by, plain
}

func during(stage string) string {
	switch stage {
	case "agent-started":
		return " in the installer"
	case "disk-booted":
		return " in the installed system"
	}
	return ""
}

func try(n int) string {
	if n > 1 {
		return fmt.Sprintf(" (try %d)", n)
	}
	return ""
}

func outcome(e *proto.Event) string {
	switch e.Outcome {
	case proto.OutcomeFailed:
		return fmt.Sprintf("exit status %d", e.Exit)
	case proto.OutcomeSignal:
		return "killed by " + e.Signal
	case proto.OutcomeTimeout:
		return "ran out of time"
	case proto.OutcomePreflight:
		return "could not be started"
	}
	return string(e.Outcome)
}
