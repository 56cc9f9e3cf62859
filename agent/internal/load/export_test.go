// SPDX-License-Identifier: Apache-2.0

package load

// For tests of what a collector may have.
var (
	VerifyEvents = verifyEvents
	Message      = message
	LogText      = logText
)
