// SPDX-License-Identifier: Apache-2.0

package client

import "time"

// SetLimits makes the bounds of waiting short enough for a test.
func (c *Client) SetLimits(answer, silent time.Duration) { c.answer, c.silent = answer, silent }
