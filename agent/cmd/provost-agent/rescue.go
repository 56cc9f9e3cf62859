// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"provost/agent/internal/host"
	"provost/agent/internal/report"
	"provost/agent/internal/rescue"
	"provost/proto"
)

const (
	// rescueListen is the port that nothing else of an installer has.
	rescueListen = ":2200"
	// rescueKeys is where a site bakes its administrators' keys in.
	rescueKeys = "/etc/provost/rescue.pub"
	// rescueHostKey is the state file with the host's key.
	rescueHostKey = "rescue_host_key"
	// rescueKept is the state file with a copy of the baked-in keys.
	rescueKept = "rescue.pub"
	// rescueOutput is the state file with what a rescue shell says that watch has started.
	rescueOutput = "rescue.out"
)

// rescueWords are the commands of a rescue shell that are the agent's own.
var rescueWords = []string{"status", "log", "retry", "skip", "release", "hold", "abort", "force"}

func rescueCommand() command {
	return command{
		name: "rescue", args: "[--listen ADDRESS]",
		summary: "serve SSH, so that one can look into a machine that is being installed",
		help: `
Public keys only: those of --authorized-keys, else those of /etc/provost/rescue.pub
and of the plan. Without any it does not start, and it ends when there are none any
more. The host key is made once and kept in the state directory; the collector is
told of it, and vouches for it: "provost ssh NODE" there. There is no forwarding.

watch starts it where there are keys, in a process of its own, which runs until it
is ended.

Examples:
  provost-agent rescue --authorized-keys FILE &
  ssh -p 2200 root@NODE                     a shell
  ssh -p 2200 root@NODE status              also log, retry, skip, release, hold, abort
  scp -P 2200 root@NODE:/tmp/x .

Exit status: 0 it was ended, 1 it cannot listen, 64 wrong usage,
75 another one runs, 78 a setting is wrong or missing.`,
		setup: func(f *flag.FlagSet, s *streams) func(context.Context, []string) error {
			var c common
			c.stateFlag(f)
			o := rescueOptions{}
			f.StringVar(&o.listen, "listen", rescueListen, "`ADDRESS` to listen on")
			f.StringVar(&o.keys, "authorized-keys", "", "`FILE` with the public keys that may come in")
			f.StringVar(&o.hostKey, "host-key", "", "`FILE` with the host's private key, made if it is not there (default in the state directory)")
			return func(ctx context.Context, args []string) error {
				if len(args) > 0 {
					return usage("rescue: unexpected argument %q", args[0])
				}
				return doRescue(ctx, c, o, s)
			}
		},
	}
}

type rescueOptions struct{ listen, keys, hostKey string }

// rescueLook is the time between two looks at the keys: a plan brings its own.
const rescueLook = 2 * time.Second

func doRescue(ctx context.Context, c common, o rescueOptions, s *streams) error {
	a, err := c.open(s, proto.EnvInstaller)
	if err != nil {
		return err
	}
	defer a.close()
	release, err := a.dir.LockRescue()
	if errors.Is(err, report.ErrBusy) {
		return &exitError{exitBusy, errors.New("another rescue shell runs on this state directory"), ""}
	}
	if err != nil {
		return err
	}
	defer release()
	defer a.follow(ctx)()
	a.keepRescueKeys()
	source := keySource{a: a, file: o.keys}
	keys, err := source.read()
	if err != nil {
		return config("", err)
	}
	if len(keys) == 0 {
		return config("give --authorized-keys FILE, or rescue-keys in the node's profile", errors.New("no public key may come in: the rescue shell does not start"))
	}
	hostKey, err := rescue.HostKey(cmp.Or(o.hostKey, a.dir.Path(rescueHostKey)))
	if err != nil {
		return config("", err)
	}
	program, err := a.host.InstallProgram(a.dir.Path("bin"), "provost-agent")
	if err != nil {
		return err
	}
	id, _ := a.dir.Identity() // open made one
	srv, err := rescue.New(rescue.Config{
		Keys: keys, HostKey: hostKey, Words: rescueWords, Agent: program, State: string(a.dir), Log: a.log,
		Greeting: strings.Join(strings.Fields(fmt.Sprintf("provost rescue shell %s: provost-agent status, log, retry, …", id.Node)), " "),
	})
	if err != nil {
		return config("", err)
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("opening the rescue shell's port: %w", err)
	}
	if at, ok := l.Addr().(*net.TCPAddr); ok {
		if err := a.dir.SetRescue(proto.Rescue{Port: at.Port, HostKey: rescue.Line(hostKey.PublicKey())}); err != nil {
			a.say(err.Error())
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	noted := make(chan struct{})
	go func() { defer close(noted); a.noteRescue(ctx, l.Addr(), hostKey.PublicKey()) }()
	go source.follow(ctx, srv, cancel)
	err = srv.Serve(ctx, l)
	<-noted // at most reportWait
	return err
}

// keySource is where the keys come from that may come in: a file that was named, else the baked-in ones and the plan's.
type keySource struct {
	a    *agent
	file string
	seen string // what the files were like when they were read last
}

// read reads the keys. Of the baked-in ones and the plan's a bad one is passed over, and said.
func (k *keySource) read() ([]ssh.PublicKey, error) {
	k.seen = k.look()
	if k.file != "" {
		keys, err := readKeys(k.file)
		if err != nil {
			err = fmt.Errorf("reading the keys of the rescue shell: %w", err)
		}
		return keys, err
	}
	keys, errs := readKeys(k.a.dir.Path(rescueKept))
	if errors.Is(errs, fs.ErrNotExist) {
		errs = nil
	}
	if p, err := k.a.ready(); err == nil { // no plan yet, or none at all: then it has no keys
		more, err := rescue.ParseKeys("the plan's rescue keys", []byte(strings.Join(p.RescueKeys, "\n")))
		keys, errs = append(keys, more...), errors.Join(errs, err)
	}
	if errs != nil {
		k.a.say("reading the keys of the rescue shell: " + errs.Error())
	}
	return keys, nil
}

// changed reports whether read may give something else than it did.
func (k *keySource) changed() bool { return k.seen != k.look() }

func (k *keySource) look() string {
	var b strings.Builder
	for _, name := range []string{k.file, k.a.dir.Path(rescueKept), k.a.dir.Path("plan.json"), k.a.dir.Path(localPlan), k.a.dir.CAFile()} {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprintf(&b, "%d %d\n", info.ModTime().UnixNano(), info.Size())
		} else {
			b.WriteString("-\n")
		}
	}
	return b.String()
}

// follow lets in whom the keys of the moment let in, and ends the server when there are none any more.
func (k *keySource) follow(ctx context.Context, srv *rescue.Server, end func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(rescueLook):
		}
		if !k.changed() {
			continue
		}
		keys, err := k.read()
		switch {
		case err != nil:
			k.a.say(err.Error() + ": those of before stay")
		case len(keys) == 0:
			k.a.say("no public key may come in any more: the rescue shell ends")
			end()
			return
		default:
			srv.SetKeys(keys)
		}
	}
}

func readKeys(file string) ([]ssh.PublicKey, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 2<<20)) // more than ParseKeys takes
	if err != nil {
		return nil, err
	}
	return rescue.ParseKeys(file, b)
}

// keepRescueKeys copies the baked-in keys to the state directory: the initrd's files vanish when the installer begins.
func (a *agent) keepRescueKeys() {
	b, err := readFile(rescueKeys, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		if old, oerr := os.ReadFile(a.dir.Path(rescueKept)); oerr == nil && bytes.Equal(old, b) {
			return
		}
		err = a.dir.WriteFile(rescueKept, b, 0o600)
	}
	if err != nil {
		a.say(fmt.Sprintf("keeping the keys of the rescue shell: %v", err))
	}
}

// rescuer keeps a rescue shell running while there are keys for one.
type rescuer struct {
	a      *agent
	listen string
	keys   keySource
	some   bool          // there are keys
	wait   time.Duration // before the next start, if the last one did not last
	next   time.Time     // no start before
	begun  time.Time     // of the last one
}

// A rescue shell that dies is started again, after 1 s, then 2, 4, … 60 s: at most 1,440 times a day. One that lasted a
// minute has earned a quick start.
const (
	rescueWait    = time.Second
	rescueMaxWait = time.Minute
)

func (a *agent) rescuer(listen string) *rescuer {
	a.keepRescueKeys()
	return &rescuer{a: a, listen: listen, keys: keySource{a: a, seen: "not yet"}}
}

// run ends with the context. The rescue shell stays: a person may be in it.
func (r *rescuer) run(ctx context.Context) {
	for {
		r.mind(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// mind starts the rescue shell if it is wanted and does not run. It ends by itself when there is no key any more.
func (r *rescuer) mind(now time.Time) {
	if r.keys.changed() {
		keys, _ := r.keys.read() // no file is named: it has no error
		r.some = len(keys) > 0
	}
	if !r.some || now.Before(r.next) || r.a.dir.RescueRuns() {
		return
	}
	if !r.begun.IsZero() {
		if now.Sub(r.begun) > rescueMaxWait {
			r.wait = 0
		}
		r.a.log.Warn("the rescue shell does not run: it is started again", "lasted", now.Sub(r.begun).Round(time.Second).String(), "output", r.a.dir.Path(rescueOutput))
	}
	r.wait = min(max(rescueWait, 2*r.wait), rescueMaxWait)
	r.begun, r.next = now, now.Add(r.wait)
	if err := r.start(); err != nil {
		r.a.say(fmt.Sprintf("starting the rescue shell: %v", err))
	}
}

// start starts it as a process of its own, which outlives this one.
func (r *rescuer) start() error {
	program, err := r.a.host.InstallProgram(r.a.dir.Path("bin"), "provost-agent")
	if err != nil {
		return err
	}
	out := r.a.dir.Path(rescueOutput)
	if err := os.Remove(out); err != nil && !errors.Is(err, fs.ErrNotExist) { // else it would grow with each start
		return err
	}
	p, err := host.Start(program, []string{"rescue", "--state", string(r.a.dir), "--listen", r.listen}, out)
	if err != nil {
		return err
	}
	go p.Wait() // it leaves no zombie
	return nil
}

// noteRescue records where the rescue shell is and its host key, once in a boot, and says so.
func (a *agent) noteRescue(ctx context.Context, addr net.Addr, key ssh.PublicKey) {
	text := "rescue shell at " + addr.String() + ", host key " + rescue.Describe(key)
	a.tell("%s", text)
	for r, err := range a.journal.Events() {
		if err == nil && r.Event.Kind == proto.KindNote && r.Event.Message == text && r.Event.Boot == a.boot {
			return
		}
	}
	if _, err := a.journal.Append(proto.Event{Kind: proto.KindNote, Message: text}); err != nil {
		a.say(err.Error())
		return
	}
	if !a.reports() || a.watched() {
		return
	}
	stop, err := a.background(ctx)
	if err != nil {
		a.say(fmt.Sprintf("%v: the host key is noted and will be delivered later", err))
		return
	}
	a.flush(ctx, reportWait, false)
	stop() // who runs the install delivers
}
