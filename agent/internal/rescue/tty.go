// SPDX-License-Identifier: Apache-2.0

package rescue

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// tty is a pseudo-terminal (pty(7)).
type tty struct {
	master *os.File // ours; its reads can be interrupted
	slave  *os.File // the program's
}

func openTTY(z size) (*tty, error) {
	f, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The library's file blocks its reader for as long as anything holds the terminal open.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		slave.Close()
		return nil, fmt.Errorf("copying its descriptor: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		slave.Close()
		return nil, fmt.Errorf("making it non-blocking: %w", err)
	}
	t := &tty{os.NewFile(uintptr(fd), "terminal"), slave}
	t.resize(z)
	return t, nil
}

// close leaves nothing open; what is left on the terminal gets a SIGHUP from the kernel.
func (t *tty) close() {
	t.slave.Close()
	t.master.Close()
}

// resize sets the terminal's size; a terminal that is gone has none.
func (t *tty) resize(z size) {
	conn, err := t.master.SyscallConn()
	if err != nil {
		return
	}
	w := unix.Winsize{Col: uint16(min(z.columns, 1<<16-1)), Row: uint16(min(z.rows, 1<<16-1))}
	conn.Control(func(fd uintptr) { unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &w) })
}

// run gives a function that runs a program on the terminal to its end. Its error is that it could not be started.
//
// Bytes go as they are: the library's Session.Write would put a CR before each LF, which a program in raw mode that
// moves its cursor by LF does not mean.
func (t *tty) run(s *session) func(*exec.Cmd) (int, error) {
	return func(cmd *exec.Cmd) (int, error) {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = t.slave, t.slave, t.slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		t.slave.Close()
		go io.Copy(t.master, s.ch) // ends when the channel or the terminal is closed
		output := make(chan struct{})
		go func() {
			defer close(output)
			io.Copy(s.ch, t.master) // until nothing holds the terminal open (EIO), or the deadline
		}()
		over := make(chan struct{})
		var sizing sync.WaitGroup
		sizing.Go(func() {
			for {
				select {
				case z := <-s.sizes:
					t.resize(z)
				case <-over:
					return
				}
			}
		})
		status := s.wait(cmd)
		t.master.SetReadDeadline(time.Now().Add(s.server.c.Linger))
		select {
		case <-output:
		case <-s.gone:
		}
		close(over)
		sizing.Wait()
		return status, nil
	}
}
