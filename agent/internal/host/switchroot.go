// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is this process's mount namespace, held by an open file so that it can be entered again at its root when that
// has become another. It keeps no file system busy.
//
// After an initrd's switch_root every process but the one that did it still has the old root, whose files are gone, and
// in it neither /proc nor /run. setns(2) into the own mount namespace gives the root as it is now.
type Namespace struct{ f *os.File }

// OpenNamespace opens the mount namespace of this process.
func OpenNamespace() (Namespace, error) {
	f, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		return Namespace{}, fmt.Errorf("opening the mount namespace: %w", err)
	}
	return Namespace{f}, nil
}

// Exec replaces this process, which keeps its id, by program, seen from the namespace's present root. It returns only if
// that cannot be done, and then nothing has changed.
func (n Namespace) Exec(program string, args []string) error {
	failed := make(chan error)
	go func() {
		// The thread gets a root of its own, so it can serve no other goroutine: it stays locked and ends with this one.
		runtime.LockOSThread()
		failed <- n.exec(program, args)
	}()
	return <-failed
}

func (n Namespace) exec(program string, args []string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("taking a root of its own: %w", err)
	}
	if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("entering the new root: %w", err)
	}
	if err := unix.Exec(program, append([]string{program}, args...), os.Environ()); err != nil {
		return fmt.Errorf("starting %s in the new root: %w", program, err)
	}
	return nil
}
