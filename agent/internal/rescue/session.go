// SPDX-License-Identifier: Apache-2.0

package rescue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gliderlabs/ssh"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// Exit statuses of our own, those of sh(1) and sysexits.h.
const (
	exitNotFound = 127
	exitSoftware = 70
	exitSignal   = 128 // and the signal's number
)

// session is one shell or command of a client.
type session struct {
	server *Server
	ch     gossh.Channel
	gone   chan struct{} // closed when the client has closed the channel, or is gone
	left   chan struct{} // closed when the library takes no requests any more
	sizes  chan size     // the latest size of the client's window, if it is news
	pid    atomic.Int64  // leader of the processes, 0 before and after
}

type size struct{ columns, rows uint32 }

// resize never waits: only the latest size counts. It is called from one goroutine.
func (s *session) resize(z size) {
	select {
	case <-s.sizes:
	default:
	}
	s.sizes <- z
}

// signal sends a signal to the session's processes.
func (s *session) signal(sig syscall.Signal) bool {
	pid := int(s.pid.Load())
	return sig != 0 && pid > 0 && unix.Kill(-pid, sig) == nil
}

// session serves one channel, from its opening until it is closed and its processes have ended.
func (s *Server) session(_ *ssh.Server, conn *gossh.ServerConn, channel gossh.NewChannel, ctx ssh.Context) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		s.c.Log.Warn("rescue: too many sessions", "from", conn.RemoteAddr().String())
		channel.Reject(gossh.ResourceShortage, fmt.Sprintf("there are %d sessions already: end one", s.c.Sessions))
		return
	}
	one := &session{server: s, gone: make(chan struct{}), left: make(chan struct{}), sizes: make(chan size, 1)}
	ended := make(chan struct{})
	begun := false
	handle := func(sess ssh.Session) {
		defer close(ended)
		defer s.caught("command", func() { sess.Exit(exitSoftware) })
		sess.Exit(one.run(sess))
	}
	inner := &ssh.Server{
		SessionRequestCallback: func(ssh.Session, string) bool { begun = true; return true },
		Handler:                handle,
		SubsystemHandlers:      map[string]ssh.SubsystemHandler{sftpName: handle},
	}
	func() {
		defer close(one.left)
		defer s.caught("session", func() {
			if one.ch != nil {
				one.ch.Close()
			}
		})
		// It returns when the channel is closed, or before that if it panics; the handler runs beside it.
		ssh.DefaultSessionHandler(inner, conn, gate{channel, one}, ctx)
	}()
	if begun {
		<-ended
	}
}

// run does what the client asked for, and gives the exit status.
func (s *session) run(sess ssh.Session) int {
	c := s.server.c
	terminal, first, isTerminal := sess.Pty()
	if isTerminal {
		<-first // the library keeps the first size there; the others come by the gate
	}
	what := "shell"
	programs := []program{}
	if sess.Subsystem() == sftpName {
		what, isTerminal = sftpName, false
		programs = append(programs, program{c.Agent, []string{"provost-agent", sftpName}})
	} else if words := sess.Command(); len(words) > 0 && slices.Contains(c.Words, words[0]) {
		what = words[0]
		argv := append([]string{"provost-agent", words[0], "--state", c.State}, words[1:]...)
		programs = append(programs, program{c.Agent, argv})
	} else {
		if sess.RawCommand() != "" {
			what = "command"
		}
		for _, sh := range c.Shells {
			programs = append(programs, sh.program(sess.RawCommand()))
		}
	}
	c.Log.Info("rescue: begin", "what", what, "terminal", isTerminal, "from", sess.RemoteAddr().String(), "key", gossh.FingerprintSHA256(sess.PublicKey()))
	began := time.Now()

	status, err := s.start(programs, s.environ(sess, terminal.Term), isTerminal, what == "shell", size{uint32(terminal.Window.Width), uint32(terminal.Window.Height)})
	if err != nil {
		text := err.Error()
		if what == "shell" || what == "command" {
			text = fmt.Sprintf("%s; these work in any case: %s", text, strings.Join(c.Words, ", "))
		}
		fmt.Fprintf(s.ch.Stderr(), "provost: %s\r\n", text)
	}
	c.Log.Info("rescue: end", "what", what, "status", status, "after", time.Since(began).Round(time.Millisecond).String())
	return status
}

// start runs the first program that can be started, to its end.
func (s *session) start(programs []program, env []string, terminal, greet bool, z size) (int, error) {
	var t *tty
	if terminal {
		var err error
		if t, err = openTTY(z); err != nil {
			return exitNotFound, fmt.Errorf("there is no terminal here (%w): use ssh -T", err)
		}
		defer t.close()
		if greet && s.server.c.Greeting != "" {
			io.WriteString(s.ch, s.server.c.Greeting+"\r\n")
		}
	}
	var errs []string
	for _, p := range programs {
		cmd, err := p.command(env)
		if err != nil {
			errs = append(errs, err.Error())
			continue
		}
		run := s.withPipes
		if t != nil {
			run = t.run(s)
		}
		status, err := run(cmd)
		if err == nil {
			return status, nil
		}
		errs = append(errs, err.Error())
	}
	return exitNotFound, fmt.Errorf("nothing can be run here: %s", strings.Join(errs, ", "))
}

// withPipes runs a program without a terminal: input, output and errors are three streams. The error is that it could
// not be started.
func (s *session) withPipes(cmd *exec.Cmd) (int, error) {
	cmd.Stdout, cmd.Stderr = s.ch, s.ch.Stderr()
	cmd.WaitDelay = s.server.c.Linger
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		in.Close()
		return 0, err
	}
	go func() { // ends with the client's last byte, at the latest when the channel is closed
		io.Copy(in, s.ch)
		in.Close()
	}()
	return s.wait(cmd), nil
}

// wait waits for the program's end. When the client goes first, its processes get a SIGHUP, and after the grace a SIGKILL.
func (s *session) wait(cmd *exec.Cmd) int {
	s.pid.Store(int64(cmd.Process.Pid))
	ended := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-ended:
			return
		case <-s.gone:
		}
		s.signal(syscall.SIGHUP)
		select {
		case <-ended:
		case <-time.After(s.server.c.Grace):
			s.signal(syscall.SIGKILL)
		}
	}()
	err := cmd.Wait()
	close(ended)
	<-watched
	s.pid.Store(0)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return exitSignal + int(ws.Signal())
		}
		return exit.ExitCode()
	case cmd.ProcessState != nil:
		return cmd.ProcessState.ExitCode() // errors of the streams are the client's affair
	}
	return exitSoftware
}

// environ is what a session's processes see. Nothing of the agent's own environment goes there.
func (s *session) environ(sess ssh.Session, term string) []string {
	home := "/root"
	if info, err := os.Stat(home); err != nil || !info.IsDir() {
		home = "/"
	}
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + s.server.c.State + "/bin",
		"HOME=" + home, "USER=root", "LOGNAME=root", "SSH_CONNECTION=" + connection(sess),
	}
	if term != "" {
		env = append(env, "TERM="+term)
	}
	return append(env, sess.Environ()...) // the gate lets through only locales
}

// connection is the client's and our address and port, as sshd has them.
func connection(sess ssh.Session) string {
	words := func(addr string) string {
		host, port := addr, ""
		if i := strings.LastIndexByte(addr, ':'); i >= 0 {
			host, port = strings.Trim(addr[:i], "[]"), addr[i+1:]
		}
		return host + " " + port
	}
	return words(sess.RemoteAddr().String()) + " " + words(sess.LocalAddr().String())
}
