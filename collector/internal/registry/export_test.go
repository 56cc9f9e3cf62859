// SPDX-License-Identifier: Apache-2.0

package registry

// SetKeyBounds makes the bounds of orders with a key small enough for a test.
func (r *Registry) SetKeyBounds(orders uint64, bytes int) { r.keys = keyBounds{orders, bytes} }

// Each is each.
var Each = each
