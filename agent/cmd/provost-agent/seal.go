// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"time"

	"provost/agent/internal/report"
	steps "provost/agent/internal/run"
	"provost/proto"
)

func sealCommand() command {
	return command{
		name: "seal", args: "[--root DIR]",
		summary: "record that the installer is done, and let the disk boot",
		help: `
The last thing before the target is unmounted and the machine reboots. It writes
"sealed" to the journal, also in the target, and waits until the collector has
acknowledged it: then the next boot is from the disk. It waits at most as long as
the plan's seal-wait (15 minutes). What is not acknowledged then is delivered by
the installed system, so the exit status is 0 all the same. A disk that does not
take the record is tried again for as long; then nothing is sealed, and the next
boot is the installer's again.

Examples:
  provost-agent seal --root /target

Exit status: 0 sealed, 1 not sealed, 64 wrong usage.`,
		setup: func(f *flag.FlagSet, s *streams) func(context.Context, []string) error {
			var c common
			c.flags(f)
			root := f.String("root", "", "`DIR` where the target is mounted")
			return func(ctx context.Context, args []string) error {
				if len(args) > 0 {
					return usage("seal: unexpected argument %q", args[0])
				}
				if *root != "" && !filepath.IsAbs(*root) {
					return usage("seal: --root %q is no absolute path", *root)
				}
				if err := doSeal(ctx, c, s, *root); err != nil {
					return fmt.Errorf("not sealed: %w", err)
				}
				return nil
			}
		},
	}
}

func doSeal(ctx context.Context, c common, s *streams, root string) error {
	a, err := c.open(s, proto.EnvInstaller)
	if err != nil {
		return err
	}
	defer a.close()
	wait := proto.DefaultSealWait
	install := ""
	if p, err := a.ready(); err == nil {
		install = p.Install
		if d := p.SealWait.D(); d > 0 {
			wait = d
		}
	} else if id, err := a.dir.Identity(); err == nil {
		install = id.Install
	}
	if root != "" {
		if err := steps.CheckRoot(root); err != nil {
			a.say(err.Error() + ": the target gets no copy of the journal")
			root = ""
		} else if err := a.journal.SetMirror(root, install); err != nil {
			a.say(err.Error())
		}
	}
	seq, err := a.sealed(ctx, wait)
	if err != nil {
		return err
	}
	if _, err := a.background(ctx); err != nil {
		a.say(err.Error())
	}
	if root != "" {
		if err := a.mirrorState(root, install); err != nil {
			a.say(err.Error())
		}
	}
	a.awaitSeal(ctx, seq, wait)
	if root == "" {
		return nil
	}
	if err := a.mirrorState(root, install); err != nil {
		a.say(err.Error())
	}
	return a.journal.SetMirror("", "")
}

// sealed writes the record, unless the journal ends with one: the command may be repeated. A disk that does not take it is tried
// again each second, at most until limit. It gives the number whose acknowledgement is the seal's.
func (a *agent) sealed(ctx context.Context, limit time.Duration) (uint64, error) {
	if last, err := a.journal.Last(); err == nil && last > 0 {
		if r, err := a.journal.Read(last, 1, 1); err == nil && len(r) == 1 && r[0].Event.Kind == proto.KindSealed {
			return last, nil
		}
	}
	e, err := a.journal.Append(proto.Event{Kind: proto.KindSealed, Stage: "sealed"})
	if err == nil {
		return e.Seq, nil
	}
	a.say(err.Error())
	if e.Seq != 0 { // it is written, and may not outlive a power cut: the acknowledgement counts
		return e.Seq, nil
	}
	for end := time.Now().Add(limit); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(time.Second):
		}
		if err = a.journal.Retry(); err == nil {
			return a.journal.Last()
		}
	}
	return 0, err
}

// awaitSeal waits for the acknowledgement of the record seq, at most limit, and for the logs half a minute more.
func (a *agent) awaitSeal(ctx context.Context, seq uint64, limit time.Duration) {
	a.ensureSending(ctx)
	if !a.sending() {
		a.tell("sealed; nobody delivers it here: the installed system does")
		return
	}
	logs := a.journal.Logs()
	began, said := time.Now(), time.Now()
	for !report.Delivered(a.dir, a.journal, nil, seq, nil) {
		if time.Since(began) >= limit || ctx.Err() != nil {
			a.say("sealed, but not acknowledged within " + limit.String() + because(a.dir.Sent().Trouble) +
				": the next boot may be the installer's again; the installed system delivers it")
			return
		}
		a.ensureSending(ctx) // the watch may die meanwhile
		if time.Since(said) >= sayEvery {
			said = time.Now()
			a.tell("waiting for the collector to acknowledge the seal, %s of %s%s", time.Since(began).Round(time.Second), limit, because(a.dir.Sent().Trouble))
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	rest := time.Now().Add(min(flushWait, limit))
	for !report.Delivered(a.dir, a.journal, a.past, seq, logs) && time.Now().Before(rest) && ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond)
	}
	a.tell("sealed; the boot action is %s", a.dir.Sent().BootAction)
}
