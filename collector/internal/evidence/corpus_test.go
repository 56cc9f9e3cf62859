// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/evidence"
)

// expected says, with regular expressions and so independently of the parsers, which kind a line of the real logs has.
// The first row that fits decides.
var expected = []struct {
	re   *regexp.Regexp
	kind evidence.Kind // empty: no fact
}{
	{regexp.MustCompile(`DHCP(INFORM|RELEASE)|DHCPACK to |DHCP4_(RELEASE|INFORM|STAR|SHUT|CONFIG|MULTI|CLASS|QUERY|RESPONSE|BUFFER|CLIENT|SUBNET|PACKET_PACK|PACKET_DROP_0009)`), ""},
	{regexp.MustCompile(`DHCP4_PACKET_DROP_0003`), evidence.Request},
	{regexp.MustCompile(`DHCP4_PACKET_SEND .* packet DHCPACK`), ""},
	{regexp.MustCompile(`no free leases|no address (available|configured)|ALLOC_FAIL(_SUBNET)? |NAK_0003`), evidence.NoLeases},
	{regexp.MustCompile(`via \S+: wrong network|NAK_0001`), evidence.WrongNetwork},
	{regexp.MustCompile(`DHCPNAK|PACKET_NAK_000[24]`), evidence.Nak},
	{regexp.MustCompile(`DHCPDECLINE|DECLINE_LEASE`), evidence.Decline},
	{regexp.MustCompile(`DHCPDISCOVER|BOOTREQUEST`), evidence.Discover},
	{regexp.MustCompile(`DHCPOFFER|LEASE_(ADVERT|OFFER)`), evidence.Offer},
	{regexp.MustCompile(`DHCPREQUEST|INIT_REBOOT`), evidence.Request},
	{regexp.MustCompile(`DHCPACK|BOOTREPLY|LEASE_ALLOC `), evidence.Ack},
	{regexp.MustCompile(`requested options:`), ""},
	{regexp.MustCompile(`vendor class|user class|bootfile|next server|client provides name|server-identifier`), evidence.Detail},

	{regexp.MustCompile(`^\.ks" failed`), ""}, // torn, see below
	{regexp.MustCompile(`NAK \(1, |not found|AH00128|\(2: No such.*request:|" 404 `), evidence.NotFound},
	{regexp.MustCompile(`NAK \(0, Perm|cannot access|\(13\)Perm.*client|\(13: Perm|forbidden by rule|" 403 `), evidence.Forbidden},
	{regexp.MustCompile(`NAK \(4, |ks\.cfg.*" 502 |connect\(\) failed.*ks.cfg`), evidence.Refused},
	{regexp.MustCompile(`error [08] |does not accept options|tftpd: read:|Aborting transfer|prematurely closed`), evidence.Aborted},
	{regexp.MustCompile(`End of transfer`), evidence.TransferEnd},
	{regexp.MustCompile(`(Serving|filename) (noread|a b|$| to)|Serving  to`), evidence.Detail},

	{regexp.MustCompile(`successfully loaded preseed`), evidence.Answer},
	{regexp.MustCompile(`(RRQ|Serving|sent |finished |"GET).*(pxelinux\.0|ldlinux\.c32|vesamenu\.c32|grubx64\.efi)`), evidence.BootLoader},
	{regexp.MustCompile(`(RRQ|finished ).*pxelinux\.cfg|"GET /boot(\.ipxe|/52).* 200 `), evidence.BootScript},
	{regexp.MustCompile(`(RRQ|Serving|sent |finished |"GET .*" 200).*vmlinuz|"GET .*vmlinuz.* 200 `), evidence.Kernel},
	{regexp.MustCompile(`(RRQ|Serving|sent |finished ).*(mini|initrd)|"GET .*(mini|initrd|agent)\.img.* 20[06] `), evidence.Initrd},
	{regexp.MustCompile(`"GET .*/ks\.cfg.* 200 `), evidence.Answer},
	{regexp.MustCompile(`"GET .*rootfs`), evidence.Image},
	{regexp.MustCompile(`"GET /a.*\.ks HTTP/1.0" 400`), evidence.Refused},
}

// A file whose name holds a newline tears nginx's error line in two.
var unknownLines = regexp.MustCompile(`^\.ks" failed`)

// TestCorpus runs over lines that the real programs wrote: every line that concerns a boot gives its stage, and no line
// is broken.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/logs/*.log")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d logs, %v", len(files), err)
	}
	p := parser()
	facts := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(bytes.NewReader(b))
		for n := 1; sc.Scan(); n++ {
			line := sc.Text()
			want := evidence.Kind("")
			for _, e := range expected {
				if e.re.MatchString(line) {
					want = e.kind
					break
				}
			}
			if strings.Contains(line, `"HEAD `) || strings.Contains(line, "[notice]") {
				want = ""
			}
			f, v := p.Parse([]byte(line))
			switch {
			case v == evidence.Broken || v == evidence.Unknown && !unknownLines.MatchString(line):
				t.Errorf("%s:%d: %v: %.200q", file, n, v, line)
			case f.Kind != want && !(want == evidence.NotFound && v != evidence.Known && strings.Contains(line, `a"b`)):
				t.Errorf("%s:%d: kind %q, want %q: %.200q", file, n, f.Kind, want, line)
			case f.Kind.Stage() && !f.IP.IsValid() && f.MAC == "":
				t.Errorf("%s:%d: names nobody: %.200q", file, n, line)
			case v == evidence.Known && f.Program == "":
				t.Errorf("%s:%d: no program: %.200q", file, n, line)
			}
			if f.Kind != "" {
				facts++
			}
		}
	}
	if facts < 500 {
		t.Errorf("%d facts, want at least 500", facts)
	}
}

// TestKnownFailures has the lines on which others' log readers are known to fail.
func TestKnownFailures(t *testing.T) {
	p := parser()
	at := time.Date(2026, 11, 20, 17, 46, 51, 0, time.UTC)
	for _, tt := range []struct {
		name, line string
		kind       evidence.Kind
		host       string
	}{
		{"RFC 3339 with an offset loses the DHCP stage", "2026-11-20T18:46:51.123456+01:00 mgt dhcpd[1]: DHCPACK on 10.77.0.11 to " + m1 + " via br0", evidence.Ack, ""},
		{"a host name in parentheses loses the DHCP stage", "2026-11-20T18:46:51+01:00 mgt dhcpd[1]: DHCPOFFER on 10.77.0.11 to " + m1 + " (node01) via br0", evidence.Offer, "node01"},
		{"the same with a traditional stamp", "Nov 20 17:46:51 mgt dhcpd: DHCPREQUEST for 10.77.0.11 (10.77.0.1) from " + m1 + " (node01) via br0", evidence.Request, "node01"},
		{"a DHCPNAK kills the parser's thread", "Nov 20 17:46:51 mgt dhcpd: DHCPNAK on 10.77.0.11 to " + m1 + " via br0", evidence.Nak, ""},
		{"a DHCPNAK with a reason", "Nov 20 17:46:51 mgt dnsmasq-dhcp[1]: DHCPNAK(br0) 10.77.0.11 " + m1 + " wrong network", evidence.Nak, ""},
		{"a word that is DHCPNACK elsewhere", "Nov 20 17:46:51 mgt dhcpd: DHCPNACK on 10.77.0.11 to " + m1 + " via br0", evidence.Nak, ""},
	} {
		f, v := p.Parse([]byte(tt.line))
		if v != evidence.Known || f.Kind != tt.kind || f.MAC != m1 || f.Host != tt.host || !f.Time.Truncate(time.Second).Equal(at) {
			t.Errorf("%s: Parse(%q) = %+v, %v, want %s of %s (%s)", tt.name, tt.line, f, v, tt.kind, m1, tt.host)
		}
	}
	// After such a line the next one is read as if nothing had been.
	if f, v := p.Parse([]byte("Nov 20 17:46:52 mgt dhcpd: DHCPDISCOVER from " + m1 + " via br0")); v != evidence.Known || f.Kind != evidence.Discover {
		t.Errorf("after a DHCPNAK: %+v, %v", f, v)
	}
}
