// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"provost/proto"
)

// Sent is how far the collector has acknowledged, for other processes to see, and for the next sender as a hint: what
// counts is the collector's word.
type Sent struct {
	Journal    string            `json:"journal"`
	Next       uint64            `json:"next"`           // first record of Journal that is not acknowledged
	Past       map[string]uint64 `json:"past,omitempty"` // the same of earlier journals
	Logs       map[string]int64  `json:"logs,omitempty"` // bytes acknowledged of each log
	BootAction proto.BootAction  `json:"boot_action,omitempty"`
	Trouble    string            `json:"trouble,omitempty"` // what is wrong at the moment, for people
	Stuck      Stuck             `json:"stuck,omitempty"`   // what is missing before the first step can run
	At         time.Time         `json:"at"`
}

// Stuck says what the sender is still about before a plan can be run.
type Stuck string

// What may be missing.
const (
	StuckHello   Stuck = "hello"   // no collector has answered well
	StuckPlan    Stuck = "plan"    // it has, but with no plan that may be run
	StuckScripts Stuck = "scripts" // the plan is good, scripts are missing
)

// Sent reads what the sender last wrote; the zero value if there is nothing to be read.
func (d Dir) Sent() Sent {
	var s Sent
	if d.readJSON(fileSent, &s) != nil {
		return Sent{}
	}
	return s
}

// setSent is not flushed to the disk: it is only a hint, and comes often. On a full disk it goes over the old one, whose space
// it has: whoever waits for a delivery goes by it. A reader that comes in between finds nothing legible, and asks again.
func (d Dir) setSent(s Sent) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", fileSent, err)
	}
	tmp := d.Path("." + fileSent)
	err = os.WriteFile(tmp, b, 0o600)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		os.Remove(tmp)
		return d.overwriteSent(b)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", fileSent, err)
	}
	return os.Rename(tmp, d.Path(fileSent))
}

func (d Dir) overwriteSent(b []byte) error {
	f, err := os.OpenFile(d.Path(fileSent), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("writing %s: %w", fileSent, err)
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("writing %s: %w", fileSent, err)
	}
	return f.Truncate(int64(len(b)))
}
