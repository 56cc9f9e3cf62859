// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"
)

// crockford is the alphabet of a ULID (https://github.com/ulid/spec): base 32 without I, L, O, U.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// NewID makes a ULID: 48 bits of milliseconds since 1970, then 80 random bits, as 26 characters. Ids sort by the
// maker's clock, which proves nothing: the ordinal of an install says which one is newer.
func NewID(now time.Time) string {
	var raw [16]byte
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		raw[i] = byte(ms >> (40 - 8*i))
	}
	rand.Read(raw[6:]) // never fails: crypto/rand crashes the program instead
	// 128 bits are 26 digits of 5 bits, the first of which holds only the top 3.
	var out [26]byte
	var acc uint64
	bits, n := 2, 0 // two leading zero bits make 130 = 26*5
	for _, b := range raw {
		acc = acc<<8 | uint64(b)
		bits += 8
		for bits >= 5 {
			bits -= 5
			out[n] = crockford[acc>>bits&31]
			n++
		}
	}
	return string(out[:])
}

var (
	nodeRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$`)
	attrRE = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)
)

// ValidID reports whether s is a ULID as NewID makes it.
func ValidID(s string) bool {
	for i := range len(s) {
		if strings.IndexByte(crockford, s[i]) < 0 {
			return false
		}
	}
	return len(s) == 26 && s[0] <= '7'
}

// ValidBoot reports whether s is a kernel boot id as in /proc/sys/kernel/random/boot_id.
func ValidBoot(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch dash := i == 8 || i == 13 || i == 18 || i == 23; {
		case dash && s[i] != '-', !dash && !hexDigit(s[i]):
			return false
		}
	}
	return true
}

func hexDigit(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }

func hexDigits(s string) bool {
	for i := range len(s) {
		if !hexDigit(s[i]) {
			return false
		}
	}
	return true
}

// ValidJournal reports whether s is a journal's id: 16 lower-case hex digits.
func ValidJournal(s string) bool { return len(s) == 16 && hexDigits(s) }

// ValidDigest reports whether s is a SHA-256 in lower-case hex.
func ValidDigest(s string) bool { return len(s) == 64 && hexDigits(s) }

// CheckNode says what is wrong with a node's name: 1 to 64 of a-z, 0-9, dot and dash, ending and starting with a
// letter or digit (host names after RFC 1123, lower case), and not an IP address.
func CheckNode(s string) error {
	if !nodeRE.MatchString(s) || strings.Contains(s, "..") {
		return fmt.Errorf("node name %q: use 1 to 64 of a-z, 0-9, dot and dash, starting and ending with a letter or digit", s)
	}
	if net.ParseIP(s) != nil {
		return fmt.Errorf("node name %q is an address: give the node a name, and the address with --ip", s)
	}
	return nil
}

// CheckName says what is wrong with the name of a step, stage, profile, group, label or log: 1 to 64 of letters,
// digits, dot, underscore and dash, starting with a letter or digit. Such a name is safe as a file's name.
func CheckName(what, s string) error {
	if !validName(s) {
		return fmt.Errorf("%s %q: use 1 to 64 letters, digits, '.', '_' and '-', starting with a letter or digit, without '..'", what, s)
	}
	return nil
}

func validName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		case i == 0, c != '.' && c != '_' && c != '-', c == '.' && s[i-1] == '.':
			return false
		}
	}
	return len(s) > 0 && len(s) <= 64
}

// CheckAttr says what is wrong with an attribute: its key becomes part of an environment variable's name
// (PROVOST_ATTR_KEY), its value is one line of at most 4096 bytes without control characters.
func CheckAttr(key, value string) error {
	if !attrRE.MatchString(key) {
		return fmt.Errorf("attribute %q: a key is 1 to 64 letters, digits, '_' and '-', starting with a letter", key)
	}
	if len(value) > 4096 {
		return fmt.Errorf("attribute %s: value of %d bytes, at most 4096 are allowed", key, len(value))
	}
	for _, r := range value {
		if r < 0x20 || r == 0x7f {
			return fmt.Errorf("attribute %s: value %q has a control character", key, value)
		}
	}
	return nil
}

// NormalMAC gives a network card's address as aa:bb:cc:dd:ee:ff. It takes colons, dashes (also iPXE's hexhyp), Cisco's
// dots, bare hex digits, digits without leading zeros, and the hardware type in front that PXELINUX, BOOTIF and DHCP client
// identifiers have (01-aa-bb-…; RFC 2132, 9.14). Client identifiers of RFC 4361 name no card and are refused.
//
// Of Infiniband it gives the port's GUID, 8 bytes: the last ones of the 20-byte hardware address (RFC 4391, 9.1.1), whose
// others change with the loader and the driver, and of the client identifier that Mellanox' firmware makes of it.
func NormalMAC(s string) (string, error) {
	hw, ok := hardwareAddress(strings.ToLower(strings.TrimSpace(s)))
	switch {
	case len(hw) == 7 && hw[0] == 1:
		hw = hw[1:]
	case len(hw) == 20 && (hw[0] != 0xff || string(hw[5:12]) == "\x00\x02\x00\x00\x02\xc9\x00"):
		hw = hw[12:]
	}
	if !ok || len(hw) != 6 && len(hw) != 8 {
		return "", fmt.Errorf("%q is no Ethernet address: write it like 52:54:00:12:34:56", s)
	}
	if hw[0]&1 != 0 {
		return "", fmt.Errorf("%q is a multicast address: a node's own address has an even first byte", s)
	}
	return hw.String(), nil
}

func hardwareAddress(s string) (net.HardwareAddr, bool) {
	sep := ""
	for _, c := range []string{":", "-"} {
		if strings.Contains(s, c) {
			sep = c
		}
	}
	switch {
	case len(s) > 64:
		return nil, false
	case sep != "":
		var hw net.HardwareAddr
		for part := range strings.SplitSeq(s, sep) {
			if len(part) == 1 {
				part = "0" + part
			}
			b, err := hex.DecodeString(part)
			if err != nil || len(b) != 1 {
				return nil, false
			}
			hw = append(hw, b[0])
		}
		return hw, true
	case strings.Contains(s, "."):
		hw, err := net.ParseMAC(s)
		return hw, err == nil
	}
	b, err := hex.DecodeString(s)
	return b, err == nil
}

// Digest is the SHA-256 of b in lower-case hex: the name under which a script is kept and fetched.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// NewJournal makes a journal's id.
func NewJournal() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// NewSecret makes a claim, ticket, token or key: 256 random bits in hex.
func NewSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
