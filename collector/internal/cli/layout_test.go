// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"provost/collector/internal/cli"
)

func TestSpan(t *testing.T) {
	for _, tt := range []struct{ in, want, offset string }{
		{"0s", "0s", "+0s"}, {"42.9s", "42s", "+42s"}, {"60s", "1m00s", "+1m00s"}, {"9m59s", "9m59s", "+9m59s"}, {"10m", "10m", "+10m00s"},
		{"59m59s", "59m", "+59m59s"}, {"1h", "1h00m", "+1h00m"}, {"47h59m", "47h59m", "+47h59m"}, {"48h", "2d", "+2d"}, {"8760h", "365d", "+365d"},
		{"-90s", "1m30s", "-1m30s"},
	} {
		d, err := time.ParseDuration(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if got := cli.Span(d); got != tt.want || len(got) > 6 {
			t.Errorf("span(%s) = %q, want %q", tt.in, got, tt.want)
		}
		if got := cli.Offset(d); got != tt.offset || len(got) > 7 {
			t.Errorf("offset(%s) = %q, want %q", tt.in, got, tt.offset)
		}
	}
}

func TestTook(t *testing.T) {
	for ms, want := range map[int64]string{0: "0ms", 999: "999ms", 2140: "2.1s", 59999: "59.9s", 312000: "5m12s", 3720000: "1h02m"} {
		if got := cli.Took(ms); got != want {
			t.Errorf("took(%d) = %q, want %q", ms, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 3 << 20: "3.0 MiB", 5 << 40: "5.0 TiB"} {
		if got := cli.Size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestCells(t *testing.T) {
	for s, want := range map[string]int{"": 0, "abc": 3, "ü": 1, "e\u0301": 1, "漢字": 4, "…": 1, "🙂": 2} {
		if got := cli.Cells(s); got != want {
			t.Errorf("cells(%q) = %d, want %d", s, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		in    string
		width int
		want  []string
	}{
		{"", 10, []string{""}},
		{"one two three", 8, []string{"one two", "three"}},
		{"a verylongwordindeed b", 8, []string{"a", "verylong", "wordinde", "ed b"}},
		{"\u0300 A", 8, []string{"\u0300 A"}}, // a mark alone takes no cell and is still a word
		{"漢字漢字漢字", 8, []string{"漢字漢字", "漢字"}},
	} {
		if d := cmp.Diff(tt.want, cli.Wrap(tt.in, tt.width)); d != "" {
			t.Errorf("wrap(%q, %d) (-want +got):\n%s", tt.in, tt.width, d)
		}
	}
}

// No line is wider than it may be, and no word is lost.
func TestWrapKeepsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := cli.Clean(string(hostileBytes().Draw(t, "text")))
		width := rapid.IntRange(8, 100).Draw(t, "width")
		lines := cli.Wrap(in, width)
		for _, l := range lines {
			if cli.Cells(l) > width {
				t.Fatalf("wrap(%q, %d) has a line of %d cells: %q", in, width, cli.Cells(l), l)
			}
		}
		bare := func(s string) string { return strings.Join(strings.Fields(s), "") }
		if got := bare(strings.Join(lines, "")); got != bare(in) {
			t.Fatalf("wrap(%q, %d) = %q", in, width, lines)
		}
		if got := cli.Cut(in, width); cli.Cells(got) > width {
			t.Fatalf("cut(%q, %d) = %q of %d cells", in, width, got, cli.Cells(got))
		}
	})
}

// A sentence begins with a capital, unless it begins with a name.
func TestSentence(t *testing.T) {
	for in, want := range map[string]string{"": ".", "lease given": "Lease given.", "nosuch/pxelinux.0 is not there": "nosuch/pxelinux.0 is not there.",
		"failed(motd=1): x": "failed(motd=1): x.", "vmlinuz-5 may not": "vmlinuz-5 may not.", "Up": "Up."} {
		if got := cli.Sentence(in); got != want {
			t.Errorf("sentence(%q) = %q, want %q", in, got, want)
		}
	}
}
