// SPDX-License-Identifier: Apache-2.0

package registry

import "provost/proto"

// pendingOf gives an install's orders that its agent has not acknowledged, the oldest first.
func pendingOf(rec *installRecord) []proto.Pending {
	var out []proto.Pending
	for _, o := range rec.Orders {
		out = append(out, proto.Pending{Verb: o.Verb, Step: o.Step, Since: o.Given, Actor: o.Actor})
	}
	return out
}
