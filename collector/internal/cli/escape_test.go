// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"provost/collector/internal/cli"
	"provost/proto"
)

func TestClean(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain", "plain"}, {"ünïcödé 漢字", "ünïcödé 漢字"}, {`back\slash`, `back\slash`}, {"", ""},
		{"\x1b[2J", `\x1b[2J`}, {"a\rb\nc\td", `a\rb\nc\td`}, {"\x9b2J", `\x9b2J`}, {"\u009b2J", `\u009b2J`}, {"\x7f\x00\x07", `\x7f\x00\x07`},
		{"user\u202egpj.exe", `user\u202egpj.exe`}, {"a\u2028b\u200b", `a\u2028b\u200b`}, {"tag\U000e0041", `tag\U000e0041`}, {"\xed\xa0\x80", `\xed\xa0\x80`},
		{"cut\xe2\x82", `cut\xe2\x82`}, {"\ufffd stays", "\ufffd stays"},
	} {
		if got := cli.Clean(tt.in); got != tt.want {
			t.Errorf("clean(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// safe fails when s has anything but text, newlines and what more allows.
func safe(t interface {
	Errorf(string, ...any)
	Helper()
}, what, s, more string) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Errorf("%s: not UTF-8: %q", what, s)
	}
	for i, r := range s {
		if cli.Hostile(r) && r != '\n' && !strings.ContainsRune(more, r) {
			t.Errorf("%s: %U at %d reaches the terminal: …%q", what, r, i, s[max(0, i-20):min(len(s), i+20)])
			return
		}
	}
}

func escape(t interface{ Fatal(...any) }, pieces ...[]byte) string {
	var b bytes.Buffer
	w := cli.NewEscapeWriter(&b)
	for _, p := range pieces {
		if n, err := w.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestEscapeWriter(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"one\ntwo\tx\n", "one\ntwo\tx\n"}, {"dos\r\nline\r\n", "dos\nline\n"}, {"50%\r100%\n", "50%\\r100%\n"}, {"\r", `\r`}, {"\r\r\n", "\\r\n"},
		{"\x1b]0;t\x07", `\x1b]0;t\x07`}, {"tö\xc3", `tö\xc3`}, {"\u202e", `\u202e`},
	} {
		if got := escape(t, []byte(tt.in)); got != tt.want {
			t.Errorf("escape(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// hostileBytes draws text with much that is not.
func hostileBytes() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		parts := rapid.SliceOf(rapid.OneOf(rapid.SampledFrom(payloads), rapid.String(),
			rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 6), func(b []byte) string { return string(b) }))).Draw(t, "parts")
		return []byte(strings.Join(parts, ""))
	})
}

// However a text is cut into pieces, what comes out is the same, and safe.
func TestEscapeWriterInPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := hostileBytes().Draw(t, "text")
		whole := escape(t, in)
		safe(t, "escape", whole, "\t")
		var pieces [][]byte
		for rest := in; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		if got := escape(t, pieces...); got != whole {
			t.Fatalf("in pieces %q: %q, whole %q", pieces, got, whole)
		}
	})
}

// A JSON document stays the same document, and is safe.
func TestJSONWriter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := map[string]string{}
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			in[string(hostileBytes().Draw(t, "k"))] = string(hostileBytes().Draw(t, "v"))
		}
		doc, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w := cli.NewJSONWriter(&out)
		for rest := doc; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			w.Write(rest[:n])
			rest = rest[n:]
		}
		safe(t, "json", out.String(), "")
		var want, got map[string]string
		if err := json.Unmarshal(doc, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("no JSON any more: %v: %s", err, out.String())
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("another document (-want +got):\n%s", d)
		}
	})
}

// FuzzEscapeWriter wants that no bytes in any two pieces reach a terminal unescaped.
func FuzzEscapeWriter(f *testing.F) {
	for _, p := range payloads {
		f.Add([]byte(p), 1)
	}
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		at = min(max(at, 0), len(in))
		got := escape(t, in[:at], in[at:])
		safe(t, "escape", got, "\t")
		if want := escape(t, in); got != want {
			t.Errorf("cut at %d: %q, whole %q", at, got, want)
		}
	})
}

// everyCommand is each command that shows what nodes said.
var everyCommand = []string{
	"status", "status -o wide", "status -o json", "status -o yaml", "status -o csv", "status -o name", "status --by cause",
	"explain n2", "explain n2 -o json", "explain n2 -o yaml", "timeline n2", "timeline n2 -o json", "timeline n2 -o yaml",
	"log n2", "log n2 otherpkgs", "log n2 -o json", "log n2 nosuch", "node list", "node list -o json", "node list -o yaml", "node show n2", "node show n2 -o json",
	"node show n2 -o yaml", "profile list", "profile show compute", "profile show compute -o json", "profile show compute -o yaml", "boot n2", "boot n2 disk",
	"boot n2 -o yaml", "install n2 --yes", "install n2 --yes -o json", "retry n2", "retry n2 -o json", "node set n2 --profile x", "version",
	"doctor", "doctor -o json", "doctor -o yaml", "history n2", "history n2 --plan", "history n2 --plan -o json", "history n2 --plan -o yaml", "events", "events n2 --since-revision 1",
	"__complete status n",
}

// otherCommands change what there is, take time or read files, so that a second run need not say the same.
var otherCommands = []string{
	"status --wait --timeout 1ms", "skip n2", "release n2", "hold n2", "abort n2 --yes", "force n2 all", "ssh n1 true", "reload", "reload -o json",
	"node add n9 --mac 52:54:00:00:00:09", "node adopt 52:54:00:00:00:01 n9", "node rename n2 n9", "node rm n2 --yes", "node import hostile.csv --dry-run", "node render n2",
	"probe --logs hostile.log", "probe --logs hostile.log -V", "probe --logs hostile.log -o json", "probe --logs hostile.log -o yaml", "check hostile", "completion bash",
}

// TestEveryCommandIsTried: none of the program's commands is missing above.
func TestEveryCommandIsTried(t *testing.T) {
	var walk func(path string)
	walk = func(path string) {
		var out, errs strings.Builder
		program(&out, &errs).Run(t.Context(), append([]string{"__complete"}, append(strings.Fields(path), "")...))
		subs := 0
		for line := range strings.Lines(out.String()) {
			name, about, ok := strings.Cut(strings.TrimSpace(line), "\t")
			if !ok || about == "" || name == "help" {
				continue
			}
			subs++
			walk(strings.TrimSpace(path + " " + name))
		}
		if subs == 0 && !slices.ContainsFunc(slices.Concat(everyCommand, otherCommands), func(c string) bool { return c == path || strings.HasPrefix(c, path+" ") }) {
			t.Errorf("provost %s is not tried with hostile text", path)
		}
	}
	walk("")
}

// TestHostile runs every command against nodes that say bad things wherever a text can stand.
func TestHostile(t *testing.T) {
	all := strings.Join(payloads, " ")
	dir := t.TempDir()
	var log strings.Builder
	for i, p := range payloads {
		line := strings.ReplaceAll(p, "\n", " ")
		fmt.Fprintf(&log, "Nov 20 12:00:%02d f%s dnsmasq-dhcp[1]: DHCPACK(eth0) 10.0.0.%d 52:54:00:00:00:%02x %s\n", i, line, i+1, i+1, line)
		fmt.Fprintf(&log, "Nov 20 12:00:%02d front dnsmasq-tftp[1]: file /srv/tftp/%s not found for 10.0.0.%d\n", i, line, i+1)
	}
	for name, text := range map[string]string{"hostile.log": log.String(), "hostile.csv": "name,mac,profile\n\"" + strings.ReplaceAll(all, "\"", "") + "\",x,y\n",
		"hostile/profiles/x.yaml": "name: \"x\"\nkind: \"" + "\\e[31m" + "\"\nargs: \"" + "\\u202e" + "\"\n"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, f := range map[string]*fake{
		"nodes":   hostileWorld(),
		"refused": {refuse: &proto.Problem{Status: 409, Code: proto.CodeConflict, Detail: all, Hint: all, Incident: all}},
	} {
		t.Run(name, func(t *testing.T) {
			start(t, f)
			for _, cmd := range slices.Concat(everyCommand, otherCommands) {
				var out, errs strings.Builder
				program(&out, &errs, "PROVOST_SERVER="+f.server()).Run(t.Context(), strings.Fields(strings.ReplaceAll(cmd, "hostile", dir+"/hostile")))
				safe(t, cmd, out.String(), "")
				safe(t, cmd+", stderr", errs.String(), "")
				if out.Len()+errs.Len() == 0 {
					t.Errorf("%s: no output at all", cmd)
				}
				if name == "refused" {
					continue
				}
				switch {
				case strings.HasSuffix(cmd, "-o json"):
					sameDocument(t, cmd, out.String(), func(v any) error { return json.Unmarshal([]byte(out.String()), v) })
				case strings.HasSuffix(cmd, "-o yaml"):
					sameDocument(t, cmd, out.String(), func(v any) error { return yaml.Unmarshal([]byte(out.String()), v) })
				}
			}
		})
	}
}

// sameDocument wants that the document can be read, and that a hostile text in it is what it was.
func sameDocument(t *testing.T, cmd, text string, read func(any) error) {
	t.Helper()
	var v any
	if err := read(&v); err != nil {
		t.Errorf("%s: %v in %.300q", cmd, err, text)
		return
	}
	found := false
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		case string:
			found = found || strings.Contains(v, "user\u202egpj.exe")
		}
	}
	walk(v)
	if !found && strings.Contains(text, "gpj.exe") {
		t.Errorf("%s: the text is not what the node said: %.300q", cmd, text)
	}
}
