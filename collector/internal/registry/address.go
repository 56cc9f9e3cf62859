// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"net/netip"

	"provost/proto"
)

// elsewhere refuses to let a boot in that comes from another address than its node's own, if an operator said which that
// is: a MAC can be guessed, and then claims fetched, by anybody who reaches the boot server. The address that fetched the
// boot script proves nothing for the same reason, and is not looked at.
//
// Only the hello that binds a claim, or joins, is looked at. From then on the token proves who speaks: a lease that changes
// in the middle of an install does no harm.
func (c *change) elsewhere(rec *installRecord) error {
	from := c.who.Addr
	n := c.node(rec.Node)
	if c.r.opt.AnyAddress || !from.IsValid() || n == nil || n.Spec.IP == "" {
		return nil
	}
	known, err := netip.ParseAddr(n.Spec.IP)
	if err != nil || known.Unmap() == from {
		return nil // an address that is none was never taken
	}
	return &contested{rec.ID, problem(409, proto.CodeContested,
		"if it has another address now: provost node set "+rec.Node+" --ip "+from.String()+"; behind NAT set check-address: false in provostd.yaml",
		"a machine at %s says that it is %s, whose address is %s", from, rec.Node, known),
		"a machine at " + from.String() + " said that it is " + rec.Node + ", whose address is " + known.String()}
}
