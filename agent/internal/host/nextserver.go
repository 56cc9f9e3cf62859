// SPDX-License-Identifier: Apache-2.0

package host

import (
	"net/netip"
	"slices"
	"strings"
)

// leases are the files in which DHCP clients leave what they got, and the key of the next server there (siaddr of RFC 2131,
// section 2), in the order of trust: what the initrd has chosen for its own boot comes first.
var leases = []struct{ pattern, key string }{
	{"/tmp/net.*.dhcpopts", "new_next_server"},                         // dracut: what dhclient's script got, or what was made of the next two
	{"/tmp/dhclient.*.dhcpopts", "new_next_server"},                    // the same
	{"/run/net-*.conf", "ROOTSERVER"},                                  // klibc's ipconfig, in the initramfs of Debian and Ubuntu
	{"/tmp/net-*.conf", "ROOTSERVER"},                                  // an older one
	{"/run/NetworkManager/devices/*", "next-server"},                   // a key file of section [device]
	{"/run/systemd/netif/leases/*", "NEXT_SERVER"},                     // systemd-networkd
	{"/var/lib/NetworkManager/internal-*.lease", "NEXT_SERVER"},        // NetworkManager's own client, which is systemd's
	{"/var/lib/dhcp/dhclient*.leases", "next-server"},                  // dhclient.leases(5)
	{"/var/lib/dhclient/*.lease*", "next-server"},                      //
	{"/tmp/dhclient.*.lease", "next-server"},                           // dracut's
	{"/var/lib/wicked/lease-*-dhcp-ipv4.xml", "<boot-server-address>"}, // SUSE
}

// leaseLimit bounds how much of such a file is read: a lease has some hundred bytes, and old ones may stand before it.
const leaseLimit = 64 << 10

// NextServers lists the next servers of this boot's DHCP answers: IPv4 addresses, each once. It says nothing of whether
// somebody is there.
func (h Host) NextServers() []netip.Addr {
	var out []netip.Addr
	for _, l := range leases {
		for _, path := range h.Glob(l.pattern) {
			_, _, b, err := h.ReadAt(path, 0, leaseLimit)
			if err != nil {
				continue
			}
			if a, ok := nextServer(string(b), l.key); ok && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// nextServer finds the last value of a key that is an address of a machine: KEY=VALUE, KEY='VALUE', KEY VALUE; or
// <KEY>VALUE</KEY>.
func nextServer(text, key string) (found netip.Addr, ok bool) {
	for line := range strings.Lines(text) {
		value, has := strings.CutPrefix(strings.TrimSpace(line), key)
		if !has {
			continue
		}
		if strings.HasPrefix(key, "<") {
			value, _, _ = strings.Cut(value, "<")
		} else if value == "" || !strings.ContainsRune("= \t", rune(value[0])) {
			continue // a longer key
		}
		a, err := netip.ParseAddr(strings.Trim(value, "= \t'\";"))
		if err == nil && a.Is4() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			found, ok = a, true
		}
	}
	return found, ok
}
