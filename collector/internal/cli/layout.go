// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"provost/proto"
)

// wideRunes lists the ranges of runes that take two cells on a terminal (Unicode Standard Annex 11, W and F, in blocks).
var wideRunes = &unicode.RangeTable{
	R16: []unicode.Range16{{Lo: 0x1100, Hi: 0x115f, Stride: 1}, {Lo: 0x2e80, Hi: 0x303e, Stride: 1}, {Lo: 0x3041, Hi: 0xa4cf, Stride: 1},
		{Lo: 0xac00, Hi: 0xd7a3, Stride: 1}, {Lo: 0xf900, Hi: 0xfaff, Stride: 1}, {Lo: 0xfe30, Hi: 0xfe6f, Stride: 1},
		{Lo: 0xff00, Hi: 0xff60, Stride: 1}, {Lo: 0xffe0, Hi: 0xffe6, Stride: 1}},
	R32: []unicode.Range32{{Lo: 0x1f300, Hi: 0x1faff, Stride: 1}, {Lo: 0x20000, Hi: 0x3fffd, Stride: 1}},
}

func runeCells(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.Is(wideRunes, r):
		return 2
	}
	return 1
}

// cells is how many columns a cleaned text takes on a terminal.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n += runeCells(r)
	}
	return n
}

// cut shortens a cleaned text to at most max cells, and says so with "…".
func cut(s string, max int) string {
	if len(s) <= max || cells(s) <= max {
		return s
	}
	n := 0
	for i, r := range s {
		if n += runeCells(r); n > max-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// pad fills a cleaned text up to width cells.
func pad(s string, width int) string {
	n := len(s)
	if n > 0 && !ascii(s) {
		n = cells(s)
	}
	const blanks = "                                                                "
	for n < width {
		k := min(width-n, len(blanks))
		s += blanks[:k]
		n += k
	}
	return s
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// wrap folds a cleaned text at blanks into lines of at most width cells. A word that is longer than a line is broken
// behind a slash or comma in the line's second half, else where it must be.
func wrap(s string, width int) []string {
	width = max(width, 8)
	var lines []string
	line, n := "", 0
	for word := range strings.FieldsSeq(s) {
		w := cells(word)
		if line != "" && n+1+w <= width {
			line, n = line+" "+word, n+1+w
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		for w > width {
			head := hard(word, width)
			lines = append(lines, head)
			word = word[len(head):]
			w = cells(word)
		}
		line, n = word, w
	}
	if line != "" || len(lines) == 0 {
		lines = append(lines, line)
	}
	return lines
}

// prefix is the longest begin of s that fits into width cells, at least one rune.
func prefix(s string, width int) string {
	n := 0
	for i, r := range s {
		if n += runeCells(r); n > width && i > 0 {
			return s[:i]
		}
	}
	return s
}

// hard is the begin of a word that is too long for a line: up to its last slash or comma, if that is not too early.
func hard(s string, width int) string {
	head := prefix(s, width)
	if at := strings.LastIndexAny(head, "/,") + 1; len(head) < len(s) && at > len(head)/2 {
		return head[:at]
	}
	return head
}

// fold breaks a cleaned line into pieces of at most width cells, behind a blank where there is one in the second half, and
// keeps every character.
func fold(s string, width int) []string {
	width = max(width, 8)
	var out []string
	for cells(s) > width {
		head := prefix(s, width)
		if blank := strings.LastIndexByte(head, ' ') + 1; blank > len(head)/2 {
			head = head[:blank]
		}
		out = append(out, head)
		s = s[len(head):]
	}
	return append(out, s)
}

// wrapList folds a node set at its commas, for it has no blanks; a piece that is longer than the line is left whole, so
// that it can be copied.
func wrapList(s string, width int) []string {
	var lines []string
	line := ""
	for piece := range strings.SplitAfterSeq(s, ",") {
		if line != "" && len(line)+len(piece) > width {
			lines = append(lines, line)
			line = ""
		}
		line += piece
	}
	return append(lines, line)
}

// span writes a length of time in at most six characters, rounded down: 42s, 12m30s below ten minutes, 59m, 3h05m, 12d.
func span(d time.Duration) string {
	if d < 0 {
		d = -d
	}
	s := int(d / time.Second)
	switch {
	case s < 60:
		return strconv.Itoa(s) + "s"
	case s < 600:
		return strconv.Itoa(s/60) + "m" + two(s%60) + "s"
	case s < 3600:
		return strconv.Itoa(s/60) + "m"
	case s < 48*3600:
		return strconv.Itoa(s/3600) + "h" + two(s/60%60) + "m"
	default:
		return strconv.Itoa(s/86400) + "d"
	}
}

// took writes how long something took, exactly enough to compare: 340ms, 2.1s, 5m12s, 1h02m.
func took(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case d < time.Second:
		return strconv.FormatInt(ms, 10) + "ms"
	case d < time.Minute:
		return strconv.FormatFloat(float64(ms/100)/10, 'f', 1, 64) + "s"
	case d < time.Hour:
		s := int(d / time.Second)
		return strconv.Itoa(s/60) + "m" + two(s%60) + "s"
	}
	return span(d)
}

func two(n int) string {
	if n < 10 {
		return "0" + strconv.Itoa(n)
	}
	return strconv.Itoa(n)
}

// ago writes a moment in the past relative to now; a moment that has not come yet is one of a wrong clock.
func ago(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "never"
	case t.After(now.Add(2 * time.Second)):
		return "in " + span(t.Sub(now))
	case now.Sub(t) < 2*time.Second:
		return "just now"
	}
	return roughly(now.Sub(t)) + " ago"
}

// roughly writes a span for a sentence, where seconds beside minutes say nothing.
func roughly(d time.Duration) string {
	if d >= time.Minute && d < time.Hour {
		return strconv.Itoa(int(d/time.Minute)) + "m"
	}
	return span(d)
}

// nextWidth is the room that the status's table leaves to what comes next.
const nextWidth = 24

// due writes what a node must reach next and the time left for it.
func due(d *proto.Deadline, now time.Time) string {
	if d == nil {
		return ""
	}
	if d.At.IsZero() {
		return clean(d.Stage)
	}
	left := d.At.Sub(now)
	if left < 0 {
		return clean(d.Stage) + " overdue " + span(left)
	}
	if !d.Since.IsZero() && d.Since.Before(d.At) && !now.Before(d.Since) { // packages 12:40 of 30:00
		begin := strings.TrimSuffix(clean(d.Stage), "-done") + " " + clock(now.Sub(d.Since))
		if text := begin + " of " + clock(d.At.Sub(d.Since)); cells(text) <= nextWidth {
			return text
		}
		return begin + "/" + clock(d.At.Sub(d.Since))
	}
	return clean(d.Stage) + " in " + span(left)
}

// clock writes a span as clocks do: 0:42, 12:40, 1:05:00; two days and more as 2d.
func clock(d time.Duration) string {
	s := int(d / time.Second)
	switch {
	case s < 3600:
		return strconv.Itoa(s/60) + ":" + two(s%60)
	case s < 48*3600:
		return strconv.Itoa(s/3600) + ":" + two(s/60%60) + ":" + two(s%60)
	}
	return span(d)
}

// size writes bytes for people, in powers of 1024.
func size(n int64) string {
	const units = "KMGTP"
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, u := float64(n), -1
	for f >= 1024 && u < len(units)-1 {
		f /= 1024
		u++
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + units[u:u+1] + "iB"
}

// count writes a number with its noun: "1 node", "38 nodes".
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}
