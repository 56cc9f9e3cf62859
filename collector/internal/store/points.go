// SPDX-License-Identifier: Apache-2.0

package store

// The places that Options.Point and Logs.SetPoint are told of, in the order in which they are passed. A process may end at any
// of them: up to pointFilled nothing of the commit is there afterwards, from pointCommitted on all of it.
const (
	pointRun       = "run"       // a call's function has returned
	pointTrim      = "trim"      // events were deleted, before what is left of a piece is put back
	pointMerged    = "merged"    // all calls but for their events are in the engine's transaction
	pointFilled    = "filled"    // all of it is, before the engine commits
	pointCommitted = "committed" // on the disk, and nobody knows
	pointTold      = "told"      // Committed was called, no caller was released
	pointReleased  = "released"

	pointLogMade    = "log-made"    // a new log's file, empty
	pointLogWritten = "log-written" // a chunk, not flushed
	pointLogFlushed = "log-flushed" // a chunk; of a new log, its name may not be
)

// Points names the writer's and the logs' places.
func Points() (writer, logs []string) {
	return []string{pointRun, pointTrim, pointMerged, pointFilled, pointCommitted, pointTold, pointReleased},
		[]string{pointLogMade, pointLogWritten, pointLogFlushed}
}
