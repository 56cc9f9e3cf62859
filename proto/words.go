// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"fmt"
	"slices"
	"strings"
)

// Status is the one word for how a node is doing.
type Status string

// The statuses of a node.
const (
	StatusDiscovered  Status = "discovered"  // seen, but nobody has added it
	StatusDefined     Status = "defined"     // added, no install ordered yet
	StatusOrdered     Status = "ordered"     // install ordered, no sign of life yet
	StatusPXEBooting  Status = "pxe-booting" // firmware, boot loader, kernel
	StatusInstalling  Status = "installing"  // the installer runs
	StatusPostinstall Status = "postinstall" // steps run in the target
	StatusRebooting   Status = "rebooting"   // installer done, first boot of the disk awaited
	StatusFirstboot   Status = "firstboot"   // the installed system runs its first-boot steps
	StatusBooted      Status = "booted"      // proven by the installed system
	StatusFailed      Status = "failed"      // ended, with a cause
	StatusStalled     Status = "stalled"     // a stage did not come in its time
	StatusHeld        Status = "held"        // an operator holds it
)

// Statuses lists every status in the order of an install's life.
var Statuses = []Status{StatusDiscovered, StatusDefined, StatusOrdered, StatusPXEBooting, StatusInstalling, StatusPostinstall,
	StatusRebooting, StatusFirstboot, StatusBooted, StatusFailed, StatusStalled, StatusHeld}

// ParseStatus reads a status.
func ParseStatus(s string) (Status, error) { return oneOf("status", s, Statuses) }

// BootAction is what a node gets when it asks for a boot script.
type BootAction string

// The boot actions.
const (
	BootInstall BootAction = "install"
	BootDisk    BootAction = "disk"
	BootNetboot BootAction = "netboot" // diskless: the node's system itself comes over the network
	BootBlock   BootAction = "block"   // a screen that says why, and what to type
	BootRescue  BootAction = "rescue"
)

// BootActions lists every boot action.
var BootActions = []BootAction{BootInstall, BootDisk, BootNetboot, BootBlock, BootRescue}

// ParseBootAction reads a boot action.
func ParseBootAction(s string) (BootAction, error) { return oneOf("boot action", s, BootActions) }

// Phase is a part of an install in which steps run.
type Phase string

// The phases, in the order in which they come.
const (
	PhasePre       Phase = "pre"       // installer up, disks untouched
	PhasePost      Phase = "post"      // target mounted; steps run in its chroot
	PhaseFirstboot Phase = "firstboot" // the installed system, once
	PhaseBoot      Phase = "boot"      // diskless, at every boot
)

// Phases lists every phase.
var Phases = []Phase{PhasePre, PhasePost, PhaseFirstboot, PhaseBoot}

// Fleeting reports whether a phase runs in memory alone: over a restart nothing is kept but what the collector has.
func (p Phase) Fleeting() bool { return p == PhasePre || p == PhaseBoot }

// ParsePhase reads a phase.
func ParsePhase(s string) (Phase, error) { return oneOf("phase", s, Phases) }

// Source says whose word an event is.
type Source string

// The sources. A log's source is "log:" and the program (log:dnsmasq), a foreign client's "compat:" and the system.
const (
	SourceAgent    Source = "agent"
	SourceBoot     Source = "boot"     // the collector's own boot server saw a request
	SourceCallback Source = "callback" // a system without an agent, by the callback's URL in its boot script or answer file
	SourceOperator Source = "operator" // somebody's order
	SourceDeadline Source = "deadline" // the collector's clock ran out
	SourceAuth     Source = "auth"     // the collector refused or bound a credential
)

// Outcome is how a step, or a phase, ended. Every start has exactly one.
type Outcome string

// The outcomes.
const (
	OutcomeOK          Outcome = "ok"
	OutcomeFailed      Outcome = "failed"      // exit status not among success-codes
	OutcomeTimeout     Outcome = "timeout"     // ended by us at its deadline
	OutcomeSignal      Outcome = "signal"      // ended by a signal that was not ours
	OutcomePreflight   Outcome = "preflight"   // could not be started; nothing of it ran
	OutcomeInterrupted Outcome = "interrupted" // the machine or the agent died under it
	OutcomeAborted     Outcome = "aborted"     // ended by an order
	OutcomeSkipped     Outcome = "skipped"     // not run: an order, or nothing changed
)

// Outcomes lists every outcome.
var Outcomes = []Outcome{OutcomeOK, OutcomeFailed, OutcomeTimeout, OutcomeSignal, OutcomePreflight, OutcomeInterrupted, OutcomeAborted, OutcomeSkipped}

// Good reports whether a plan goes on after this outcome.
func (o Outcome) Good() bool { return o == OutcomeOK || o == OutcomeSkipped }

// Cause is the kind of cause that a step with this outcome is, unless something more is known of it.
func (o Outcome) Cause() CauseKind {
	switch o {
	case OutcomeTimeout:
		return CauseTimeout
	case OutcomeSignal:
		return CauseSignal
	case OutcomePreflight:
		return CausePreflight
	case OutcomeInterrupted:
		return CauseInterrupted
	case OutcomeAborted:
		return CauseAbort
	}
	return CauseStep
}

// OnFailure is what the agent does when a plan has failed.
type OnFailure string

// What a failed plan leads to.
const (
	OnFailureHold     OnFailure = "hold"     // stay up, say why, take orders
	OnFailureExit     OnFailure = "exit"     // return non-zero to the installer
	OnFailurePoweroff OnFailure = "poweroff" // report, then power off
	OnFailureDisk     OnFailure = "disk"     // report, then boot from the disk
)

// OnFailures lists every such reaction.
var OnFailures = []OnFailure{OnFailureHold, OnFailureExit, OnFailurePoweroff, OnFailureDisk}

// ParseOnFailure reads one.
func ParseOnFailure(s string) (OnFailure, error) { return oneOf("on-failure", s, OnFailures) }

// CauseKind says what kind of thing made an install fail.
type CauseKind string

// The kinds of cause.
const (
	CauseStep          CauseKind = "step"
	CauseTimeout       CauseKind = "timeout"
	CauseSignal        CauseKind = "signal"
	CausePreflight     CauseKind = "preflight"
	CausePlan          CauseKind = "plan"
	CauseDownload      CauseKind = "download"
	CauseInstaller     CauseKind = "installer"
	CauseAgent         CauseKind = "agent"
	CauseInterrupted   CauseKind = "interrupted"
	CauseLoop          CauseKind = "loop"
	CauseStageDeadline CauseKind = "stage-deadline"
	CauseAbort         CauseKind = "abort"
	CauseForeign       CauseKind = "foreign"
)

// CauseKinds lists every kind of cause.
var CauseKinds = []CauseKind{CauseStep, CauseTimeout, CauseSignal, CausePreflight, CausePlan, CauseDownload, CauseInstaller, CauseAgent,
	CauseInterrupted, CauseLoop, CauseStageDeadline, CauseAbort, CauseForeign}

// Inferred reports whether the collector concluded this by itself. The agent's own word replaces such a cause.
func (k CauseKind) Inferred() bool { return k == CauseLoop || k == CauseStageDeadline }

// Stages lists the milestones that ship, in the order in which an install meets them. A family leaves out what it
// has not, and a site's own names may stand anywhere in its sequences.
var Stages = []string{
	"ordered", "powered-on", "dhcp-discover", "dhcp-offer", "dhcp-request", "dhcp-ack", "bootloader-sent", "bootscript-sent",
	"kernel-sent", "initrd-sent", "agent-started", "config-sent", "common-sent", "root-sent", "cracklib-sent", "bind-sent", "sles-img-sent", "answer-sent", "image-sent", "installer-started", "ssh-open", "pre-started",
	"pre-done", "autoinst-present", "partitioned", "partitions-recorded", "packages-started", "packages-done", "post-started",
	"post-done", "sealed", "bootaction-disk", "rebooting", "disk-booted", "firstboot-started", "firstboot-done",
	"boot-started", "boot-done", "booted",
}

// ReservedStage reports whether a stage is one that only the agent itself may report: on its word a node is booted, or boots
// its disk from then on. A step that reports it says nothing.
func ReservedStage(stage string) bool { return stage == "booted" || stage == "sealed" }

func oneOf[T ~string](what, s string, all []T) (T, error) {
	if i := slices.Index(all, T(s)); i >= 0 {
		return all[i], nil
	}
	names := make([]string, len(all))
	for i, v := range all {
		names[i] = string(v)
	}
	return "", fmt.Errorf("%s %q: use one of %s", what, s, strings.Join(names, ", "))
}
