// SPDX-License-Identifier: Apache-2.0

package proto_test

import (
	"testing"

	"provost/proto"
)

func TestNormalMAC(t *testing.T) {
	const mac, guid = "52:54:00:00:0d:02", "00:02:c9:03:00:ab:cd:ef"
	for s, want := range map[string]string{
		"52:54:00:00:0D:02": mac, "52-54-00-00-0d-02": mac, "5254.0000.0d02": mac, "525400000d02": mac, " 52:54:00:00:0d:02\n": mac, "52:54:0:0:d:2": mac,
		"01-52-54-00-00-0d-02": mac, "01:52:54:00:00:0d:02": mac, "1:52:54:0:0:d:2": mac, "01525400000d02": mac,
		guid: guid, "0002c90300abcdef": guid,
		"80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:ab:cd:ef": guid,
		"a0-00-02-20-fe-80-00-00-00-00-00-00-00-02-c9-03-00-ab-cd-ef": guid,
		"80000208fe800000000000000002c90300abcdef":                    guid,
		"ff:00:00:00:00:00:02:00:00:02:c9:00:00:02:c9:03:00:ab:cd:ef": guid,
		// RFC 4361, a DUID of another vendor; one with an Ethernet address in it
		"ff:00:00:00:00:00:02:00:00:02:c8:00:00:02:c9:03:00:ab:cd:ef": "", "ff:00:00:0d:02:00:01:00:01:2a:00:00:00:52:54:00:00:0d:02": "",
		"": "", ":": "", "52:54:00:00:0d": "", "52:54:00:00:0d:02:03": "", "06:52:54:00:00:0d:02": "", "52:54-00:00:0d:02": "", "52:54:00:00:0d:002": "",
		"525400000d0": "", "hello": "", "ff:ff:ff:ff:ff:ff": "", "53:54:00:00:0d:02": "", "01:00:5e:00:00:01": "", "52:54:00:00:0d:0x": "", "52:54:00:00:0d:+2": "",
	} {
		if got, err := proto.NormalMAC(s); got != want || (err == nil) != (want != "") {
			t.Errorf("NormalMAC(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
}
