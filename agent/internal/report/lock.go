// SPDX-License-Identifier: Apache-2.0

package report

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// ErrBusy is a lock that another process holds.
var ErrBusy = errors.New("another provost-agent process is at it already")

// Lock makes this process the sender until release is called or the process ends.
func (d Dir) Lock() (release func(), err error) { return d.lock(fileLock) }

// LockWatch makes this process the one watch of the directory, likewise. A watch waits for the sender's lock where a run
// reports by itself; so they are two.
func (d Dir) LockWatch() (release func(), err error) { return d.lock(fileWatch) }

// LockRescue makes this process the one rescue shell of the directory, likewise.
func (d Dir) LockRescue() (release func(), err error) { return d.lock(fileRescuer) }

// SetRescue says how the rescue shell of the process that holds its lock is reached.
func (d Dir) SetRescue(r proto.Rescue) error { return d.writeJSON(fileRescue, r, 0o600) }

// Rescue is how the rescue shell is reached, nil while none runs.
func (d Dir) Rescue() *proto.Rescue {
	var r proto.Rescue
	if !d.locked(fileRescuer) || d.readJSON(fileRescue, &r) != nil {
		return nil
	}
	return &r
}

// RescueRuns reports whether some process is the rescue shell, or about to be.
func (d Dir) RescueRuns() bool { return d.locked(fileRescuer) }

// lock takes an open file description lock (fcntl(2), Linux 3.15): unlike flock's it can be asked after without being
// taken for an instant, in which somebody else would find it busy.
func (d Dir) lock(name string) (release func(), err error) {
	f, err := os.OpenFile(d.Path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("taking a lock: %w", err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("taking the lock %s: %w", d.Path(name), err)
	}
	return func() { f.Close() }, nil
}

// Locked reports whether some process reports at the moment, this one included.
func (d Dir) Locked() bool { return d.locked(fileLock) }

func (d Dir) locked(name string) bool {
	f, err := os.Open(d.Path(name))
	if err != nil {
		return false
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l) == nil && l.Type != unix.F_UNLCK
}
