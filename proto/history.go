// SPDX-License-Identifier: Apache-2.0

package proto

import "time"

// History is GET /v1/nodes/{node}/history: who ordered what of a node, the newest first. It is kept longer than installs
// and their events: the last MaxHistory entries of each node, for as long as the node is there; that it was removed stays.
type History struct {
	Schema  int            `json:"schema"`
	Node    string         `json:"node"`
	Entries []HistoryEntry `json:"entries"`
}

// MaxHistory bounds the entries of one node.
const MaxHistory = 1000

// HistoryEntry is one order of an operator that touched a node.
type HistoryEntry struct {
	At      time.Time `json:"at"`
	Order   string    `json:"order"` // install, a Verb, boot, add, set, rename, import, rm; moved, by the boot server
	Actor   string    `json:"actor,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Detail  string    `json:"detail,omitempty"` // of boot: the action; of set and import: what changed; of rename: the old name; of rm: what it was
	Step    string    `json:"step,omitempty"`
	Install string    `json:"install,omitempty"`
	Ordinal uint64    `json:"ordinal,omitempty"`
	Profile string    `json:"profile,omitempty"`
	Label   string    `json:"label,omitempty"`

	// Plan is the revision of the plan that the order brought, 0 if it brought none. Steps are those of that plan, if they
	// were asked for.
	Plan  int           `json:"plan,omitempty"`
	Steps []HistoryStep `json:"steps,omitempty"`

	Collector string `json:"collector,omitempty"` // version that took the order
	Client    string `json:"client,omitempty"`    // program that gave it, as it calls itself
}

// HistoryStep is a step of a plan, with the SHA-256 of its script.
type HistoryStep struct {
	Name   string `json:"name"`
	Phase  Phase  `json:"phase"`
	Digest string `json:"digest"`
}
