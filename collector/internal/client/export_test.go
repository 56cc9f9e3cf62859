// SPDX-License-Identifier: Apache-2.0

package client

import "time"

// SetLimits makes the bounds of waiting short enough for a test.
func (c *Client) SetLimits(answer, silent time.Duration) { c.answer, c.silent = answer, silent }

// SetPauses sets those before the repeats of an order.
func (c *Client) SetPauses(all ...time.Duration) { c.again = all }
