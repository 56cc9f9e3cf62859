// SPDX-License-Identifier: Apache-2.0

package rescue

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// Shell is a program that may be a shell here, and its name there.
type Shell struct {
	Path, Name string // Name: busybox does what it is called by
}

// DefaultShells are tried in this order: what a dracut initrd, an installer, debian-installer and a system have.
var DefaultShells = []Shell{
	{"/bin/bash", "bash"}, {"/usr/bin/bash", "bash"}, {"/bin/sh", "sh"}, {"/usr/bin/sh", "sh"}, {"/bin/busybox", "sh"}, {"/usr/bin/busybox", "sh"},
}

// program is what is executed.
type program struct {
	path string
	argv []string
}

// program is the shell that runs a command, or for "" a login shell.
func (sh Shell) program(command string) program {
	if command == "" {
		return program{sh.Path, []string{"-" + sh.Name}}
	}
	return program{sh.Path, []string{sh.Name, "-c", command}}
}

// command is the program ready to be started, unless it cannot be executed. That its interpreter or its libraries are
// missing is seen only by starting it.
func (p program) command(env []string) (*exec.Cmd, error) {
	info, err := os.Stat(p.path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || unix.Access(p.path, unix.X_OK) != nil {
		return nil, fmt.Errorf("%s is not executable", p.path)
	}
	return &exec.Cmd{Path: p.path, Args: p.argv, Env: env, Dir: "/"}, nil
}
