// SPDX-License-Identifier: Apache-2.0

// Package rescue is a way into a node that is being installed: an SSH server for public keys only, with a shell, a
// terminal, commands, and the agent's own orders as commands.
//
// It runs in a process of its own, so that nothing that happens in it can touch an install. Beside proc it is the only
// package that starts processes: a person's shell is no step. It must never let in anybody without a key that was given
// to it, forward a port, an agent or a display, outlive its limits of time and number, or end an install by ending.
//
// scp and sftp are served by the agent's own command sftp, a process like a shell's; package sftp says why.
//
// gliderlabs/ssh has the connection and the authentication. What it does with the requests of a session blocks, races
// or panics for some clients (window changes before the shell, a terminal request of a wrong length), which is why gate.go
// stands in front of it.
package rescue
