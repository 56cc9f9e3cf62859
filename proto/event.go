// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind says what an event is about, and with it which of its fields count.
type Kind string

// The kinds that an agent writes into its journal.
const (
	KindAgentStart Kind = "agent-start" // an agent process opened the journal in a boot: Message is its version
	KindStage      Kind = "stage"       // Stage was reached; with Failed the installer says that it failed there
	KindRunStart   Kind = "run-start"   // the steps of Phase begin; Plan is the plan's digest
	KindStepStart  Kind = "step-start"  // Step begins its Try
	KindStepEnd    Kind = "step-end"    // Step's Try ended with Outcome
	KindRunEnd     Kind = "run-end"     // the steps of Phase ended with Outcome
	KindHold       Kind = "hold"        // the agent waits for an order; Message says why. With an Outcome, the wait ended without one
	KindOrder      Kind = "order"       // the agent carried out Order on Step; with Failed it refused it, and nothing has changed
	KindSealed     Kind = "sealed"      // the installer is done: from now on the disk may boot
	KindNote       Kind = "note"        // something to know: Message
	KindReboot     Kind = "reboot"      // the agent restarts the machine, or switches it off, as Step asked by its status Exit
)

// The kinds that only a collector writes.
const (
	KindOrdered    Kind = "ordered"     // the install was ordered
	KindAttempt    Kind = "attempt"     // a boot script of a new attempt was handed out
	KindBound      Kind = "bound"       // a claim or join key was bound to Boot
	KindContested  Kind = "contested"   // a second machine showed the same claim
	KindBootAction Kind = "boot-action" // the boot action became Message
	KindLoop       Kind = "loop"        // Attempt attempts were used up and the node asked for one more
	KindStalled    Kind = "stalled"     // Stage did not come in its time; of an agent: the installer waits for somebody at its screen
	KindDeadline   Kind = "deadline"    // Stage did not come in its second, last time
	KindAborted    Kind = "aborted"     // an operator ended the install
	KindSuperseded Kind = "superseded"  // a newer install was ordered
)

// Kinds lists every kind.
var Kinds = append(slices.Clone(AgentKinds), KindOrdered, KindAttempt, KindBound, KindContested, KindBootAction, KindLoop, KindDeadline, KindAborted, KindSuperseded)

// AgentKinds lists the kinds that an agent writes.
var AgentKinds = []Kind{KindAgentStart, KindStage, KindStalled, KindRunStart, KindStepStart, KindStepEnd, KindRunEnd, KindHold, KindOrder, KindSealed, KindNote, KindReboot}

// Limits of one event. A longer text is cut by whoever writes it, with the cut stated.
const (
	MaxMessage   = 2048 // bytes of Message
	MaxTail      = 20   // lines of Tail
	MaxTailLine  = 512  // bytes of one of them
	MaxEvents    = 500  // events of one request
	MaxEventSize = 32 << 10
)

// Event is one fact about one install.
//
// A sender numbers its events from 1 in each journal; (Install, Source, Journal, Seq) is the event's identity, and a
// repeat of one is the same fact. The fields under "set by the collector" are fixed when it is committed and never
// change afterwards.
type Event struct {
	Kind    Kind   `json:"kind"`
	Source  Source `json:"source,omitempty"`
	Install string `json:"install,omitempty"`
	Journal string `json:"journal,omitempty"`
	Seq     uint64 `json:"seq"`

	// Time is the sender's wall clock, which may be years off. OffsetMS is the milliseconds since its kernel booted
	// (CLOCK_BOOTTIME), Boot that kernel's boot id: from the two and the time of arrival the collector computes At.
	Time     time.Time `json:"time"`
	Boot     string    `json:"boot,omitempty"`
	OffsetMS int64     `json:"offset_ms,omitempty"`

	Phase      Phase      `json:"phase,omitempty"`
	Step       string     `json:"step,omitempty"`
	Try        int        `json:"try,omitempty"` // from 1
	Stage      string     `json:"stage,omitempty"`
	Failed     bool       `json:"failed,omitempty"`
	Outcome    Outcome    `json:"outcome,omitempty"`
	Exit       int        `json:"exit,omitempty"`
	Signal     string     `json:"signal,omitempty"` // SIGKILL, …
	DurationMS int64      `json:"duration_ms,omitempty"`
	Message    string     `json:"message,omitempty"`
	Tail       []string   `json:"tail,omitempty"` // the last lines of output
	Log        string     `json:"log,omitempty"`  // the log that has all of it
	Cause      CauseKind  `json:"cause,omitempty"`
	Warning    bool       `json:"warning,omitempty"`  // a failure that the plan goes on after
	Topic      string     `json:"topic,omitempty"`    // with KindNote of the collector: what it is about; one without Warning ends the warnings of it
	Again      bool       `json:"again,omitempty"`    // the step ended well and is to run once more
	Order      string     `json:"order,omitempty"`    // a Verb; or "wait" for the file /tmp/wait
	OrderID    string     `json:"order_id,omitempty"` // with KindOrder: which one is acknowledged
	Plan       string     `json:"plan,omitempty"`
	Actor      string     `json:"actor,omitempty"`
	Then       BootAction `json:"then,omitempty"`   // with a bad KindRunEnd: BootDisk, where the machine is about to boot from its disk
	Change     string     `json:"change,omitempty"` // with a good KindStepEnd: by what an on-change step was done, as Changes keeps it

	// Set by the collector.
	Revision uint64    `json:"revision,omitempty"` // place among all events of all nodes
	Node     string    `json:"node,omitempty"`
	Attempt  int       `json:"attempt,omitempty"`
	At       time.Time `json:"at,omitzero"` // when it really was
}

// CheckAgent says what is wrong with an event that an agent sent. Such an event is passed over alone, with this reason;
// it never makes the collector refuse its neighbours.
func (e *Event) CheckAgent() error {
	switch {
	case !slices.Contains(AgentKinds, e.Kind):
		return fmt.Errorf("kind %q is not one that an agent may send", clip(string(e.Kind)))
	case e.Seq == 0:
		return fmt.Errorf("seq is 0: sequence numbers start at 1")
	case !ValidBoot(e.Boot):
		return fmt.Errorf("boot %q is no kernel boot id", clip(e.Boot))
	case e.OffsetMS < 0:
		return fmt.Errorf("offset_ms is negative")
	case e.Try < 0 || e.DurationMS < 0:
		return fmt.Errorf("try or duration_ms is negative")
	case e.Topic != "":
		return fmt.Errorf("topic is the collector's own")
	case e.Kind == KindStalled && e.Stage == "":
		return fmt.Errorf("stalled without the stage that does not come")
	case len(e.Message) > MaxMessage:
		return fmt.Errorf("message of %d bytes, at most %d are allowed", len(e.Message), MaxMessage)
	case len(e.Tail) > MaxTail:
		return fmt.Errorf("tail of %d lines, at most %d are allowed", len(e.Tail), MaxTail)
	case len(e.Signal) > 16 || len(e.Order) > 32 || len(e.OrderID) > 32 || len(e.Actor) > 128 || len(e.Plan) > 64:
		return fmt.Errorf("signal, order, order_id, actor or plan is too long")
	case e.Then != "" && (e.Then != BootDisk || e.Kind != KindRunEnd):
		return fmt.Errorf("then %q: only a run-end may say disk", clip(string(e.Then)))
	case e.Change != "" && !ValidDigest(e.Change):
		return fmt.Errorf("change %q is no SHA-256 in hex", clip(e.Change))
	}
	for _, l := range e.Tail {
		if len(l) > MaxTailLine {
			return fmt.Errorf("a tail line of %d bytes, at most %d are allowed", len(l), MaxTailLine)
		}
	}
	if e.Step != "" {
		if err := CheckName("step", e.Step); err != nil {
			return err
		}
	}
	if e.Stage != "" {
		if err := CheckName("stage", e.Stage); err != nil {
			return err
		}
	}
	if e.Log != "" {
		if err := CheckName("log", e.Log); err != nil {
			return err
		}
	}
	if e.Phase != "" {
		if _, err := ParsePhase(string(e.Phase)); err != nil {
			return err
		}
	}
	if e.Outcome != "" && !slices.Contains(Outcomes, e.Outcome) {
		return fmt.Errorf("outcome %q is unknown", clip(string(e.Outcome)))
	}
	if e.Cause != "" && !slices.Contains(CauseKinds, e.Cause) {
		return fmt.Errorf("cause %q is unknown", clip(string(e.Cause)))
	}
	return e.checkKind()
}

func (e *Event) checkKind() error {
	missing := func(field string, is bool) error {
		if is {
			return fmt.Errorf("%s without %s", e.Kind, field)
		}
		return nil
	}
	switch e.Kind {
	case KindStage:
		return missing("stage", e.Stage == "")
	case KindRunStart:
		return missing("phase", e.Phase == "")
	case KindStepStart:
		return missing("phase, step or try", e.Phase == "" || e.Step == "" || e.Try < 1)
	case KindStepEnd:
		return missing("phase, step, try or outcome", e.Phase == "" || e.Step == "" || e.Try < 1 || e.Outcome == "")
	case KindRunEnd:
		return missing("phase or outcome", e.Phase == "" || e.Outcome == "")
	case KindReboot:
		return missing("phase or step", e.Phase == "" || e.Step == "")
	case KindOrder:
		return missing("order", e.Order == "")
	case KindHold, KindNote:
		return missing("message", e.Message == "")
	}
	return nil
}

// Clip cuts s to at most max bytes at a rune's edge, says so at its end, and replaces what is not UTF-8.
func Clip(s string, max int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= max {
		return s
	}
	const mark = " […]"
	cut := max - len(mark)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + mark
}

func clip(s string) string { return Clip(s, 64) }
