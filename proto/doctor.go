// SPDX-License-Identifier: Apache-2.0

package proto

// Doctor is GET /v1/doctor: what the collector finds when it looks at itself and at what nodes need of it.
type Doctor struct {
	Schema  int     `json:"schema"`
	Version string  `json:"version"` // of the collector
	Checks  []Check `json:"checks"`
}

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // what to do or to type, unless State is CheckGood
}

// What was found.
const (
	CheckGood = "good"
	CheckWarn = "warn" // it works, and will not for ever, or not for everybody
	CheckBad  = "bad"
)
