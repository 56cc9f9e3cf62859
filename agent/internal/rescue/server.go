// SPDX-License-Identifier: Apache-2.0

package rescue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"
)

// Config is what a server is made of. Keys and HostKey are required; a zero limit is its default.
type Config struct {
	Keys    []gossh.PublicKey // who may come in
	HostKey gossh.Signer

	Words    []string // commands that are the agent's own: "status" runs "Agent status --state State"
	Agent    string   // the agent's program
	State    string   // its state directory
	Greeting string   // a line for whoever gets a terminal; "" for none
	Shells   []Shell  // nil: DefaultShells
	Log      *slog.Logger

	Handshake   time.Duration // until a client has proved its key: 20 s
	Idle        time.Duration // without a byte in either direction: 1 h
	Linger      time.Duration // for the output that a command's children hold open: 5 s
	Grace       time.Duration // between SIGHUP and SIGKILL for the processes of a session whose client is gone: 2 s
	Sessions    int           // at once: 16
	Connections int           // at once, those without a proven key included: 32
}

// Server serves SSH.
type Server struct {
	c     Config
	ssh   *ssh.Server
	slots chan struct{} // one in it for each session

	mu      sync.Mutex
	allowed map[string]bool // wire form of the keys
	conns   map[*counted]bool
}

// New makes a server. It refuses to be one that anybody, or nobody, could use.
func New(c Config) (*Server, error) {
	if len(c.Keys) == 0 {
		return nil, errors.New("no key is given that may come in")
	}
	if c.HostKey == nil {
		return nil, errors.New("no host key is given")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Shells == nil {
		c.Shells = DefaultShells
	}
	c.Handshake = cmp.Or(c.Handshake, 20*time.Second)
	c.Idle = cmp.Or(c.Idle, time.Hour)
	c.Linger = cmp.Or(c.Linger, 5*time.Second)
	c.Grace = cmp.Or(c.Grace, 2*time.Second)
	c.Sessions = cmp.Or(c.Sessions, 16)
	c.Connections = cmp.Or(c.Connections, 32)

	s := &Server{c: c, slots: make(chan struct{}, c.Sessions), conns: map[*counted]bool{}}
	s.SetKeys(c.Keys)
	s.ssh = &ssh.Server{
		Version:          "Provost",
		HostSigners:      []ssh.Signer{c.HostKey},
		PublicKeyHandler: func(_ ssh.Context, key ssh.PublicKey) bool { return s.allows(key) },
		ConnCallback:     s.admit,
		IdleTimeout:      c.Idle,
		// Sessions, and nothing else: no forwarding of ports in either direction.
		ChannelHandlers:   map[string]ssh.ChannelHandler{"session": s.session},
		RequestHandlers:   map[string]ssh.RequestHandler{},
		SubsystemHandlers: map[string]ssh.SubsystemHandler{},
		ConnectionFailedCallback: func(conn net.Conn, err error) {
			s.c.Log.Info("rescue: refused", "from", conn.RemoteAddr().String(), "error", err)
		},
	}
	return s, nil
}

// SetKeys says who may come in from now on. Who is in stays.
func (s *Server) SetKeys(keys []gossh.PublicKey) {
	allowed := map[string]bool{}
	for _, k := range keys {
		allowed[string(k.Marshal())] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed = allowed
}

func (s *Server) allows(key gossh.PublicKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.allowed[string(key.Marshal())]
}

// stopLimit bounds the wait for sessions when the server ends; their processes have been killed by then.
const (
	stopLimit = 5 * time.Second
	stopPoll  = 10 * time.Millisecond
)

// Serve serves until the context ends, then closes all connections. The listener is closed in any case.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return s.stop()
		}
		if errors.Is(err, net.ErrClosed) {
			return errors.Join(fmt.Errorf("accepting connections: %w", err), s.stop())
		}
		if err != nil { // too many open files, or a client that was quick to leave
			s.c.Log.Warn("rescue: accepting a connection", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		go func() { // at most Connections of them get further than admit
			defer s.caught("connection", func() { conn.Close() })
			s.ssh.HandleConn(conn)
		}()
	}
}

func (s *Server) stop() error {
	err := s.ssh.Close()
	for range stopLimit / stopPoll {
		s.mu.Lock()
		for c := range s.conns { // those that the library does not know yet
			c.Conn.Close()
		}
		left := len(s.conns) + len(s.slots)
		s.mu.Unlock()
		if left == 0 {
			break
		}
		time.Sleep(stopPoll)
	}
	return err
}

// caught keeps a panic from ending the process. It is deferred.
func (s *Server) caught(where string, then func()) {
	p := recover()
	if p == nil {
		return
	}
	then()
	defer func() { _ = recover() }() // it may have been the log that panicked
	s.c.Log.Error("rescue: panic", "where", where, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// admit takes a new connection, if there is room, and closes it if it has no proven key in time. A deadline of the
// connection itself would not do: the library sets a new one with each byte.
func (s *Server) admit(ctx ssh.Context, conn net.Conn) net.Conn {
	c := &counted{Conn: conn, server: s}
	s.mu.Lock()
	full := len(s.conns) >= s.c.Connections
	if !full {
		s.conns[c] = true
	}
	s.mu.Unlock()
	if full {
		s.c.Log.Warn("rescue: too many connections", "from", conn.RemoteAddr().String())
		return nil // the library closes it
	}
	c.timer = time.AfterFunc(s.c.Handshake, func() {
		if ctx.Value(ssh.ContextKeyConn) == nil { // set when the handshake is done
			conn.Close()
		}
	})
	return c
}

// counted is a connection that is counted until it is closed.
type counted struct {
	net.Conn
	server *Server
	timer  *time.Timer
}

func (c *counted) Close() error {
	c.timer.Stop()
	c.server.mu.Lock()
	delete(c.server.conns, c)
	c.server.mu.Unlock()
	return c.Conn.Close()
}
