// SPDX-License-Identifier: Apache-2.0

// Package postscripts holds the shell library and the postscripts that ship with Provost, as files.
//
// Lib is put on the node by the agent, in the directory that a step sees as PROVOST_LIB. Stock is where the collector
// finds a step's script that the site has not written itself. The package must never run, change or interpret them: a
// script is bytes, known by their SHA-256.
//
// Every script works in the chroot of the target, where PROVOST_ROOT is "/", as well as outside of it (chroot: false),
// where PROVOST_ROOT is the target's mount point and stands in front of every path that the script writes to. It needs
// a POSIX shell (dash, bash and busybox sh are tested) and the commands that busybox has.
package postscripts

import "embed"

// Lib has the files below lib/, by that path: lib/provost.sh.
//
//go:embed lib
var Lib embed.FS

// Stock has the shipped postscripts below stock/, by that path: stock/hostname.
//
//go:embed stock
var Stock embed.FS
