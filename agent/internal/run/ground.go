// SPDX-License-Identifier: Apache-2.0

package run

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"provost/agent/internal/journal"
)

// ground is the agent's directory, on which a step's files are laid: the state directory, or the one in the target, of which a link
// means what it will mean there and never leads out of it.
type ground struct {
	*os.Root
	path string // in which no link is left
	own  bool   // it is the state directory: nobody but this program and the steps it runs has put anything there
}

// openGround makes and opens the agent's directory: state, or with a root the one in the target.
func openGround(root, state string) (*ground, error) {
	if root == "" {
		dir, err := os.OpenRoot(state)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(state, 0o700); err == nil {
				dir, err = os.OpenRoot(state)
			}
		}
		return &ground{dir, state, true}, err
	}
	in, err := journal.OpenBelow(root, strings.TrimPrefix(targetDir, "/"), true)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	path, err := os.Readlink(journal.Through(in))
	if err != nil {
		return nil, err
	}
	dir, err := os.OpenRoot(journal.Through(in))
	return &ground{dir, path, false}, err
}

// create makes a file that was not there; fs.ErrExist if something was, and fs.ErrNotExist if its directory is not there.
func (g *ground) create(name string, mode fs.FileMode) (*os.File, error) {
	if !g.own {
		return g.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	}
	return journal.OpenPlain(filepath.Join(g.path, name), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, mode)
}

// copyIn writes a fresh copy of the file from into dir. The old one goes away first: a step may have linked it elsewhere.
func copyIn(dir *ground, from, name string, mode fs.FileMode) error {
	in, err := journal.OpenPlain(from, unix.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("copying %s: %w", name, err)
	}
	defer in.Close()
	out, err := dir.create(name, mode)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		if err = errors.Join(dir.MkdirAll(path.Dir(name), 0o755), dir.RemoveAll(name)); err == nil {
			out, err = dir.create(name, mode)
		}
	}
	if err != nil {
		return fmt.Errorf("copying %s: %w", name, err)
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return fmt.Errorf("copying %s: %w", name, err)
	}
	if err := out.Chmod(mode); err != nil {
		out.Close()
		return fmt.Errorf("copying %s: %w", name, err)
	}
	return out.Close()
}
