// SPDX-License-Identifier: Apache-2.0

package main

import (
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

	"golang.org/x/crypto/ssh"

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
)

// rescueWords are the commands of a rescue shell that are the agent's own.
var rescueWords = []string{"status", "log", "retry", "skip", "release", "hold", "abort"}

func rescueCommand() command {
	return command{
		name: "rescue", args: "[--listen ADDRESS]",
		summary: "serve SSH, so that one can look into a machine that is being installed",
		help: `
Public keys only: those of --authorized-keys, else those of /etc/provost/rescue.pub
and of the plan. Without any it does not start. The host key is made once and kept
in the state directory; it is noted in the journal, so that the collector can
vouch for it. There is no sftp and no forwarding; copy with "cat".

It runs until it is ended, in a process of its own: start it in the background.

Examples:
  provost-agent rescue &
  ssh -p 2200 root@NODE                     a shell
  ssh -p 2200 root@NODE status              also log, retry, skip, release, hold, abort
  ssh -p 2200 root@NODE 'cat /tmp/x' >x

Exit status: 0 it was ended, 1 it cannot listen, 64 wrong usage,
78 a setting is wrong or missing.`,
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

func doRescue(ctx context.Context, c common, o rescueOptions, s *streams) error {
	a, err := c.open(s, proto.EnvInstaller)
	if err != nil {
		return err
	}
	defer a.close()
	keys, err := a.rescueKeys(o.keys)
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
	noted := make(chan struct{})
	go func() { defer close(noted); a.noteRescue(ctx, l.Addr(), hostKey.PublicKey()) }()
	err = srv.Serve(ctx, l)
	<-noted // at most reportWait
	return err
}

// rescueKeys reads the keys that may come in: of a file that was named, else the baked-in ones and the plan's.
func (a *agent) rescueKeys(file string) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	f, err := os.Open(cmp.Or(file, rescueKeys))
	if err == nil {
		defer f.Close()
		var b []byte
		if b, err = io.ReadAll(io.LimitReader(f, 2<<20)); err == nil { // more than ParseKeys takes
			keys, err = rescue.ParseKeys(f.Name(), b)
		}
	}
	if errors.Is(err, fs.ErrNotExist) && file == "" {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the keys of the rescue shell: %w", err)
	}
	if file != "" {
		return keys, nil
	}
	p, err := a.ready()
	if err != nil { // no plan yet, or none at all
		return keys, nil
	}
	more, err := rescue.ParseKeys("the plan's rescue keys", []byte(strings.Join(p.RescueKeys, "\n")))
	if err != nil {
		return nil, fmt.Errorf("reading the keys of the rescue shell: %w", err)
	}
	return append(keys, more...), nil
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
	a.flush(ctx, reportWait)
	stop() // who runs the install delivers
}
