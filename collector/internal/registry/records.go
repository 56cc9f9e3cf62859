// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"maps"
	"slices"
	"time"

	"provost/collector/internal/answer"
	"provost/collector/internal/lifecycle"
	"provost/proto"
)

// nodeRecord is a value of bucket nodes. A record in memory is never changed, only replaced.
type nodeRecord struct {
	Spec       proto.NodeSpec   `json:"spec"`
	BootAction proto.BootAction `json:"boot_action"`
	Install    string           `json:"install,omitempty"` // the newest
	Ordinal    uint64           `json:"ordinal,omitempty"` // of the newest install
	Discovered bool             `json:"discovered,omitempty"`
	Unasked    bool             `json:"unasked,omitempty"`  // it was met, and no operator has said a word of it
	Identity   identity         `json:"identity,omitzero"`  // as the machine told it
	Hardware   *proto.Hardware  `json:"hardware,omitempty"` // of a discovered machine, as of its last hello; an install has its own
	Moved      string           `json:"moved,omitempty"`    // why the machine may be another one, until an operator changes the node
	History    uint64           `json:"history,omitempty"`  // entries that there ever were
	// Changes is what proto.Changes has in Done. The map is never changed, only replaced.
	Changes  map[string]string `json:"changes,omitempty"`
	Changed  time.Time         `json:"changed"`
	Revision uint64            `json:"revision"`
}

// node is a nodeRecord with what is known of it beside. It is never changed, only replaced.
type node struct {
	nodeRecord
	installs []string // by ordinal
	cell     *cell    // since it was published
}

// Recipe is what a profile says of an install, as it was when that was ordered. Many installs share one.
type Recipe struct {
	Profile   string             `json:"profile"`
	Kind      string             `json:"kind"` // disk | diskless
	Family    string             `json:"family"`
	Boot      string             `json:"boot"` // provost | external
	Attempts  int                `json:"attempts"`
	OnFailure proto.OnFailure    `json:"on_failure"`
	HoldLimit proto.Duration     `json:"hold_limit"`
	Deadline  proto.Duration     `json:"deadline"` // of the whole install; 0 is none
	Trust     []proto.Source     `json:"trust"`
	Sequence  lifecycle.Sequence `json:"sequence"`
	SealWait  proto.Duration     `json:"seal_wait"`
	Loader    string             `json:"loader,omitempty"` // as in a profile
	Kernel    string             `json:"kernel,omitempty"`
	Initrds   []string           `json:"initrds,omitempty"`
	LocalBoot string             `json:"local_boot,omitempty"`
	Args      string             `json:"args,omitempty"` // template of the kernel arguments
	Vars      map[string]string  `json:"vars,omitempty"`
	Answer    *answer.Recipe     `json:"answer,omitempty"` // it has secrets

	RescueKeys []string `json:"rescue_keys,omitempty"`
}

// installRecord is a value of bucket installs. A record in memory is never changed, only replaced.
type installRecord struct {
	ID       string         `json:"id"`
	Node     string         `json:"node"`
	Ordinal  uint64         `json:"ordinal"`
	Recipe   string         `json:"recipe"` // digest of the Recipe in bucket files
	Label    string         `json:"label,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Actor    string         `json:"actor,omitempty"`
	Ordered  time.Time      `json:"ordered"`
	Within   proto.Duration `json:"within,omitempty"`    // for a first sign of life; 0 is without limit
	StepList string         `json:"step_list,omitempty"` // digest of the Steps in bucket files
	Steps    []stepRef      `json:"steps,omitempty"`     // of the present plan; shared, never changed, and not in the value if StepList is
	Revision int            `json:"plan_revision"`
	Files    []string       `json:"files,omitempty"` // digests that its agent may fetch beside those of Steps

	Superseded bool                 `json:"superseded,omitempty"`
	Erased     bool                 `json:"erased,omitempty"` // its plan and its secrets are gone: it is over
	Attempt    int                  `json:"attempt,omitempty"`
	MAC        string               `json:"mac,omitempty"`         // of the card that asked last for the current attempt's boot script; empty: not known
	Allowed    int                  `json:"allowed"`               // attempts that may begin
	Looped     bool                 `json:"looped,omitempty"`      // and the node asked for one more
	Look       int                  `json:"look,omitempty"`        // the attempt that only looks at the disk, if there was one
	Again      int                  `json:"again,omitempty"`       // fetches of the current attempt's script by a boot loader that could not load its files
	Progressed bool                 `json:"progressed,omitempty"`  // the current attempt fetched its kernel or said hello
	Sent       []string             `json:"sent,omitempty"`        // stages of the boot server that the current attempt has had
	Bound      map[int]string       `json:"bound,omitempty"`       // attempt → the boot id that has its claim
	Boots      map[string]time.Time `json:"boots,omitempty"`       // boot id → when that kernel started, as first computed
	Began      time.Time            `json:"began,omitzero"`        // of the attempt, or the end of the last wait: deadlines count from it
	Waited     bool                 `json:"waited,omitempty"`      // for an operator, at any time
	Reboots    int                  `json:"reboots,omitempty"`     // announced ones of the current attempt's installer: they are no attempts
	MaxReboots int                  `json:"max_reboots,omitempty"` // as many as the plan's steps of phases pre and boot may ask for
	Rebooting  bool                 `json:"rebooting,omitempty"`   // one was announced, and no boot script was asked for since
	Contested  int                  `json:"contested,omitempty"`   // refused claims
	Unfinished []time.Time          `json:"unfinished,omitempty"`  // of a diskless node: this boot, and those in a row before it that came to no end
	Refused    int                  `json:"refused,omitempty"`     // records beyond what one install may have
	Passed     map[string]mark      `json:"passed,omitempty"`      // journal → how far it was passed over because of that
	Heard      *heard               `json:"heard,omitempty"`       // what the frontend's logs said of the current attempt; replaced, never changed
	Tokens     []agentToken         `json:"tokens,omitempty"`
	Orders     []pendingOrder       `json:"orders,omitempty"`   // not acknowledged yet, oldest first
	Hardware   *proto.Hardware      `json:"hardware,omitempty"` // as of the last hello that told
	Rescue     *proto.Rescue        `json:"rescue,omitempty"`   // as of the last heartbeat
}

type stepRef struct {
	Name   string      `json:"name"`
	Phase  proto.Phase `json:"phase"`
	Digest string      `json:"digest"`
}

type agentToken struct {
	Hash   string    `json:"hash"`
	Boot   string    `json:"boot"`
	Issued time.Time `json:"issued"`
}

// pendingOrder is an order without its plan, which is the install's present one if WithPlan.
type pendingOrder struct {
	proto.Order
	WithPlan bool      `json:"with_plan,omitempty"`
	Given    time.Time `json:"given,omitzero"`
}

// operatorToken is a value of bucket tokens.
type operatorToken struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Created time.Time `json:"created"`
}

// Bounds of what one install's record may hold: beyond, the oldest go.
const (
	maxTokens    = 8
	maxBoots     = 32
	maxContested = 16 // alarms written; further claims are refused without one
	maxOrders    = 16
	maxJournals  = 64 // an honest agent has one for each boot of the installer, and one for the installed system
	// maxObserved bounds the attempts of one install that only a join key shows: whoever has the key can make them up, and
	// each is kept. A node in a loop of ten minutes gets there in five hours, and was said to loop after its first.
	maxObserved = 32
	// TokenLife is how long an agent's token is good: a node may stay off for long between install and first boot.
	TokenLife = 30 * 24 * time.Hour
)

// clone gives a copy that may be changed.
func (r *installRecord) clone() *installRecord {
	c := *r
	c.Files, c.Sent = slices.Clone(r.Files), slices.Clone(r.Sent)
	c.Bound, c.Boots, c.Passed = maps.Clone(r.Bound), maps.Clone(r.Boots), maps.Clone(r.Passed)
	c.Tokens, c.Orders, c.Unfinished = slices.Clone(r.Tokens), slices.Clone(r.Orders), slices.Clone(r.Unfinished)
	return &c
}

// epoch gives when the kernel of a boot started, if that was ever computed.
func (r *installRecord) epoch(boot string) (time.Time, bool) {
	t, ok := r.Boots[boot]
	return t, ok
}

func (r *installRecord) learnBoot(boot string, started time.Time) {
	if _, ok := r.Boots[boot]; ok || len(r.Boots) >= maxBoots {
		return
	}
	if r.Boots == nil {
		r.Boots = map[string]time.Time{}
	}
	r.Boots[boot] = started
}

// mark is how far a journal has been taken.
type mark struct {
	Next uint64    `json:"next"` // wanted
	At   time.Time `json:"at"`   // of the record before it: the next one is not earlier
}
