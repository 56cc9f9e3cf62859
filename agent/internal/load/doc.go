// SPDX-License-Identifier: Apache-2.0

// Package load is a crowd of simulated agents for tests of the collector. Each is driven by the agents' own package
// report, over real TLS with a connection of its own, from its hello through a sealed install and a reboot to its first
// boot. Only the journal, the logs and the clock of the machine are made up.
//
// It knows what was acknowledged to every agent, and finds out whether the collector has all of it: once, in order, and
// with the same content. It must never be linked into a program that is shipped, and it must never help a collector:
// what an agent would not send again, it does not send again.
package load
