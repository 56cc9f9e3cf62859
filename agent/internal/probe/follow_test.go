// SPDX-License-Identifier: Apache-2.0

package probe_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"provost/agent/internal/probe"
)

const log = "/var/log/syslog"

// shipped gives the lines that a watch hands on, without head lines.
func shipped(b *bytes.Buffer) []string {
	var out []string
	for l := range strings.Lines(b.String()) {
		if l = strings.TrimSuffix(l, "\n"); !strings.HasPrefix(l, "==> ") {
			out = append(out, l)
		}
	}
	return out
}

func TestRotation(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(m *machine)
		want []string
	}{
		{"grows", func(m *machine) { m.add(log, "3\n") }, []string{"1", "2", "3"}},
		{"truncated", func(m *machine) { m.files[log].text = "a\n" }, []string{"1", "2", "a"}},
		{"written anew, longer than before", func(m *machine) { m.files[log].text = "new one\nnew two\n" }, []string{"1", "2", "new one", "new two"}},
		{"truncated to nothing", func(m *machine) { m.files[log].text = "" }, []string{"1", "2"}},
		{"renamed, its last lines unseen", func(m *machine) {
			m.add(log, "3\n4")
			m.files[log+".0"] = m.files[log]
			m.files[log] = &content{id: "new", text: "5\n"}
		}, []string{"1", "2", "3", "4", "5"}},
		{"y2log's way", func(m *machine) {
			m.add(log, "3\n")
			m.files[log+"-1"] = m.files[log]
			m.files[log] = &content{id: "new"}
		}, []string{"1", "2", "3"}},
		{"replaced, the old one is gone", func(m *machine) { m.files[log] = &content{id: "new", text: "5\n"} }, []string{"1", "2", "5"}},
		{"removed", func(m *machine) { delete(m.files, log) }, []string{"1", "2"}},
		{"becomes a directory", func(m *machine) { m.files[log].dir = true }, []string{"1", "2"}},
		{"arbitrary bytes", func(m *machine) { m.add(log, "\x00\xff\xfe\x1b[2J\r\n\n") }, []string{"1", "2", "\x00\xff\xfe\x1b[2J", ""}},
		{"no line end", func(m *machine) { m.add(log, "half") }, []string{"1", "2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine()
			var b bytes.Buffer
			w := probe.New("debian")
			w.Ship(&b, 0)
			m.add(log, "1\n2\n")
			w.Observe(m)
			c.do(m)
			w.Observe(m)
			w.Observe(m)
			if diff := cmp.Diff(c.want, shipped(&b)); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEndless: a line without an end, and a log that grows faster than it is read, cost bounded memory and lose nothing.
func TestEndless(t *testing.T) {
	m := newMachine()
	var b bytes.Buffer
	w := probe.New("debian")
	w.Ship(&b, 0)
	m.add(log, strings.Repeat("x", 3<<20))
	m.add(log, "\nend\n")
	for range 5 {
		w.Observe(m)
	}
	if m.read > 2<<20 {
		t.Errorf("one read asked for %d bytes, want at most 2 MiB", m.read)
	}
	got := shipped(&b)
	n := 0
	for _, l := range got {
		n += strings.Count(l, "x")
		if len(l) > 16<<10 {
			t.Errorf("a line of %d bytes", len(l))
		}
	}
	if n != 3<<20 || got[len(got)-1] != "end" {
		t.Errorf("%d bytes arrived, then %q; want all and the end", n, got[len(got)-1])
	}
}

// TestShipBound: 4 MiB of the beginning and the end, with the gap said; the end is there when something fails.
func TestShipBound(t *testing.T) {
	m := newMachine()
	var b bytes.Buffer
	w := probe.New("debian")
	w.Ship(&b, 0)
	line := strings.Repeat("y", 1023) + "\n"
	for range 12 {
		m.add(log, strings.Repeat(line, 1<<10))
		w.Observe(m)
	}
	if b.Len() > 6<<20 {
		t.Errorf("shipped %d bytes before there was a reason", b.Len())
	}
	m.add(log, "Nov 20 17:58:33 main-menu[1]: WARNING **: Menu item 'x' failed.\n")
	w.Observe(m)
	text := b.String()
	if !strings.Contains(text, "bytes are missing here") || !strings.HasSuffix(text, "Menu item 'x' failed.\n") || b.Len() > 6<<20 {
		t.Errorf("shipped %d bytes that end in %.200q", b.Len(), text[len(text)-200:])
	}
	m.add(log, "last\n")
	w.Observe(m)
	w.Close()
	if !strings.HasSuffix(b.String(), "last\n") {
		t.Errorf("Close lost the end")
	}
}

// TestFollow: whatever is written in whatever pieces, looked at whenever, arrives once and in order; a restart in between
// changes nothing.
func TestFollow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		var b bytes.Buffer
		w := probe.New("debian")
		w.Ship(&b, 0)
		var want []string
		rotations := 0
		n := rapid.IntRange(1, 30).Draw(t, "n")
		for i := range n {
			l := fmt.Sprintf("%d %s", i, rapid.StringOfN(rapid.RuneFrom([]rune("ab \x00é")), 0, 20, -1).Draw(t, "line"))
			want = append(want, l)
			cut := rapid.IntRange(0, len(l)).Draw(t, "cut")
			m.add(log, l[:cut])
			if rapid.Bool().Draw(t, "look") {
				w.Observe(m)
			}
			m.add(log, l[cut:]+"\n")
			switch rapid.IntRange(0, 5).Draw(t, "then") {
			case 0:
				w.Observe(m)
			case 1:
				marks := w.Marks()
				w = probe.New("debian")
				w.Ship(&b, int64(b.Len()))
				w.Resume(marks)
			case 2:
				w.Observe(m) // one rotation between two looks is what can be seen
				rotations++
				m.files[log+".0"] = m.files[log]
				m.files[log] = &content{id: fmt.Sprint("r", rotations)}
			}
		}
		w.Observe(m)
		if diff := cmp.Diff(want, shipped(&b)); diff != "" {
			t.Fatalf("lines (-want +got):\n%s", diff)
		}
	})
}

func FuzzObserve(f *testing.F) {
	f.Add("debian", "Nov 20 17:58:33 main-menu[1]: WARNING **: Menu item 'x' failed.\n", "more")
	f.Add("suse", "2026-11-20 10:00:00 <5> linux(4711) x\n", "\n")
	f.Add("redhat", "10:41:42,225 CRT x: Traceback (most recent call last)\n", "")
	f.Add("ubuntu", "curtin: Installation failed\n: : \n<", "\x00")
	paths := []string{"/var/log/syslog", "/var/log/YaST2/y2log", "/tmp/anaconda.log", "/tmp/anaconda-tb-1", "/var/log/installer/curtin-install.log"}
	f.Fuzz(func(t *testing.T, family, one, two string) {
		m := newMachine()
		w := probe.New(family)
		for _, text := range []string{one, two, ""} {
			for _, p := range paths {
				m.add(p, text)
			}
			for _, found := range w.Observe(m) {
				e := found.Event("installer-20261120-175802-aaaaaaaa.log")
				e.Seq, e.Boot = 1, "aaaaaaaa-0000-4000-8000-000000000001"
				if err := e.CheckAgent(); err != nil {
					t.Errorf("the collector would refuse %+v: %v", e, err)
				}
			}
		}
	})
}
