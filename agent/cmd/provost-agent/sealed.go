// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"provost/agent/internal/host"
	"provost/agent/internal/journal"
	"provost/proto"
)

// errSealed ends a phase that must not run: the machine is to boot what was installed.
var errSealed = errors.New("this install is done already")

// sealedOnDisk looks, without writing to any of them, whether one of the disks holds the journal of this install with its
// seal. Then the machine came back to the installer since the collector never heard of the seal.
func (a *agent) sealedOnDisk(install string) (device string, err error) {
	return a.host.EachDisk(string(a.dir), func(root string) bool {
		journals, err := filepath.Glob(filepath.Join(root, stateInstalled, "journal*"))
		if err != nil {
			return false
		}
		for _, dir := range journals {
			if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
				continue // no link leads out of the disk
			}
			for r, err := range journal.Scan(dir) {
				if err == nil && r.Event.Kind == proto.KindSealed && r.Event.Install == install {
					return true
				}
			}
		}
		return false
	})
}

// backToDisk says again that the install is sealed, waits for the acknowledgement at most as long as after an install, and
// restarts the machine.
func (a *agent) backToDisk(ctx context.Context, p planIs, device string) error {
	why := fmt.Sprintf("%s holds this install, sealed: the installer does not run again, the machine goes back to its disk", device)
	a.say(why)
	a.consoles.Say("provost: " + why)
	if _, err := a.journal.Append(proto.Event{Kind: proto.KindNote, Message: why, Warning: true}); err != nil {
		a.say(err.Error())
	}
	wait := proto.DefaultSealWait
	if d := p.SealWait.D(); d > 0 {
		wait = d
	}
	if seq, err := a.sealed(ctx, wait); err != nil {
		a.say(err.Error())
	} else {
		a.awaitSeal(ctx, seq, wait)
	}
	return errors.Join(errSealed, host.Reboot(ctx))
}
