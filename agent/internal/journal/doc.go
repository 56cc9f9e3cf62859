// SPDX-License-Identifier: Apache-2.0

// Package journal keeps what happened on a node: the records of every agent process, in one order, and the logs of the
// steps. It must never lose a record that it acknowledged, never give out a record that a power cut could take back,
// and never stop an install: not for a full disk, not for a broken mirror, not for damage to its own files.
//
// # Format
//
// A state directory has
//
//	journal/%020d.log   segments, named by the first sequence number in them
//	journal/lock        flock of the one process that appends at this moment
//	journal/mirror.lock flock of the one process that writes the mirror at this moment
//	journal/reserve     disk space for the records of a full disk
//	journal/REPLICA     only in a mirror: these are copies, their original may have more
//	journal.ID/         the journal that a mirror was, once a journal of its own began in its place; never written again
//	target              where the mirror is
//	logs/NAME           what the steps printed (elsewhere by Options.LogDir)
//
// A segment is text, to be read with cat. Each line is
//
//	CRC SPACE JSON NEWLINE
//
// where CRC is the CRC-32C (Castagnoli, RFC 3720 appendix B.4) of the JSON's bytes in 8 lower-case hex digits. The first
// line of a segment is its header, {"journal":ID,"first":N,"version":1}; every other is a proto.Event whose seq is one
// more than that of the line before it. A segment is complete when the next one exists; segments are never changed but
// at the end of the last one, and never removed.
//
// # What survives what
//
//   - kill -9 at any byte: Append wrote and synced the record before it returned, so every acknowledged record. What a
//     killed writer left half written has no newline; readers do not see it, and the next writer cuts it off.
//   - A crash of the kernel or a power cut: the same, where the directory is on a disk. /run is memory and is gone; what
//     is left is the mirror, which has every record whose Append returned without a word about the mirror.
//     Read and ReadLog sync what they hand out, so that the collector never has a record that the disk then lacks.
//   - A mirror may lack the last records of its original, since the target was full, hung or no longer mounted when they
//     were written. So it never goes on with its original's numbers: when a later boot opens it, it is put aside as
//     journal.ID, to be delivered as far as it goes, and a new journal begins.
//   - A full disk: records go into space set aside when the journal was made (some hundred of them); then they wait in the
//     memory of the process. Append says so by its error, the journal by a note. Logs lose bytes, and say how many.
//   - Flipped bits: a damaged line is found by its checksum, reported with its place, and stands as a note in its place;
//     the lines after it count.
package journal
