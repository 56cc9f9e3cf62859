// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// socketGroup may use the socket beside its owner, if there is such a group.
const socketGroup = "provost"

func (s *Server) listen() (err error) {
	if s.tls, err = net.Listen("tcp", s.set.Listen); err != nil {
		return configError{fmt.Errorf("listening for agents and operators: %w: change listen", err)}
	}
	if s.set.BootListen != bootListenOff {
		if s.plain, err = net.Listen("tcp", s.set.BootListen); err != nil {
			return configError{fmt.Errorf("listening for boot scripts: %w: change boot-listen", err)}
		}
	}
	if s.socket, err = listenUnix(s.set.Socket); err != nil {
		return configError{err}
	}
	return nil
}

// listenUnix listens on a socket with mode 0660. One that a dead collector left behind is removed; one on which somebody
// answers is not.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making the directory of the socket: %w", err)
	}
	info, err := os.Lstat(path)
	if err == nil {
		if info.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there and is no socket: name another one by --socket", path)
		}
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			conn.Close()
			return nil, fmt.Errorf("another collector answers on %s: stop it, or name another socket by --socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing a stale socket: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("looking at the socket: %w", err)
	}
	old := unix.Umask(0o117) // so that it is never open to others, not even for a moment
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listening on the socket: %w", err)
	}
	if g, err := user.LookupGroup(socketGroup); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil {
			os.Chown(path, -1, gid) // without the right to, only the owner can use it
		}
	}
	return l, nil
}
