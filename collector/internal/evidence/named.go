// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/hex"
	"net/netip"
	"strings"
)

// Boot loaders look for their configuration by names that say who asks: PXELINUX for pxelinux.cfg/UUID, 01-MAC and the address
// in hexadecimal, GRUB for grub.cfg- with the same behind it (pxelinux(1), GRUB's manual, "Network").

// configName is what a boot loader's configuration file is named after, empty if the file is none.
func configName(file string) string {
	file = strings.ReplaceAll(file, `\`, "/")
	base := lastElement(file)
	if strings.HasSuffix(strings.TrimSuffix(file, base), "pxelinux.cfg/") {
		return base
	}
	after, _ := strings.CutPrefix(base, "grub.cfg-")
	if after == base {
		return ""
	}
	return after
}

// addressOf is the address in a configuration file's name: all eight digits of it; fewer are of many machines.
func addressOf(file string) netip.Addr {
	name := configName(file)
	b, err := hex.DecodeString(name)
	if len(name) != 8 || err != nil {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(b))
}

// uuidOf is the UUID that a request names, in its file or in a field of its query that is called uuid.
func uuidOf(file, query string) string {
	if len(file) > 36 {
		if u, ok := uuid(configName(file)); ok {
			return u
		}
	}
	for len(query) > 36 {
		var field string
		field, query, _ = strings.Cut(query, "&")
		if name, value, _ := strings.Cut(field, "="); strings.EqualFold(name, "uuid") {
			u, _ := uuid(value)
			return u
		}
	}
	return ""
}

// uuid reads the usual form, 8-4-4-4-12, and gives it in lower case.
func uuid(s string) (string, bool) {
	if len(s) != 36 {
		return "", false
	}
	for i := range len(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash && s[i] != '-' || !dash && !hexDigit(s[i]) {
			return "", false
		}
	}
	return strings.ToLower(s), true
}

// uuidOfClient is the UUID in a DHCP client identifier: type 0 and the UUID, as PXE firmware sends it (PXE 2.1, 2.2.3), or type
// 255, an IAID and a DUID of type 4 (RFC 4361, 6.1; RFC 6355).
func uuidOfClient(id string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(id, ":", ""))
	switch {
	case err != nil:
		return ""
	case len(b) == 17 && b[0] == 0:
		b = b[1:]
	case len(b) == 23 && b[0] == 255 && b[5] == 0 && b[6] == 4:
		b = b[7:]
	default:
		return ""
	}
	s := hex.EncodeToString(b)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// OtherOrder is the same UUID with its first three fields in the other byte order. PXE firmware and PXELINUX take the bytes as
// they come, Linux and iPXE swap them (SMBIOS 2.6, 7.2.1). The empty text if it is no UUID.
func OtherOrder(s string) string {
	u, ok := uuid(s)
	if !ok {
		return ""
	}
	return u[6:8] + u[4:6] + u[2:4] + u[0:2] + "-" + u[11:13] + u[9:11] + "-" + u[16:18] + u[14:16] + u[18:]
}
