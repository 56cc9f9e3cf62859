// SPDX-License-Identifier: Apache-2.0

// Package probe watches an installer from outside: its files, processes, ports, mounts and logs become stages, and what
// its error log says last becomes the reason of a failed install. What is looked for stands in one table per family of
// installers, in families.go.
//
// It is pure: it sees the machine through System, knows no clock but System's, starts no goroutine and writes nothing but
// the installer's log to the writer that it is given. It must never touch what it watches, hold a file open, take a line
// of a log for more than its table says, or call an install failed because something looks bad: a failure is only what
// the installer does not go on after.
package probe
