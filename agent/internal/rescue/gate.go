// SPDX-License-Identifier: Apache-2.0

package rescue

import (
	"strings"
	"syscall"

	gossh "golang.org/x/crypto/ssh"
)

// sftpName is the only subsystem (RFC 4254, 6.5).
const sftpName = "sftp"

// envLimit is how many variables a client may set, and how long each is.
const envLimit = 64

// gate stands between a client and the library: it lets through the requests that begin a session, takes the ones that
// come during it, and refuses the rest: agent and X11 forwarding, other subsystems than sftp, breaks.
type gate struct {
	gossh.NewChannel
	s *session
}

// Accept opens the channel.
func (g gate) Accept() (gossh.Channel, <-chan *gossh.Request, error) {
	ch, in, err := g.NewChannel.Accept()
	if err != nil {
		return nil, nil, err
	}
	g.s.ch = ch
	out := make(chan *gossh.Request)
	go g.s.filter(in, out)
	return ch, out, nil
}

// filter ends when the client closes the channel or is gone.
func (s *session) filter(in <-chan *gossh.Request, out chan<- *gossh.Request) {
	defer close(s.gone)
	defer close(out)
	defer s.server.caught("requests", func() { s.ch.Close() })
	// pass hands a request to the library, which answers it.
	pass := func(req *gossh.Request) bool {
		select {
		case out <- req:
			return true
		case <-s.left:
			return false
		}
	}
	env := 0
	for req := range in {
		ok := false
		switch req.Type {
		case "shell", "exec":
			if pass(req) {
				continue
			}
		case "subsystem":
			var p struct{ Name string }
			if gossh.Unmarshal(req.Payload, &p) == nil && p.Name == sftpName && pass(req) {
				continue
			}
		case "pty-req":
			// RFC 4254, 6.2. The library takes lengths as they are told.
			var p struct {
				Term                  string
				Columns, Rows, PX, PY uint32
				Modes                 string
			}
			if gossh.Unmarshal(req.Payload, &p) == nil && len(p.Term) <= envLimit && pass(req) {
				continue
			}
		case "env":
			var p struct{ Name, Value string }
			if gossh.Unmarshal(req.Payload, &p) == nil && locale(p.Name) && len(p.Value) <= envLimit && env < envLimit && pass(req) {
				env++
				continue
			}
		case "window-change":
			var p struct{ Columns, Rows, PX, PY uint32 }
			if ok = gossh.Unmarshal(req.Payload, &p) == nil; ok {
				s.resize(size{p.Columns, p.Rows})
			}
		case "signal":
			var p struct{ Name string }
			if gossh.Unmarshal(req.Payload, &p) == nil {
				ok = s.signal(signals[p.Name])
			}
		}
		if req.WantReply {
			req.Reply(ok, nil) // an error: the client is gone, and so ends the loop
		}
	}
}

// locale reports whether a client may set a variable. Others could change what a program does (LD_PRELOAD, BASH_ENV).
func locale(name string) bool { return name == "LANG" || strings.HasPrefix(name, "LC_") }

// signals are those of RFC 4254, 6.10 that a person might send.
var signals = map[string]syscall.Signal{
	"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT, "KILL": syscall.SIGKILL,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
}
