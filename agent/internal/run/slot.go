// SPDX-License-Identifier: Apache-2.0

package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// slotName is a file of the directory of orders that holds the space of one, for when the disk is full: who looks after such
	// a machine gives orders. It has no name of an order.
	slotName = ".slot"
	// slotSize has room for any order without a plan: names of at most 128 bytes and a reason of 512, six times that in JSON.
	slotSize = 8 << 10
)

// keepSlot sets the space for an order aside, unless it is there.
func keepSlot(dir string) {
	path := filepath.Join(dir, slotName)
	if info, err := os.Lstat(path); err == nil && info.Size() == slotSize {
		return
	}
	tmp, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return // the disk is full already
	}
	_, err = tmp.Write(make([]byte, slotSize))
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
}

// takeSlot writes a file over the space that was set aside in its directory. Of two that want it one gets it, and the other finds
// none.
func takeSlot(path string, b []byte) error {
	if len(b) > slotSize {
		return fmt.Errorf("it has %d bytes, and %d are set aside: free some space", len(b), slotSize)
	}
	dir := filepath.Dir(path)
	mine := filepath.Join(dir, fmt.Sprintf(".new-%d", os.Getpid()))
	if err := os.Rename(filepath.Join(dir, slotName), mine); err != nil {
		return fmt.Errorf("the space that was set aside is used: %w", err)
	}
	defer os.Remove(mine)
	f, err := os.OpenFile(mine, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Truncate(int64(len(b))), f.Close()); err != nil {
		return err
	}
	return os.Rename(mine, path)
}

// noSpace reports whether an error says that a disk is full.
func noSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
