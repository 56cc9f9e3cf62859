// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"provost/agent/internal/host"
	"provost/agent/internal/report"
	steps "provost/agent/internal/run"
	"provost/proto"
)

func watchCommand() command {
	return command{
		name: "watch", args: "[--detach|--unit]",
		summary: "say hello, fetch the plan, and report until the install is sealed",
		help: `
The one process that runs as long as the installer does. It delivers the journal
and the logs, sends heartbeats, and takes orders. It ends when the install is
sealed, or a node without a disk has booted, and everything is delivered. A
second watch on the same state directory waits for the first to end.

With --detach it copies itself to the state directory, goes on in the background
in a session of its own, and the command returns at once; when an initrd without
systemd gives way to another root, it follows there. With --unit it copies itself
and only writes /run/systemd/system/provost-agent.service, which is for an initrd
with systemd, to be started there; the system after the initrd starts it again.

Where the plan, or /etc/provost/rescue.pub in the initrd, has public keys it starts
"rescue", and again should that die.

Examples:
  provost-agent watch --detach
  provost-agent watch --url https://10.0.0.1:8440 --ca /etc/provost/ca.pem \
      --join-key-file /etc/provost/join

Exit status: 0 all is delivered (with --detach: it runs, with --unit: the unit is
there), 1 it could not begin, or was ended before that, 64 wrong usage, 78 a setting
is wrong or missing.`,
		setup: func(f *flag.FlagSet, s *streams) func(context.Context, []string) error {
			var c common
			c.flags(f)
			detach := f.Bool("detach", false, "go on in the background")
			listen := f.String("rescue-listen", rescueListen, "`ADDRESS` of the rescue shell, which is started where keys are given")
			unit := f.Bool("unit", false, "only write a systemd unit that starts it")
			return func(ctx context.Context, args []string) error {
				if len(args) > 0 {
					return usage("watch: unexpected argument %q", args[0])
				}
				switch {
				case *detach && *unit:
					return usage("watch: --detach or --unit, not both")
				case *detach:
					return detachWatch(c, *listen, s)
				case *unit:
					return unitWatch(c, *listen)
				}
				return doWatch(ctx, c, *listen, s)
			}
		},
	}
}

// detachWatch checks what can be checked while somebody reads our stderr, then starts the real one.
func detachWatch(c common, listen string, s *streams) (err error) {
	a, err := c.open(s, proto.EnvInstaller)
	if err != nil {
		return err
	}
	defer a.close()
	defer func() {
		if err != nil { // nobody watches: then at least somebody with a baked-in key can come and see why
			a.rescuer(listen).mind(time.Now())
		}
	}()
	release, err := a.dir.LockWatch()
	if errors.Is(err, report.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	release()
	if _, err := a.sender(func(string) {}); err != nil {
		return err
	}
	program, err := a.host.InstallProgram(a.dir.Path("bin"), programName)
	if err != nil {
		return err
	}
	if c, err = c.kept(); err != nil {
		return err
	}
	if _, err = host.Detach(program, c.watchArgs(listen), a.dir.Path("agent.out")); err != nil {
		return err
	}
	// 30 s: until somebody reports, so that the command that comes next finds it; a slow machine needs some
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if a.sending() {
			return nil
		}
	}
	return fmt.Errorf("the watch did not begin within 30 s: see %s", a.dir.Path("agent.out"))
}

// unitWatch prepares what systemd is to start.
func unitWatch(c common, listen string) error {
	dir := c.dir()
	if err := dir.Make(); err != nil {
		return config("give a directory that can be written, with --state DIR", err)
	}
	program, err := host.Host{}.InstallProgram(dir.Path("bin"), programName)
	if err != nil {
		return err
	}
	if c, err = c.kept(); err != nil {
		return err
	}
	return writeUnit(program, c.watchArgs(listen))
}

// The site's CA and join key as an initrd had them, in the state directory: the initrd's files vanish when the installer
// begins.
const (
	keptCA      = "site-ca.pem"
	keptJoinKey = "site-join-key"
)

// kept are these options with all that the settings say beside them, and files of the state directory in place of those of
// the initrd.
func (c common) kept() (common, error) {
	s, err := host.Host{}.Settings()
	if err != nil {
		return c, config("", err)
	}
	dir := c.dir()
	c.state = string(dir)
	c.urls = cmp.Or(c.urls, strings.Join(s.URLs, ","))
	c.node = cmp.Or(c.node, s.Node)
	c.ca = cmp.Or(c.ca, s.CA)
	c.joinKeyFile = cmp.Or(c.joinKeyFile, s.JoinKeyFile)
	for name, path := range map[string]*string{keptCA: &c.ca, keptJoinKey: &c.joinKeyFile} {
		if *path == "" || strings.HasPrefix(*path, "sha256:") {
			continue
		}
		b, err := readFile(*path, 1<<20)
		if err != nil {
			return c, config("", fmt.Errorf("keeping the settings: %w", err))
		}
		if err := dir.WriteFile(name, b, 0o600); err != nil {
			return c, err
		}
		*path = dir.Path(name)
	}
	return c, nil
}

// watchArgs are the arguments with which another process becomes the watch that these options ask for.
func (c common) watchArgs(listen string) []string {
	args := []string{"watch", "--state", c.state, "--rescue-listen", listen}
	for _, f := range []struct{ name, value string }{{"url", c.urls}, {"node", c.node}, {"join-key-file", c.joinKeyFile}, {"ca", c.ca}} {
		if f.value != "" {
			args = append(args, "--"+f.name, f.value)
		}
	}
	return args
}

// watched reports whether another process than this one reports.
func (a *agent) watched() bool { return a.dir.Locked() && !a.own }

// What watch has in memory the installer has not. So it grows by a tenth before it is collected, not by all of it, which costs the
// little that a watch computes; and it goes back to the kernel when the journal was quiet for quietAfter, and then each freeEvery.
// So do, once in each quiet time, the pages of the program that served to begin, or to deliver much.
const (
	watchGC    = 10
	quietAfter = 3 * time.Second
	freeEvery  = 10 * time.Second // 1 ms of work for some 1 MB that is in use
)

// After the seal the journal may get a last "rebooting"; watch stays for it this long.
const sealLinger = 5 * time.Second

func doWatch(ctx context.Context, c common, listen string, s *streams) error {
	a, err := c.open(s, proto.EnvInstaller)
	if err != nil {
		return err
	}
	defer a.close()
	if !a.reports() {
		return config("give --url and --ca (on the kernel command line provost.url= and provost.ca=)", errors.New("no collector is known"))
	}
	defer a.follow(ctx)()
	only, err := a.lock(ctx, a.dir.LockWatch, func() { a.tell("another watch runs already: waiting for it to end") })
	if err != nil {
		return err
	}
	defer only()
	ctx, cancel := context.WithCancel(ctx)
	minded := make(chan struct{})
	go func() { defer close(minded); a.rescuer(listen).run(ctx) }()
	defer func() {
		cancel()
		<-minded // it writes to the log; a start takes as long as a copy of the program
	}()
	release, err := a.lock(ctx, a.dir.Lock, func() {})
	if err != nil {
		return err
	}
	defer release()
	a.own = true
	snd, err := a.sender(func(text string) {
		a.tell("%s", text)
		a.consoles.Say("provost: " + text + "\n")
	})
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() { defer close(done); snd.Run(ctx) }()
	defer a.probe(ctx)()
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		if a.settings.Look {
			a.look(ctx, lookFor)
		}
	}()
	err = a.watch(ctx)
	cancel()
	<-done
	if err == nil {
		<-looked // which restarts the machine now that the seal is delivered; else a disk may keep it for minutes
	}
	return err
}

// errEnded is a watch's end before its work is done.
var errEnded = errors.New("the watch was told to end before everything was sealed and delivered")

// lock waits until another watch, or a run that reports by itself, has ended. That may take as long as a hold: the context
// is the bound. It says once that it waits.
func (a *agent) lock(ctx context.Context, take func() (func(), error), waits func()) (release func(), err error) {
	for {
		release, err = take()
		if !errors.Is(err, report.ErrBusy) {
			return release, err
		}
		waits()
		waits = func() {}
		select {
		case <-ctx.Done():
			return nil, errEnded
		case <-time.After(time.Second):
		}
	}
}

// watch looks after the journal until the install is sealed and all is delivered, or the context ends.
func (a *agent) watch(ctx context.Context) error {
	debug.SetGCPercent(watchGC)
	var seen uint64
	var sealed bool
	var idle time.Time
	quiet := time.Now().Add(quietAfter) // when memory is next given back
	forgotten := false
	for {
		select {
		case <-ctx.Done():
			return errEnded
		case <-time.After(time.Second):
		}
		a.mindRun(ctx)
		last, err := a.journal.Last()
		if err != nil {
			continue // the sender says it
		}
		if last != seen {
			idle = time.Now()
			quiet = idle.Add(quietAfter)
			forgotten = false
		}
		if time.Now().After(quiet) {
			debug.FreeOSMemory()
			if !forgotten {
				forgotten = true
				a.forgetProgram()
			}
			quiet = time.Now().Add(freeEvery)
		}
		for seen < last {
			records, err := a.journal.Read(seen+1, proto.MaxEvents, 1<<20)
			if err != nil || len(records) == 0 {
				break
			}
			for _, r := range records {
				seen = r.Seq
				switch r.Event.Kind {
				case proto.KindSealed:
					sealed = true
				case proto.KindRunEnd: // a node without a disk has booted: nothing more is to come
					sealed = sealed || r.Event.Phase == proto.PhaseBoot && r.Event.Outcome.Good()
				case proto.KindRunStart:
					sealed = false // somebody began anew
				}
			}
		}
		if sealed && time.Since(idle) > sealLinger && report.Delivered(a.dir, a.journal, a.past, last, a.journal.Logs()) {
			return nil
		}
	}
}

// forgetProgram gives back the program's own pages that served to begin.
func (a *agent) forgetProgram() {
	if err := host.ForgetProgram(); err != nil {
		a.log.Warn(err.Error())
	}
}

// follow goes after process 1 into the root that it has switched to, by becoming this same command there. In the old root
// the state directory is another one, or none, since /run was taken along. The returned function ends it.
func (a *agent) follow(ctx context.Context) (stop func()) {
	was, err := os.Stat(string(a.dir))
	if err != nil {
		a.say(err.Error())
		return func() {}
	}
	root, err := host.OpenNamespace()
	if err != nil {
		a.say(err.Error())
		return func() {}
	}
	ctx, stop = context.WithCancel(ctx)
	go func() {
		// 5 times a second: so long at most this process works in the old root, where it finds nothing
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		said := false
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if is, err := os.Stat(string(a.dir)); err == nil && os.SameFile(was, is) {
				continue
			}
			if err := root.Exec(a.dir.Path("bin/"+programName), os.Args[1:]); err != nil && !said {
				a.log.Warn(err.Error()) // and it is tried again: the new root may lack /run for a moment
				said = true
			}
		}
	}()
	return stop
}

// mindRun records the end of a run whose process died: nobody else can.
func (a *agent) mindRun(ctx context.Context) {
	died := func() (steps.State, bool) {
		s, err := steps.ReadState(string(a.dir))
		return s, err == nil && !s.Alive && !s.Done && s.Boot == a.boot
	}
	s, dead := died()
	if !dead {
		return
	}
	select { // it may have just begun, its lock not yet taken
	case <-ctx.Done():
		return
	case <-time.After(time.Second):
	}
	if again, dead := died(); !dead || again.PID != s.PID || !a.running(s.Phase) {
		return
	}
	e := proto.Event{
		Kind: proto.KindRunEnd, Phase: s.Phase, Step: s.Step, Try: s.Try, Outcome: proto.OutcomeInterrupted, Cause: proto.CauseAgent,
		Message: fmt.Sprintf("the agent's process %d, which ran the steps, has died", s.PID),
	}
	if _, err := a.journal.Append(e); err != nil {
		a.say(err.Error())
	}
}

// running reports whether the journal's last run of a phase in this boot has no end, or waits for orders after its end.
func (a *agent) running(phase proto.Phase) bool {
	open, held := false, false
	for r, err := range a.journal.Events() {
		if err != nil || r.Event.Phase != phase || r.Event.Boot != a.boot {
			continue
		}
		switch r.Event.Kind {
		case proto.KindRunStart:
			open, held = true, false
		case proto.KindRunEnd:
			open, held = false, false
		case proto.KindHold:
			held = r.Event.Outcome == ""
		case proto.KindOrder:
			held = held && (r.Event.Failed || r.Event.Order == string(proto.VerbForce))
		}
	}
	return open || held
}
