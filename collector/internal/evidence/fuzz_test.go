// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/evidence"
	"provost/proto"
)

// seeds are one line in seven of the real logs, and every message of the tables.
func seeds(f *testing.F) {
	files, err := filepath.Glob("testdata/logs/*.log")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for i, line := range bytes.Split(b, []byte("\n")) {
			if i%7 == 0 {
				f.Add(line)
			}
		}
	}
	for _, m := range messages {
		f.Add([]byte("2026-11-20T17:46:51.123456+00:00 front " + m.tag + ": " + m.text))
	}
	f.Add([]byte(`{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1795196811123000","SYSLOG_IDENTIFIER":"dhcpd","MESSAGE":[68,72,67,80]}`))
	f.Add([]byte("<30>1 2026-11-20T17:46:51Z front dhcpd 1 - [a b=\"]\"] x"))
}

// check says what holds for every line whatsoever.
func check(t *testing.T, line []byte) {
	before := bytes.Clone(line)
	p := parser()
	f, v := p.Parse(line)
	if !bytes.Equal(before, line) {
		t.Fatalf("Parse changed its line %q", before)
	}
	if v != evidence.Known {
		if f.Kind != "" || f.MAC != "" || f.IP.IsValid() {
			t.Errorf("Parse(%q) = %v with a fact: %+v", line, v, f)
		}
		return
	}
	if f.Program == "" || f.Kind == "" {
		t.Errorf("Parse(%q): program %q, kind %q", line, f.Program, f.Kind)
	}
	if f.MAC != "" {
		if m, err := proto.NormalMAC(f.MAC); err == nil && m != f.MAC {
			t.Errorf("Parse(%q): MAC %q is not in its normal form", line, f.MAC)
		}
	}
	if !f.Time.IsZero() && f.Time.Year() > 9999 {
		t.Errorf("Parse(%q): time %v", line, f.Time)
	}
	if f.Bytes < 0 || f.Status < 0 {
		t.Errorf("Parse(%q): status %d, %d bytes", line, f.Status, f.Bytes)
	}
	if _, again := p.Parse(line); again != v {
		t.Errorf("Parse(%q) = %v, then %v", line, v, again)
	}
	// What follows in the pipeline must take every fact, too.
	j, m := evidence.NewJoiner(), evidence.NewMapper(nil)
	for range 2 {
		if g, ok := j.Add(f); ok {
			m.Map(&g)
		}
	}
}

func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(check)
}

// Each parser by itself: the header is given, so that the fuzzer works on what the program says.
func FuzzPrograms(f *testing.F) {
	for i, m := range messages {
		f.Add(byte(i), m.text)
	}
	tags := []string{"dhcpd", "kea-dhcp4", "dnsmasq-dhcp", "dnsmasq-tftp", "in.tftpd", "atftpd", "httpd", "nginx", "preseed", "dnsmasq"}
	f.Fuzz(func(t *testing.T, which byte, text string) {
		check(t, []byte("Nov 20 17:46:51 front "+tags[int(which)%len(tags)]+"[1]: "+text))
	})
}

func FuzzStamp(f *testing.F) {
	for _, h := range headers {
		f.Add(strings.ReplaceAll(strings.ReplaceAll(h.format, "%[1]s", "dhcpd[1]"), "%[2]s", ""))
	}
	f.Fuzz(func(t *testing.T, head string) {
		check(t, []byte(head+"DHCPDISCOVER from "+m1+" via br0"))
	})
}

func FuzzJournald(f *testing.F) {
	for _, m := range messages {
		b, err := json.Marshal(map[string]string{"SYSLOG_IDENTIFIER": m.tag, "MESSAGE": m.text, "__REALTIME_TIMESTAMP": "1795196811123000"})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		check(t, b)
	})
}

// TestLinear gives every parser the longest lines of the kinds that make careless ones quadratic.
func TestLinear(t *testing.T) {
	p := parser()
	for _, unit := range []string{" ", "[", "]", "(", ")", "\"", "\\", "\\x41", "%41", "a:", "52:54:", "52-54-", ") via ", " to ", ": ", ", ", "[a", "1 ", "\"GET / ", "/boot/", "initrd/", "{\"a\":[", ", client: ", "[client ", "1,"} {
		for _, head := range []string{"", "{", "Nov 20 17:46:51 f dhcpd[1]: DHCPACK on 10.0.0.1 to " + m1 + " (", "Nov 20 17:46:51 f dnsmasq-tftp[1]: sent ", "Nov 20 17:46:51 f dnsmasq-dhcp[1]: DHCPACK(", "<30>1 2026-11-20T17:46:51Z a dhcpd 1 - [",
			`10.0.0.1 - - [20/Nov/2026:17:47:07 +0000] "GET /`, "[Fri Nov 20 17:48:37.073924 2026] [", "2026/11/20 17:46:47 [error] 1#1: *1 ", "2026-11-20 19:21:55.916 INFO  [kea-dhcp4", `{"MESSAGE":[`} {
			took := func(size int) time.Duration {
				line := []byte(head + strings.Repeat(unit, (size-len(head)-1)/len(unit)))
				best := time.Hour
				for range 3 {
					start := time.Now()
					p.Parse(line)
					best = min(best, time.Since(start))
				}
				return best
			}
			// Four times the length: four times the time if it is linear, sixteen times if it is quadratic. What takes
			// no 5 ms cannot be told apart, and does not matter. A machine that does other things is asked again.
			var long, short time.Duration
			linear := false
			for try := 0; try < 10 && !linear; try++ {
				long = took(evidence.MaxLine)
				if linear = long <= 5*time.Millisecond; !linear {
					short = took(evidence.MaxLine / 4)
					linear = long <= 10*short
				}
			}
			if !linear {
				t.Errorf("%.40q and many %q: %v, but %v for a quarter of it", head, unit, long, short)
			}
		}
	}
}
