// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"provost/agent/internal/host"
	"provost/proto"
)

// rescueSaid is how often a machine that was booted for rescue says so on its consoles.
const rescueSaid = time.Minute

// stayForRescue is what "run" does in a boot for rescue or discovery: nothing, so that an installer which calls it before it
// touches a disk never goes on. No order ends it; the machine is switched off after as long as a hold may last, 24 hours.
func (a *agent) stayForRescue(ctx context.Context) error {
	const text = "this boot is for rescue: no step is run, nothing is installed; reboot when you are done"
	a.say(text)
	end, again := time.NewTimer(proto.DefaultHoldLimit), time.NewTicker(rescueSaid)
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
