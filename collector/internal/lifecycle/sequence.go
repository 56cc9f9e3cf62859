// SPDX-License-Identifier: Apache-2.0

package lifecycle

import "provost/collector/internal/sequence"

// Sequence and Stage are what the rules know of an install's stages.
type (
	Sequence = sequence.Sequence
	Stage    = sequence.Stage
)
