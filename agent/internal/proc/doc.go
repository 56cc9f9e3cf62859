// SPDX-License-Identifier: Apache-2.0

// Package proc runs one step: a script in a session of its own, and where the kernel has cgroup v2 in a cgroup of its own,
// with its output captured in one order. It is the only package that starts processes.
//
// Nothing that a script does may hang the agent: every wait here has a bound. And nothing that the agent's surroundings do
// (a full disk, a slow log) may stop, block or kill the script. A step that cannot start fails with a reason that says
// what to do, and without any effect.
package proc
