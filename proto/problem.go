// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"fmt"
	"slices"
)

// ProblemType is the media type of every refusal (RFC 9457).
const ProblemType = "application/problem+json"

// The codes of refusals. They are part of the protocol: programs act on them, people search for them.
const (
	CodeBadRequest     = "bad-request"     // 400: not JSON, a wrong field, a bad name
	CodeNoCredentials  = "no-credentials"  // 401
	CodeBadCredentials = "bad-credentials" // 401: unknown, expired, or another install's
	CodeForbidden      = "forbidden"       // 403: known, but not for this
	CodeNotFound       = "not-found"       // 404
	CodeUnknownNode    = "unknown-node"    // 404; of a hello 409: nobody has added this machine yet
	CodeUnknownProfile = "unknown-profile" // 404
	CodeBadMethod      = "bad-method"      // 405
	CodeExists         = "exists"          // 409: the name, or the MAC, is taken
	CodeConflict       = "conflict"        // 409: not in this state
	CodeNotOrdered     = "not-ordered"     // 409: the node is known, but no install of it is ordered
	CodeContested      = "contested"       // 409: this claim belongs to another boot, or its node is elsewhere
	CodeLogOffset      = "log-offset"      // 409: the chunk does not start at Offset
	CodeJournals       = "journals"        // 409: the install has as many journals as are taken
	CodeGone           = "gone"            // 410: the feed does not have what follows this cursor
	CodeTooLarge       = "too-large"       // 413
	CodeLogQuota       = "log-quota"       // 413: no room for logs now; events are still taken
	CodeBadProfile     = "bad-profile"     // 422: a profile, plan or sequence that makes no sense
	CodeKeyReused      = "key-reused"      // 422: the order's key stands for another order
	CodeTooMany        = "too-many"        // 429: more requests than an agent makes; come again after Retry-After
	CodeBusy           = "busy"            // 503: come again after Retry-After
	CodeStorage        = "storage"         // 503: not written; nothing of the request was taken
	CodeInternal       = "internal"        // 500: Incident finds the cause in the collector's log
)

var codes = []string{CodeBadRequest, CodeNoCredentials, CodeBadCredentials, CodeForbidden, CodeNotFound, CodeUnknownNode, CodeUnknownProfile, CodeBadMethod,
	CodeExists, CodeConflict, CodeNotOrdered, CodeContested, CodeLogOffset, CodeJournals, CodeGone, CodeTooLarge, CodeLogQuota, CodeBadProfile, CodeKeyReused, CodeTooMany, CodeBusy, CodeStorage, CodeInternal}

// KnownCode reports whether a code is one of this protocol's.
func KnownCode(code string) bool { return slices.Contains(codes, code) }

// Problem is a refusal: what happened, and what to do. It is an error.
type Problem struct {
	Type     string `json:"type,omitempty"`
	Title    string `json:"title,omitempty"`
	Status   int    `json:"status"`
	Code     string `json:"code"`
	Detail   string `json:"detail"`             // what happened, where
	Hint     string `json:"hint,omitempty"`     // what to do next
	Incident string `json:"incident,omitempty"` // for 5xx: grep for it in the collector's log
	Offset   int64  `json:"offset,omitempty"`   // with CodeLogOffset
}

func (p *Problem) Error() string {
	s := p.Detail
	if s == "" {
		s = fmt.Sprintf("%d %s", p.Status, p.Code)
	}
	if p.Incident != "" {
		s += " (incident " + p.Incident + ")"
	}
	return s
}

// NewProblem makes a refusal.
func NewProblem(status int, code, detail, hint string) *Problem {
	return &Problem{Type: "about:blank", Status: status, Code: code, Detail: detail, Hint: hint}
}
