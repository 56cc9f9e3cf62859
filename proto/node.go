// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// NodeSpec is what an operator says of a node: the body of POST and PATCH /v1/nodes, and what `node import` reads.
type NodeSpec struct {
	Name    string            `json:"name" yaml:"name"`
	MACs    []string          `json:"macs,omitempty" yaml:"macs,omitempty"`
	IP      string            `json:"ip,omitempty" yaml:"ip,omitempty"`
	Serial  string            `json:"serial,omitempty" yaml:"serial,omitempty"`
	Profile string            `json:"profile,omitempty" yaml:"profile,omitempty"`
	Groups  []string          `json:"groups,omitempty" yaml:"groups,omitempty"`
	Attrs   map[string]string `json:"attrs,omitempty" yaml:"attrs,omitempty"`
	// Protected nodes refuse to be installed and removed.
	Protected bool `json:"protected,omitempty" yaml:"protected,omitempty"`
}

// Check normalises the MACs and says everything that is wrong, joined.
func (n *NodeSpec) Check() error {
	var errs []error
	errs = append(errs, CheckNode(n.Name))
	if len(n.MACs) == 0 {
		errs = append(errs, fmt.Errorf("node %q has no MAC address: without one it is never recognised", n.Name))
	}
	seen := map[string]bool{}
	for i, m := range n.MACs {
		norm, err := NormalMAC(m)
		switch {
		case err != nil:
			errs = append(errs, err)
		case seen[norm]:
			errs = append(errs, fmt.Errorf("MAC %s stands twice", norm))
		default:
			n.MACs[i] = norm
			seen[norm] = true
		}
	}
	if n.IP != "" {
		if _, err := netip.ParseAddr(n.IP); err != nil {
			errs = append(errs, fmt.Errorf("address %q: %w", n.IP, err))
		}
	}
	if len(n.Serial) > 128 {
		errs = append(errs, errors.New("serial is longer than 128 bytes"))
	}
	if n.Profile != "" {
		errs = append(errs, CheckName("profile", n.Profile))
	}
	for _, g := range n.Groups {
		errs = append(errs, CheckName("group", g))
	}
	for k, v := range n.Attrs {
		errs = append(errs, CheckAttr(k, v))
	}
	return errors.Join(errs...)
}

// Node is what the collector knows of a node: GET /v1/nodes/{node} and the elements of GET /v1/status.
type Node struct {
	Schema     int        `json:"schema"`
	Name       string     `json:"name"`
	Status     Status     `json:"status"`
	Waiting    bool       `json:"waiting"` // up, and can take retry, skip, release
	Summary    string     `json:"summary"`
	Stage      string     `json:"stage,omitempty"`
	Step       string     `json:"step,omitempty"`
	Install    string     `json:"install,omitempty"`
	Ordinal    uint64     `json:"ordinal,omitempty"`
	Attempt    int        `json:"attempt,omitempty"`
	Label      string     `json:"label,omitempty"`
	Since      time.Time  `json:"since,omitzero"`     // of this status
	LastSeen   time.Time  `json:"last_seen,omitzero"` // last word of the node itself; without an install, of it in a log
	Deadline   *Deadline  `json:"deadline,omitempty"`
	Orders     []Pending  `json:"orders,omitempty"` // given and not acknowledged yet, the oldest first
	Cause      *Cause     `json:"cause,omitempty"`
	Stuck      *Stuck     `json:"stuck,omitempty"` // if it is stalled, or has failed because it was
	Warnings   []string   `json:"warnings,omitempty"`
	BootAction BootAction `json:"boot_action"`
	Contested  bool       `json:"contested,omitempty"`
	Hardware   *Hardware  `json:"hardware,omitempty"` // of its last hello; not in lists
	Facts      *Facts     `json:"facts,omitempty"`    // of its last heartbeat
	Rescue     *Rescue    `json:"rescue,omitempty"`   // as of its last heartbeat

	MACs    []string          `json:"macs,omitempty"`
	IP      string            `json:"ip,omitempty"`
	Serial  string            `json:"serial,omitempty"`
	Profile string            `json:"profile,omitempty"`
	Groups  []string          `json:"groups,omitempty"`
	Attrs   map[string]string `json:"attrs,omitempty"`

	Protected bool   `json:"protected,omitempty"`
	Revision  uint64 `json:"revision"`
}

// Deadline is the stage that a node must reach next, and by when. Since is when the wait for it began: what comes in
// between may move At, and does not move Since.
type Deadline struct {
	Stage string    `json:"stage"`
	Since time.Time `json:"since,omitzero"`
	At    time.Time `json:"at"`
	// MovedMS is by how much At was moved because the collector was down, in milliseconds.
	MovedMS int64 `json:"moved_ms,omitempty"`
	// Usual is how long the same took in the last installs of the profile, if there were some.
	Usual *Usual `json:"usual,omitempty"`
}

// Usual is how long a wait usually is. From SlowAt on this one is far longer; that is a hint, and fails nothing.
type Usual struct {
	MedianMS int64     `json:"median_ms"`
	P90MS    int64     `json:"p90_ms"` // nine of ten took no longer
	Installs int       `json:"installs"`
	SlowAt   time.Time `json:"slow_at,omitzero"`
}

// Stuck is what is known of an install that came no further.
type Stuck struct {
	Stage      string    `json:"stage"` // that did not come
	Since      time.Time `json:"since,omitzero"`
	Last       string    `json:"last,omitempty"` // the last that did, when, and who told
	LastAt     time.Time `json:"last_at,omitzero"`
	LastSource Source    `json:"last_source,omitempty"`
	Likely     []string  `json:"likely"` // the likely causes, in the order in which to look
}

// Cause is why an install failed: the first cause; what came after it is its consequence.
type Cause struct {
	Kind       CauseKind `json:"kind"`
	Name       string    `json:"name,omitempty"` // of the step, or the stage
	Phase      Phase     `json:"phase,omitempty"`
	Exit       int       `json:"exit"`
	Signal     string    `json:"signal,omitempty"`
	DurationMS int64     `json:"duration_ms,omitempty"`
	Try        int       `json:"try,omitempty"`
	Message    string    `json:"message,omitempty"`
	Tail       []string  `json:"tail,omitempty"`
	Log        string    `json:"log,omitempty"`
	Source     Source    `json:"source"`
	Count      int       `json:"count,omitempty"` // for kind loop: boots of the installer, with the one that was refused
	At         time.Time `json:"at,omitzero"`
}

// Summary is the cause in the form failed(STEP=RC), failed(STEP=timeout), failed(KIND).
func (c *Cause) Summary() string {
	switch c.Kind {
	case CauseStep:
		return fmt.Sprintf("failed(%s=%d)", c.Name, c.Exit)
	case CauseTimeout, CausePreflight:
		return fmt.Sprintf("failed(%s=%s)", c.Name, c.Kind)
	case CauseSignal:
		return fmt.Sprintf("failed(%s=%s)", c.Name, c.Signal)
	case CauseLoop:
		return fmt.Sprintf("failed(loop=%d)", c.Count)
	default:
		return fmt.Sprintf("failed(%s)", c.Kind)
	}
}

// InstallOrder is the body of POST /v1/nodes/{nodes}/install, where {nodes} is a node set.
type InstallOrder struct {
	Profile  string    `json:"profile,omitempty"` // the nodes' own if empty
	Label    string    `json:"label,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Within   *Duration `json:"within,omitempty"`    // for a sign of life; 15m
	NextBoot bool      `json:"next_boot,omitempty"` // no limit for it
	Nodes    string    `json:"nodes,omitempty"`     // see SetInBody
}

// NodeOrder is the body of POST /v1/nodes/{nodes}/{verb} and of …/boot.
type NodeOrder struct {
	Step     string     `json:"step,omitempty"`
	Action   BootAction `json:"action,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	SamePlan bool       `json:"same_plan,omitempty"` // of retry: it goes on with the plan that it has
	Nodes    string     `json:"nodes,omitempty"`     // see SetInBody
}

// KeyHeader is the header of an order with the key that its client made for it
// (https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header-07): under one key it is given once, however
// often it comes.
const KeyHeader = "Idempotency-Key"

// MaxKey is the length of such a key, in bytes.
const MaxKey = 128

// Removal is the body of DELETE /v1/nodes/{nodes}.
type Removal struct {
	Reason string `json:"reason,omitempty"`
	Nodes  string `json:"nodes,omitempty"` // see SetInBody
}

// SetInBody stands for {nodes} in the path of an order whose node set is in its body: one that does not fold may be too long for
// a path.
const SetInBody = "-"

// MaxSetInPath is the length of a node set, in bytes, up to which it goes into a path or query.
const MaxSetInPath = 4 << 10

// Install is one order to install one node: an element of GET /v1/nodes/{node}/installs.
type Install struct {
	Schema   int        `json:"schema"`
	ID       string     `json:"id"`
	Node     string     `json:"node"`
	Ordinal  uint64     `json:"ordinal"`
	Attempt  int        `json:"attempt"`
	Profile  string     `json:"profile"`
	Boot     string     `json:"boot,omitempty"` // "external": the site's own servers boot the node, and not the collector's
	Label    string     `json:"label,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Actor    string     `json:"actor,omitempty"`
	Ordered  time.Time  `json:"ordered"`
	Status   Status     `json:"status"`
	Summary  string     `json:"summary"`
	Cause    *Cause     `json:"cause,omitempty"`
	Warnings []string   `json:"warnings,omitempty"`
	Steps    []StepInfo `json:"steps,omitempty"`
	Logs     []LogInfo  `json:"logs,omitempty"`
}

// StepInfo is how far a step of an install's plan has come. Outcome is empty while it runs, and Try is 0 before.
type StepInfo struct {
	Name       string    `json:"name"`
	Phase      Phase     `json:"phase"`
	Try        int       `json:"try,omitempty"`
	Outcome    Outcome   `json:"outcome,omitempty"`
	Exit       int       `json:"exit,omitempty"`
	Signal     string    `json:"signal,omitempty"`
	DurationMS int64     `json:"duration_ms,omitempty"`
	At         time.Time `json:"at,omitzero"`
}

// LogInfo is one log of an install on the frontend.
type LogInfo struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// NodeList is every answer that holds nodes.
type NodeList struct {
	Schema   int      `json:"schema"`
	Revision uint64   `json:"revision"`
	Cursor   string   `json:"cursor"`             // where the feed goes on from here: see Cursor
	Warnings []string `json:"warnings,omitempty"` // of the frontend itself
	Blind    []string `json:"blind,omitempty"`    // logs of the frontend that cannot be read now: what they would say is missing
	// PlanChanges, of the answer to a retry, is what is new in the plans that it brought; none without a new plan.
	PlanChanges []PlanChange `json:"plan_changes,omitempty"`
	Nodes       []Node       `json:"nodes"`
}

// Selection is the body of POST /v1/status, which is GET of it for a node set that is too long for a query.
type Selection struct {
	Nodes string `json:"nodes,omitempty"`
	Label string `json:"label,omitempty"`
}

// EventList is GET /v1/nodes/{node}/installs/{id}/events: every event of the install, by time.
type EventList struct {
	Schema  int     `json:"schema"`
	Install Install `json:"install"`
	Events  []Event `json:"events"`
}
