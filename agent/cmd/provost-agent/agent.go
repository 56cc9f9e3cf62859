// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"provost/agent/internal/host"
	"provost/agent/internal/journal"
	"provost/agent/internal/proc"
	"provost/agent/internal/report"
	steps "provost/agent/internal/run"
	"provost/postscripts"
	"provost/proto"
)

// Where the state directory is unless --state says otherwise.
const (
	stateInstaller = "/run/provost"
	stateInstalled = "/var/lib/provost"
)

// programName is what the agent's copy in the state directory's bin is called.
const programName = "provost-agent"

// common are the options that most commands have.
type common struct {
	state, urls, node, tokenFile, joinKeyFile, ca string
	diskWait                                      time.Duration // for the state directory's disk; the constant if 0
}

func (c *common) stateFlag(f *flag.FlagSet) {
	f.StringVar(&c.state, "state", "", "state `DIR` (default /run/provost, on an installed system /var/lib/provost)")
}

func (c *common) flags(f *flag.FlagSet) {
	c.stateFlag(f)
	f.StringVar(&c.urls, "url", "", "collector's `URL[,URL…]`, https://ADDRESS:8440, tried in turn")
	f.StringVar(&c.node, "node", "", "this machine's `NAME`; the collector must agree")
	f.StringVar(&c.tokenFile, "token-file", "", "`FILE` with the agent's token")
	f.StringVar(&c.joinKeyFile, "join-key-file", "", "`FILE` with the site's join key, for machines that Provost did not boot")
	f.StringVar(&c.ca, "ca", "", "`FILE|sha256:HEX`: the collector's CA; nothing is sent to anybody else")
}

// dir is the state directory.
func (c *common) dir() report.Dir {
	if c.state != "" {
		return report.Dir(absolute(c.state))
	}
	if !exists(filepath.Join(stateInstaller, "journal")) && exists(filepath.Join(stateInstalled, "journal")) {
		return stateInstalled
	}
	return stateInstaller
}

const (
	// beginWait bounds what a command waits for the disk of its state directory until it can begin: as long as a step waits for its
	// files, and longer than the journal for its disk and for other processes (lockWait, diskWait, startWait).
	beginWait = 2 * time.Minute
	// askWait is the same for a command that somebody types, and that only writes or reads a file there.
	askWait = 30 * time.Second
)

// onState does f, which uses the state directory, and waits for it at most wait. A disk that does not answer holds f for as long as
// the kernel does; what it changes must be read by nobody then, and the command is over.
func (c *common) onState(wait time.Duration, f func() error) error {
	wait = cmp.Or(c.diskWait, wait)
	var err error
	if !proc.Within(wait, func() { err = f() }) {
		return fmt.Errorf("the disk of the state directory (%s) does not answer within %s: see the kernel's log, dmesg",
			cmp.Or(c.state, stateInstaller+" or "+stateInstalled), wait)
	}
	return err
}

// absolute keeps a path's meaning when the directory changes.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// agent is a process at work on a state directory.
type agent struct {
	*streams
	host     host.Host
	env      string // proto.EnvInstaller or EnvInstalled
	boot     string
	dir      report.Dir
	settings host.Settings
	joinKey  string
	journal  *journal.Journal
	past     []report.Records
	log      *slog.Logger
	consoles *host.Consoles
	own      bool // this process is the sender
	closers  []func()
}

// open opens the state directory's journal, in whose boot it notes the agent's start, and reads the settings: flags over
// kernel command line over file over what an earlier process found out. The caller closes it.
func (c *common) open(s *streams, env string) (*agent, error) {
	var a *agent // of a disk that answers too late, for nobody
	if err := c.onState(beginWait, func() (err error) {
		a, err = c.begin(s, env)
		return err
	}); err != nil {
		return nil, err
	}
	return a, nil
}

// begin is open without a bound.
func (c *common) begin(s *streams, env string) (_ *agent, err error) {
	a := &agent{streams: s, env: env, dir: c.dir(), log: slog.New(slog.DiscardHandler)}
	if a.dir == stateInstalled {
		a.env = proto.EnvInstalled
	}
	a.consoles = a.host.Consoles()
	if a.boot, err = a.host.Boot(); err != nil {
		return nil, err
	}
	if err := a.dir.Make(); err != nil {
		return nil, config("give a directory that can be written, with --state DIR", err)
	}
	if err := a.configure(c); err != nil {
		return nil, err
	}
	id, err := a.identity()
	if err != nil {
		return nil, err
	}
	opts := journal.Options{LogDir: logDir(a.dir), Install: id.Install, MaxBytes: 512 << 20, Warn: a.warn}
	if mb := a.host.MemoryMB(); a.env != proto.EnvInstalled && mb > 0 {
		opts.MaxBytes = min(64<<20, int64(mb)<<20/20) // /run is memory
	} else if a.env != proto.EnvInstalled {
		opts.MaxBytes = 0
	}
	stamp := func() (time.Time, string, time.Duration) { return time.Now(), a.boot, host.SinceBoot() }
	if a.journal, err = journal.Open(string(a.dir), stamp, opts); err != nil {
		return nil, fmt.Errorf("opening the journal in %s: %w", a.dir, err)
	}
	a.closers = append(a.closers, func() {
		if err := a.journal.Close(); err != nil {
			a.tell("%v", err)
		}
	})
	if w, err := a.journal.Log(a.logName("agent")); err == nil {
		a.log = slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: a.level()})).With("pid", os.Getpid())
		a.closers = append(a.closers, func() { w.Close() })
	}
	past, err := a.journal.Past()
	if err != nil {
		a.say(err.Error())
	}
	for _, p := range past {
		a.past = append(a.past, p)
	}
	for _, d := range a.journal.Damage() {
		a.log.Warn("damage in the journal", "error", d)
	}
	if err := a.start(); err != nil {
		a.say(err.Error())
	}
	if err := a.writeLib(); err != nil {
		a.say(err.Error())
	}
	return a, nil
}

// logName is the name of a log that is no step's. On an installed system the file goes on from boot to boot; an installer begins
// with nothing, so each of its boots has a name of its own, which the first process chooses.
func (a *agent) logName(base string) string {
	if a.env == proto.EnvInstalled {
		return base + "-firstboot.log"
	}
	name := proto.BootLog(base, time.Now().Add(-host.SinceBoot()), a.boot)
	id := name[len(name)-len("-00000000.log"):]
	var names []string
	for _, l := range a.journal.Logs() {
		if strings.HasSuffix(l.Name, id) {
			names = append(names, l.Name)
		}
	}
	return cmp.Or(proto.LastBootLog(names, base), name)
}

func (a *agent) close() {
	for i := len(a.closers) - 1; i >= 0; i-- {
		a.closers[i]()
	}
}

func (a *agent) level() slog.Level {
	if a.settings.Debug {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// tell writes a line for whoever started this process, and does not wait until it is read.
func (a *agent) tell(format string, args ...any) {
	fmt.Fprintf(a.err, "provost-agent: %s\n", host.Printable(fmt.Sprintf(format, args...)))
}

// say is tell, and keeps the line in the agent's log.
func (a *agent) say(text string) {
	a.tell("%s", text)
	a.log.Warn(text)
}

// warn is say for the journal, which calls it in the middle of its own work. That may be a write to the agent's log on a full
// disk, so it must not wait for that log.
func (a *agent) warn(text string) {
	a.tell("%s", text)
	log := a.log
	go log.Warn(text)
}

// startWait bounds the wait for another process's note: longer than the journal waits for its disk.
const startWait = 40 * time.Second

// start notes the agent's start, once for each boot of a kernel, by whichever process is the first.
func (a *agent) start() error {
	lock, err := os.OpenFile(a.dir.Path("start.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("noting the agent's start: %w", err)
	}
	defer lock.Close()
	// held for one append: milliseconds, or what a disk takes that does not answer
	for end := time.Now().Add(startWait); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			return fmt.Errorf("noting the agent's start: waiting for another process that notes it, at most %s: %w", startWait, err)
		}
	}
	marker := a.dir.Path("boot")
	if b, err := os.ReadFile(marker); err == nil && strings.TrimSpace(string(b)) == a.boot {
		return nil
	}
	e := proto.Event{Kind: proto.KindAgentStart, Stage: "agent-started", Message: release()}
	if a.env == proto.EnvInstalled {
		e.Stage = "disk-booted"
	}
	if _, err := a.journal.Append(e); err != nil {
		a.say(err.Error())
	}
	if a.settings.Hold && a.env == proto.EnvInstaller {
		o := proto.Order{ID: proto.NewID(time.Now()), Verb: proto.VerbHold, Actor: "kernel command line", Reason: "provost.hold"}
		if err := steps.WriteOrder(string(a.dir), o); err != nil {
			a.say(err.Error())
		}
	}
	return a.dir.WriteFile("boot", []byte(a.boot+"\n"), 0o600)
}

// writeLib puts the shell library where steps find it.
func (a *agent) writeLib() error {
	return fs.WalkDir(postscripts.Lib, "lib", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := postscripts.Lib.ReadFile(path)
		if err != nil {
			return err
		}
		if old, err := os.ReadFile(a.dir.Path(path)); err == nil && string(old) == string(b) {
			return nil
		}
		return a.dir.WriteFile(path, b, 0o644)
	})
}
