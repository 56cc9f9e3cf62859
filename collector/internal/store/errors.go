// SPDX-License-Identifier: Apache-2.0

package store

import "errors"

// Of Update and of Logs.Append.
var (
	// ErrBusy: too many callers wait. Nothing of this call was done; come again later.
	ErrBusy = errors.New("the store is busy")
	// ErrStorage: the disk refused. Nothing that is seen afterwards holds anything of this call.
	ErrStorage = errors.New("the disk did not take it")
	// ErrFull comes with an ErrStorage whose cause is room: the file could not grow, and the next call may be taken.
	ErrFull = errors.New("the disk is full")
	// ErrClosed: the store is shut down.
	ErrClosed = errors.New("the store is closed")
	// ErrPanic: the caller's own function panicked. Nothing of it was done; its neighbours are not touched.
	ErrPanic = errors.New("a function panicked in the store")
)

// Of Open.
var (
	// ErrHeld: another process has the database open.
	ErrHeld = errors.New("the database is in use")
	// ErrSchema: the database is from a newer provostd.
	ErrSchema = errors.New("the database has a newer schema")
	// ErrDamaged: the file is no sound database. It was put aside under the name in the message.
	ErrDamaged = errors.New("the database is damaged")
)

// ErrGone is Watch's: the revision to go on from is not of this database, or no longer in it.
var ErrGone = errors.New("the revision is not in the feed")

// Of Logs.
var (
	// ErrOffset: the chunk does not start at the log's end, which the answer names.
	ErrOffset = errors.New("the chunk does not start at the end of the log")
	// ErrQuota: the log, or the install's logs together, would be longer than they may.
	ErrQuota = errors.New("the log is too long")
	// ErrLogsFull: all logs together have as many bytes as they may; the chunk can come when there is room again.
	ErrLogsFull = errors.New("the quota of the logs is used up")
	// ErrNoLog: there is no log of this name.
	ErrNoLog = errors.New("no such log")
)
