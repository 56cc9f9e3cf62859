// SPDX-License-Identifier: Apache-2.0

// Package report is the agent's only way to the collector: it says hello, fetches the plan and its scripts, ships the
// journal and the logs, sends heartbeats and takes orders. One process does so at a time for a state directory (Lock).
//
// Nothing waits for it but who asks to. It must never send a byte of payload to a peer that is not the pinned
// collector, never move past a record without the collector's word for it, and never end because of what an answer
// says.
package report
