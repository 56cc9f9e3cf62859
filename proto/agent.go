// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Clock is what a sender knows of the time at the moment of a request. The collector, which knows when the request
// arrived, computes from it when each event of the same boot really was.
type Clock struct {
	Boot     string    `json:"boot"`      // kernel boot id
	OffsetMS int64     `json:"offset_ms"` // since that boot, CLOCK_BOOTTIME
	Time     time.Time `json:"time"`      // wall clock; may be years off
}

// Where an agent runs.
const (
	EnvInstaller = "installer" // the initrd or the installer
	EnvInstalled = "installed" // the installed system
)

// Hello is the first request of every agent process: POST /v1/agent/hello.
//
// It proves itself by one of: the header "Authorization: Bearer TOKEN" (an agent that has one), Claim (from the boot
// script), or JoinKey (in the initrd or answer file of a site that boots its nodes by itself). It may be repeated: the
// same proof from the same boot gives a fresh token for the same install.
type Hello struct {
	Schema  int    `json:"schema"`
	Version string `json:"version"` // of the agent
	Env     string `json:"env"`     // EnvInstaller or EnvInstalled
	Clock   Clock  `json:"clock"`

	Node    string `json:"node,omitempty"`    // what the kernel command line says, if it does
	Install string `json:"install,omitempty"` // the same; or the agent's provisional id
	Claim   string `json:"claim,omitempty"`
	JoinKey string `json:"join_key,omitempty"`

	MACs     []string `json:"macs,omitempty"`
	Serial   string   `json:"serial,omitempty"`
	UUID     string   `json:"uuid,omitempty"`
	Hardware Hardware `json:"hardware,omitzero"`

	Journal string `json:"journal,omitempty"` // id of the agent's journal: the answer says which record is wanted next
}

// Hardware is what the agent sees of its machine. Nothing is decided by it.
type Hardware struct {
	Arch     string   `json:"arch,omitempty"`
	Vendor   string   `json:"vendor,omitempty"`
	Product  string   `json:"product,omitempty"`
	CPUs     int      `json:"cpus,omitempty"`
	MemoryMB int      `json:"memory_mb,omitempty"`
	Disks    []string `json:"disks,omitempty"` // "vda 2147483648 QEMU"
	NICs     []string `json:"nics,omitempty"`  // "eth0 52:54:00:12:34:56 up", the one that was booted from first
}

// The most that is kept of a machine's lists, and the length of a line.
const (
	maxHardware     = 64
	maxHardwareLine = 160
)

// Clipped is the description as far as it is kept: nothing in it may be long, whoever wrote it.
func (h Hardware) Clipped() Hardware {
	lines := func(list []string) []string {
		var out []string
		for _, l := range list[:min(len(list), maxHardware)] {
			out = append(out, Clip(l, maxHardwareLine))
		}
		return out
	}
	h.Arch, h.Vendor, h.Product = Clip(h.Arch, maxHardwareLine), Clip(h.Vendor, maxHardwareLine), Clip(h.Product, maxHardwareLine)
	h.Disks, h.NICs = lines(h.Disks), lines(h.NICs)
	return h
}

// HelloAnswer is the collector's answer to a Hello.
type HelloAnswer struct {
	Schema     int         `json:"schema"`
	Node       string      `json:"node"`
	Install    string      `json:"install"`
	Ordinal    uint64      `json:"ordinal"`
	Attempt    int         `json:"attempt"`
	Token      string      `json:"token,omitempty"` // only for a claim or a join key
	Plan       *SignedPlan `json:"plan,omitempty"`
	BootAction BootAction  `json:"boot_action"`
	Next       uint64      `json:"next"` // sequence number wanted next of Journal
	Time       time.Time   `json:"time"` // the collector's; a plan's expiry is judged by it
	HeartbeatS int         `json:"heartbeat_s"`
	Progress   *Progress   `json:"progress,omitempty"` // of an attempt that goes on after an announced reboot of the installer
	Changes    *Changes    `json:"changes,omitempty"`  // what the node's on-change steps with effects outside of its root last did
}

// Changes is by what the on-change steps of a node whose effect lives outside of its root (persists: outside) were last done
// well, in whatever install. Only the collector can remember it for a node without a disk.
type Changes struct {
	Key  []byte            `json:"key"`            // of the HMAC-SHA256 in Event.Change: what a step depends on may be secret
	Done map[string]string `json:"done,omitempty"` // PHASE/STEP → the Change of its last good end, forgotten when it starts
}

// ChangeKey is a step's key in Changes.Done.
func ChangeKey(p Phase, step string) string { return string(p) + "/" + step }

// Keyed gives the Change of what a step depends on, of which it gets a digest.
func (c *Changes) Keyed(digest string) string {
	h := hmac.New(sha256.New, c.Key)
	h.Write([]byte(digest))
	return hex.EncodeToString(h.Sum(nil))
}

// Progress is what an installer that has no disk cannot know after it restarted: what it did before, in this attempt.
type Progress struct {
	// Events are the agent's records of kinds step-start, step-end, order and reboot, in their order, without Message and Tail.
	Events []Event `json:"events"`
	Run    []byte  `json:"run,omitempty"` // PROVOST_RUN, as the reboot's EventsRequest brought it
}

// MaxRun is the length of PROVOST_RUN as the agent packs it, in bytes, that survives a reboot without a disk.
const MaxRun = 1 << 20

// EventsRequest delivers a run of journal records: POST /v1/agent/events. The events are consecutive; an event that
// the sender itself could not read is sent as KindNote in its place.
type EventsRequest struct {
	Schema  int               `json:"schema"`
	Install string            `json:"install"`
	Journal string            `json:"journal"`
	Clock   Clock             `json:"clock"`
	Events  []json.RawMessage `json:"events"`
	Run     []byte            `json:"run,omitempty"` // with a KindReboot of phase pre: PROVOST_RUN as the agent packs it, at most MaxRun bytes
}

// EventsAnswer says what became of them. Next is the only thing that moves a sender: it goes there, whether forward
// past what was taken or back to what the collector lacks. Events before Next are committed to disk, or are refused
// one by one in Refused, never to be sent again.
type EventsAnswer struct {
	Next       uint64     `json:"next"`
	Refused    []Refusal  `json:"refused,omitempty"`
	BootAction BootAction `json:"boot_action"`
}

// Refusal is the verdict on one record that can never be taken.
type Refusal struct {
	Seq    uint64 `json:"seq"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// Heartbeat says that the agent is alive: POST /v1/agent/heartbeat, every 30 s, every 10 s while it waits for orders. It
// is not journalled and moves no status but last_seen. Of it only Rescue is kept on disk.
type Heartbeat struct {
	Schema   int    `json:"schema"`
	Install  string `json:"install"`
	Clock    Clock  `json:"clock"`
	Phase    Phase  `json:"phase,omitempty"`
	Step     string `json:"step,omitempty"`
	Waiting  bool   `json:"waiting,omitempty"`
	Progress int    `json:"progress,omitempty"` // percent of the step, 0 to 100
	Message  string `json:"message,omitempty"`

	Facts  *Facts  `json:"facts,omitempty"`
	Rescue *Rescue `json:"rescue,omitempty"` // nil: there is no rescue shell at the moment
}

// HeartbeatAnswer carries the collector's orders. An order is repeated until the agent's journal acknowledges it.
type HeartbeatAnswer struct {
	Orders     []Order    `json:"orders,omitempty"`
	BootAction BootAction `json:"boot_action"`
	HeartbeatS int        `json:"heartbeat_s"`
}

// Order is what an operator wants of a node.
type Order struct {
	ID     string      `json:"id"` // ULID; carrying it out twice is the same as once
	Verb   Verb        `json:"verb"`
	Step   string      `json:"step,omitempty"`
	Actor  string      `json:"actor,omitempty"`
	Reason string      `json:"reason,omitempty"`
	Plan   *SignedPlan `json:"plan,omitempty"` // for retry: what is not done yet is done after this one
}

// Verb is what an order asks for.
type Verb string

// The verbs.
const (
	VerbRetry   Verb = "retry"   // the failed step again, then on
	VerbSkip    Verb = "skip"    // on after the failed step, with a warning
	VerbRelease Verb = "release" // end the hold; a failed plan returns non-zero to the installer
	VerbHold    Verb = "hold"    // stop before the next step and wait
	VerbAbort   Verb = "abort"   // end the running step and the plan
	VerbForce   Verb = "force"   // forget that Step (or all) had succeeded
)

// Verbs lists every verb.
var Verbs = []Verb{VerbRetry, VerbSkip, VerbRelease, VerbHold, VerbAbort, VerbForce}

// ParseVerb reads a verb.
func ParseVerb(s string) (Verb, error) { return oneOf("order", s, Verbs) }

// Limits of the agent's requests.
const (
	MaxBody     = 8 << 20 // of every request but a log's
	MaxLogChunk = 1 << 20 // of one PUT of a log
)

// LogAnswer answers PUT /v1/agent/logs/{install}/{name}?offset=N: the log's length as the collector has it, on disk. A
// chunk that does not start there is refused with CodeLogOffset, and the sender goes to Offset.
type LogAnswer struct {
	Offset int64 `json:"offset"`
}

// Check says what is wrong with a hello.
func (h *Hello) Check() error {
	if h.Schema > Schema {
		return fmt.Errorf("schema %d is newer than this collector, which knows %d: upgrade provostd", h.Schema, Schema)
	}
	if !ValidBoot(h.Clock.Boot) {
		return fmt.Errorf("clock.boot %q is no kernel boot id", clip(h.Clock.Boot))
	}
	if h.Env != EnvInstaller && h.Env != EnvInstalled {
		return fmt.Errorf("env %q: use installer or installed", clip(h.Env))
	}
	if h.Node != "" {
		if err := CheckNode(h.Node); err != nil {
			return err
		}
	}
	if h.Install != "" && !ValidID(h.Install) {
		return fmt.Errorf("install %q is no ULID", clip(h.Install))
	}
	if h.Journal != "" && !ValidJournal(h.Journal) {
		return fmt.Errorf("journal %q: use 16 hex digits", clip(h.Journal))
	}
	if len(h.MACs) > 64 {
		return fmt.Errorf("%d MAC addresses: at most 64", len(h.MACs))
	}
	for i, m := range h.MACs {
		n, err := NormalMAC(m)
		if err != nil {
			return err
		}
		h.MACs[i] = n
	}
	if len(h.Serial) > 128 || len(h.UUID) > 64 || len(h.Version) > 128 || len(h.Claim) > 128 || len(h.JoinKey) > 128 {
		return fmt.Errorf("serial, uuid, version, claim or join_key is too long")
	}
	return nil
}
