// SPDX-License-Identifier: Apache-2.0

package cli

import "io"

// For the tests of what stands between a node's text and a terminal.
var (
	Clean    = clean
	Hostile  = hostile
	Cells    = cells
	Cut      = cut
	Wrap     = wrap
	Sentence = sentence
	Span     = span
	Took     = took
	Offset   = offset
	Size     = size

	LastStepLog = lastStepLog
)

// EscapeWriter is an escapeWriter with its methods.
type EscapeWriter = escapeWriter

func NewEscapeWriter(w io.Writer) *EscapeWriter { return &escapeWriter{w: w} }

func NewJSONWriter(w io.Writer) io.Writer { return &jsonWriter{w: w} }

// WriteYAML is writeYAML.
var WriteYAML = writeYAML
