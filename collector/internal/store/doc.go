// SPDX-License-Identifier: Apache-2.0

// Package store keeps what the collector must not lose: a log of events under one global revision, a few ordered
// key-value buckets, and the bytes of the nodes' logs as files.
//
// Its shape is that of an ordered store with transactions, ranges and a watch from a revision, so that a replicated
// engine can stand behind it later. It is the only package that knows bbolt, and it must never learn what an event or
// a node means.
//
// What survives: whatever Update returned nil for survives a killed process, a kernel panic and a power cut, as far as
// the disk keeps what fdatasync promised. A full disk makes Update fail with ErrStorage and leaves everything as it was. After
// any other error of the disk the store takes nothing until it could open the database again, which it tries by itself.
package store
