// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"provost/agent/internal/host"
	"provost/agent/internal/journal"
	"provost/proto"
)

// errSealed ends a phase that must not run: the machine is to boot what was installed.
var errSealed = errors.New("this install is done already")

func lookCommand() command {
	return command{
		name:    "look",
		summary: "go back to the disk if that has this install, sealed",
		help: `
For installers whose disks have no drivers yet when "run --phase pre" looks at
them: it looks once more, before the installer writes to any of them. If one has
this install's journal with its seal, it says so to the collector and restarts
the machine. It writes to no disk.

Examples:
  provost-agent look

Exit status: 0 the installer may go on, 1 the machine should boot its disk and
could not be restarted, 64 wrong usage.`,
		setup: func(f *flag.FlagSet, s *streams) func(context.Context, []string) error {
			var c common
			c.flags(f)
			return func(ctx context.Context, args []string) error {
				if len(args) > 0 {
					return usage("look: unexpected argument %q", args[0])
				}
				a, err := c.open(s, proto.EnvInstaller)
				if err != nil {
					a = &agent{streams: s} // the installer goes on all the same, as it would without an agent
					a.tell("looking at the disks: %v", err)
					return nil
				}
				defer a.close()
				if a.installsNothing() {
					return a.stay(ctx)
				}
				if _, err := a.background(ctx); err != nil {
					a.say(err.Error())
				}
				return a.unlessSealed(ctx)
			}
		},
	}
}

// unlessSealed is nil if the installer may go on: an install that the collector's boot script started, and that no disk has
// sealed.
func (a *agent) unlessSealed(ctx context.Context) error {
	id, err := a.dir.Identity()
	if err != nil || a.settings.Claim == "" {
		return nil
	}
	device, err := a.sealedOnDisk(id.Install)
	if err != nil {
		a.say(err.Error())
	}
	if device == "" {
		return nil
	}
	return a.backToDisk(ctx, device)
}

// places are where a state directory is below the root of a system, of its /var, or of its /var/lib.
var places = []string{stateInstalled, "lib/provost", "provost"}

// sealedOnDisk looks, without writing to any of them, whether one of the disks holds the journal of this install with its
// seal. Then the machine came back to the installer since the collector never heard of the seal.
func (a *agent) sealedOnDisk(install string) (device string, err error) {
	return a.host.EachDisk(string(a.dir), func(root string) bool {
		for _, place := range places {
			journals, err := filepath.Glob(filepath.Join(root, place, "journal*"))
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
		}
		return false
	})
}

// backToDisk says again that the install is sealed, waits for the acknowledgement at most as long as after an install, and
// restarts the machine.
func (a *agent) backToDisk(ctx context.Context, device string) error {
	why := fmt.Sprintf("%s holds this install, sealed: the installer does not run again, the machine goes back to its disk", device)
	a.say(why)
	a.consoles.Say("provost: " + why + "\n")
	if _, err := a.journal.Append(proto.Event{Kind: proto.KindNote, Message: why, Warning: true}); err != nil {
		a.say(err.Error())
	}
	wait := proto.DefaultSealWait
	if p, err := a.ready(); err == nil && p.SealWait.D() > 0 {
		wait = p.SealWait.D()
	}
	if seq, err := a.sealed(ctx, wait); err != nil {
		a.say(err.Error())
	} else {
		a.awaitSeal(ctx, seq, wait)
	}
	return errors.Join(errSealed, host.Reboot(ctx))
}

const (
	// lookFor is how long a boot that only looks goes on to: disks come when their drivers do. It begins anew behind a
	// switch_root.
	lookFor   = 5 * time.Minute
	lookEvery = 5 * time.Second // whether there are other disks than before

	fileLooked = "looked" // of the state directory: there is nothing on the disks
)

// look is what watch does in a boot with provost.look: the collector cannot know whether the attempt before, which was the
// last, came to its end. The disk has it, and the machine restarts; or it has not, and the install has failed for good.
func (a *agent) look(ctx context.Context, limit time.Duration) {
	if exists(a.dir.Path(fileLooked)) {
		return
	}
	had := ""
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(lookEvery) {
		if ctx.Err() != nil {
			return
		}
		if disks := a.host.Disks(); disks != had {
			had = disks
			if err := a.unlessSealed(ctx); err != nil {
				a.say(err.Error())
				return
			}
		}
	}
	why := &noPlan{proto.CauseLoop, fmt.Sprintf("the attempt before came to no end: in %s no disk was found that has this install, sealed", limit)}
	a.consoles.Say("provost: " + why.why + "\n")
	a.say(a.withoutPlan(ctx, proto.PhasePre, why).Error())
	if err := a.dir.WriteFile(fileLooked, nil, 0o600); err != nil {
		a.say(err.Error())
	}
	if p, err := a.ready(); err == nil && p.OnFailure == proto.OnFailurePoweroff {
		a.say(host.PowerOff(ctx).Error())
	}
}
