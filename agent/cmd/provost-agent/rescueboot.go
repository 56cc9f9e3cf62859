// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"provost/agent/internal/host"
	"provost/proto"
)

// staySaid is how often a machine that was booted to install nothing says so on its consoles.
const staySaid = time.Minute

// installsNothing reports whether this boot is for rescue, discovery, or a look at the disks.
func (a *agent) installsNothing() bool { return a.settings.Rescue || a.settings.Look }

// stay is what "run" does in such a boot: nothing, so that an installer which calls it before it touches a disk never goes
// on. No order ends it; the machine is switched off after as long as a hold may last, 24 hours.
func (a *agent) stay(ctx context.Context) error {
	text := "this boot is for rescue: no step is run, nothing is installed; reboot when you are done"
	if a.settings.Look {
		text = "this boot looks whether the disk has this install: no step is run, nothing is installed"
	}
	a.say(text)
	end, again := time.NewTimer(proto.DefaultHoldLimit), time.NewTicker(staySaid)
	defer end.Stop()
	defer again.Stop()
	for {
		a.consoles.Say("provost: " + text + "\n")
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return host.PowerOff(ctx)
		}
	}
}
