// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"provost/agent/internal/host"
	"provost/agent/internal/journal"
	"provost/agent/internal/probe"
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
func (c *common) open(s *streams, env string) (_ *agent, err error) {
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

// configure merges the settings.
func (a *agent) configure(c *common) error {
	s, err := a.host.Settings()
	if err != nil {
		a.tell("%v", err) // what could be understood counts
	}
	if c.urls != "" {
		s.URLs = host.SplitList(c.urls)
	}
	s.Node = cmp.Or(c.node, s.Node)
	s.CA = cmp.Or(c.ca, s.CA)
	s.JoinKeyFile = cmp.Or(c.joinKeyFile, s.JoinKeyFile)
	if s.Node != "" {
		if err := proto.CheckNode(s.Node); err != nil {
			return config("", err)
		}
	}
	if c.tokenFile != "" {
		token, err := secret("token", c.tokenFile)
		if err != nil {
			return err
		}
		if token != a.dir.Token() {
			if err := a.dir.SetToken(token); err != nil {
				return err
			}
		}
	}
	if s.JoinKeyFile != "" && s.Claim == "" {
		if a.joinKey, err = secret("join key", s.JoinKeyFile); err != nil {
			return err
		}
	}
	if s.Rescue && s.Node != "" {
		s.URLs = nil // it speaks for no install, and must not be taken for an attempt; an unknown machine may say that it is there
	}
	a.settings = s
	return nil
}

// secret reads a secret's file. What it holds never becomes part of a message.
func secret(what, file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", config("", fmt.Errorf("reading the %s: %w", what, err))
	}
	v := strings.TrimSpace(string(b))
	if v == "" || len(v) > 128 || strings.ContainsAny(v, " \t\r\n") {
		return "", config("", fmt.Errorf("reading the %s: %s must hold one word of at most 128 bytes", what, file))
	}
	return v, nil
}

// identity reads who this is, or makes a provisional one that lasts until a collector knows better.
func (a *agent) identity() (report.Identity, error) {
	id, err := a.dir.Identity()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			a.tell("%v: it is made anew", err)
		}
		id = report.Identity{Node: a.settings.Node, Install: a.settings.Install}
		if !proto.ValidID(id.Install) {
			id.Install = proto.NewID(time.Now())
		}
		if err := a.dir.SetIdentity(id); err != nil {
			return id, err
		}
	}
	if len(a.settings.URLs) == 0 {
		a.settings.URLs = id.URLs
	}
	if urls := a.nextServers(); len(urls) > 0 {
		a.settings.URLs, id.URLs = urls, urls // kept: the DHCP client's file may be gone with the initrd
		a.tell("no collector is named: asking the DHCP next server, %s", strings.Join(urls, ", "))
		return id, a.dir.SetIdentity(id)
	}
	return id, nil
}

// collectorPort is the port that a collector listens on unless its settings say otherwise.
const collectorPort = 8440

// nextServers gives the URLs to try where none is known. Without a pin nothing would be sent to them, and without a proof
// nothing would come of it: such a machine has no collector.
func (a *agent) nextServers() []string {
	s := a.settings
	if len(s.URLs) > 0 || s.Rescue || a.env != proto.EnvInstaller || s.CA == "" && !exists(a.dir.CAFile()) || s.Claim == "" && a.joinKey == "" && a.dir.Token() == "" {
		return nil
	}
	var urls []string
	for _, addr := range a.host.NextServers() {
		urls = append(urls, "https://"+netip.AddrPortFrom(addr, collectorPort).String())
	}
	return urls
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

// reports says whether there is anybody to report to.
func (a *agent) reports() bool { return len(a.settings.URLs) > 0 }

// sender makes the sender of this process; it does not start it. Said lines also go to show.
func (a *agent) sender(show func(string)) (*report.Sender, error) {
	s := a.settings
	c := report.Config{
		Dir: a.dir, Journal: a.journal, Past: a.past, URLs: s.URLs, CA: s.CA, Node: s.Node,
		Hello: func() proto.Hello {
			id, _ := a.dir.Identity()
			return proto.Hello{
				Version: release(), Env: a.env, Node: cmp.Or(s.Node, id.Node), Install: id.Install, Claim: s.Claim, JoinKey: a.joinKey,
				MACs: a.host.MACs(), Serial: a.host.Serial(), UUID: a.host.UUID(), Hardware: a.host.Hardware(),
			}
		},
		Clock: func() proto.Clock {
			return proto.Clock{Boot: a.boot, OffsetMS: host.SinceBoot().Milliseconds(), Time: time.Now()}
		},
		Beat:  a.beat,
		Facts: a.facts(),
		Take: func(o proto.Order) error {
			a.log.Info("order", "verb", string(o.Verb), "step", o.Step, "id", o.ID, "actor", o.Actor)
			return steps.WriteOrder(string(a.dir), o)
		},
		Taken: a.knows,
		Say:   func(text string) { a.log.Warn(text); show(text) },
		Met: func(h proto.HelloAnswer) {
			a.log.Info("the collector answered", "node", h.Node, "install", h.Install, "attempt", h.Attempt, "boot_action", string(h.BootAction))
		},
	}
	if s.Claim != "" {
		c.Order = s.Install
	}
	if a.dir.Token() == "" && s.Claim == "" && a.joinKey == "" {
		return nil, config("boot with provost.claim=, or give --token-file or --join-key-file", errors.New("there is nothing to prove to the collector who this machine is"))
	}
	snd, err := report.New(c)
	if err != nil {
		return nil, config("", err)
	}
	return snd, nil
}

// beat is what a heartbeat says of the run that goes on.
func (a *agent) beat() proto.Heartbeat {
	h := proto.Heartbeat{Rescue: a.dir.Rescue()}
	if s, err := steps.ReadState(string(a.dir)); err == nil && s.Alive && !s.Done {
		h.Phase, h.Step, h.Waiting, h.Progress, h.Message = s.Phase, s.Step, s.Waiting, s.Progress, s.Message
	}
	return h
}

// factsLimit bounds a look at the machine: the target's file system may hang.
const factsLimit = time.Second

// facts gives what looks at the machine. A look that hangs is not begun twice, and gives nothing.
func (a *agent) facts() func() *proto.Facts {
	looked := make(chan proto.Facts, 1)
	busy := false
	return func() *proto.Facts {
		if !busy {
			busy = true
			go func() { looked <- a.host.Facts(string(a.dir), a.target()) }()
		}
		select {
		case f := <-looked:
			busy = false
			return &f
		case <-time.After(factsLimit):
			return nil
		}
	}
}

// target is where the system that is being installed is mounted, "" while it is not.
func (a *agent) target() string {
	if a.env == proto.EnvInstalled {
		return "/"
	}
	if root := a.journal.Mirror(); root != "" {
		return root
	}
	mounts := a.host.Mounts()
	for _, t := range probe.Targets() {
		if slices.Contains(mounts, t) {
			return t
		}
	}
	return ""
}

// knows reports whether the journal acknowledges an order already.
func (a *agent) knows(orderID string) bool {
	for r, err := range a.journal.Events() {
		if err == nil && r.Event.Kind == proto.KindOrder && r.Event.OrderID == orderID {
			return true
		}
	}
	return false
}

// background sends in the background until close, or the returned function, ends it; if there is a collector and no
// other process sends.
func (a *agent) background(ctx context.Context) (stop func(), err error) {
	none := func() {}
	if !a.reports() {
		return none, nil
	}
	release, err := a.dir.Lock()
	if errors.Is(err, report.ErrBusy) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	s, err := a.sender(func(text string) { a.tell("%s", text) })
	if err != nil {
		release()
		return none, err
	}
	a.own = true
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // a flush comes after the signal to end
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done // each request ends with its context
		a.own = false
		release()
	})
	a.closers = append(a.closers, stop)
	return stop, nil
}

// sending reports whether some process, maybe this one, tries to deliver.
func (a *agent) sending() bool { return a.dir.Locked() }

// sendEvery is how often a run looks whether anybody sends.
const sendEvery = 5 * time.Second

// keepSending has this process send as soon as nobody else does: the watch of this directory may die under a run, and then nobody
// would hear of it, nor could anybody give it an order. The returned function ends the look, not the sending.
func (a *agent) keepSending(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(sendEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			a.ensureSending(ctx)
		}
	}()
	return func() { cancel(); <-done }
}

// ensureSending begins to send if nobody does. Why it cannot was said when the command began.
func (a *agent) ensureSending(ctx context.Context) {
	if !a.sending() {
		if _, err := a.background(ctx); err != nil {
			a.log.Warn(err.Error())
		}
	}
}

// flush waits until all is delivered, at most for the time given, and says so if it was not. Logs are waited for if they are
// asked for, or nobody else sends them later.
func (a *agent) flush(ctx context.Context, limit time.Duration, logs bool) bool {
	a.ensureSending(ctx)
	if !a.sending() {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := report.Flush(ctx, a.dir, a.journal, a.past, logs || a.own); err != nil {
		a.tell("not everything is delivered after %s%s; the journal keeps it", limit, because(a.dir.Sent().Trouble))
		return false
	}
	return true
}

func because(trouble string) string {
	if trouble == "" {
		return ""
	}
	return " (" + trouble + ")"
}
