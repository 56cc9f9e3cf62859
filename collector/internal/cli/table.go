// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"slices"
	"strings"
)

// column is one of a table. Where room is short its cells are cut, never below min cells; then columns are left out,
// the one with the greatest drop first. The first column holds names, which people copy: it is never cut nor left out.
type column struct {
	title string
	min   int
	drop  int
}

// maxName is the widest first column of a table that must fit. A longer name stands on a line of its own.
const maxName = 36

// cell is one field of a row.
type cell struct {
	text   string // cleaned
	colour string
}

func cellWidth(s string) int {
	if ascii(s) {
		return len(s)
	}
	return cells(s)
}

// gap is what stands between two columns.
const gap = 2

// writeTable writes a header and n rows, none wider than width (0: as wide as they like). at gives a row's cells and the
// whole lines that stand under it; it is called twice for each row, so that the rows need not be in memory.
func writeTable(w *bufio.Writer, sc screen, width int, cols []column, n int, at func(int, []cell) []string) {
	want := make([]int, len(cols))
	for i, c := range cols {
		want[i] = len(c.title)
	}
	cs := make([]cell, len(cols))
	for r := range n {
		at(r, cs)
		for i := range cs {
			if k := cellWidth(cs[i].text); k > want[i] && (i > 0 || width == 0 || k <= maxName) {
				want[i] = k
			}
		}
	}
	shown, widths := fit(width, cols, want)
	line := func(cs []cell) {
		blanks := 0
		for _, i := range shown {
			text := cs[i].text
			if i > 0 && width > 0 {
				text = cut(text, widths[i])
			}
			if text != "" {
				w.WriteString(pad("", blanks))
				w.WriteString(sc.paint(cs[i].colour, text))
				blanks = 0
			}
			k := cellWidth(text)
			if k > widths[i] {
				w.WriteByte('\n')
				blanks, k = 0, 0
			}
			blanks += widths[i] - k + gap
		}
		w.WriteByte('\n')
	}
	head := make([]cell, len(cols))
	for i, c := range cols {
		head[i] = cell{c.title, dim}
	}
	line(head)
	for r := range n {
		under := at(r, cs)
		line(cs)
		for _, u := range under {
			w.WriteString(u)
			w.WriteByte('\n')
		}
	}
}

// fit gives the columns that have room, and the widths of all: what is too wide shrinks from the right.
func fit(width int, cols []column, want []int) (shown, widths []int) {
	for i := range cols {
		shown = append(shown, i)
	}
	for {
		widths = slices.Clone(want)
		if width <= 0 {
			return shown, widths
		}
		over := (len(shown)-1)*gap - width
		for _, i := range shown {
			over += widths[i]
		}
		for _, i := range slices.Backward(shown) {
			if i > 0 && over > 0 {
				k := min(over, max(widths[i]-cols[i].min, 0))
				widths[i] -= k
				over -= k
			}
		}
		if over <= 0 || len(shown) == 1 {
			return shown, widths
		}
		out := len(shown) - 1
		for at, i := range shown {
			if cols[i].drop > cols[shown[out]].drop {
				out = at
			}
		}
		shown = slices.Delete(shown, out, out+1)
	}
}

// indented puts blanks in front of every line.
func indented(lines []string, by int) []string {
	for i, l := range lines {
		lines[i] = strings.Repeat(" ", by) + l
	}
	return lines
}

// writeParts writes short texts one after another, in as many lines as they take.
func writeParts(w *bufio.Writer, sc screen, room int, parts []cell) {
	used := 0
	for i, p := range parts {
		switch {
		case i == 0:
		case used+3+cells(p.text) > room:
			w.WriteByte('\n')
			used = 0
		default:
			w.WriteString(" · ")
			used += 3
		}
		w.WriteString(sc.paint(p.colour, p.text))
		used += cells(p.text)
	}
	w.WriteByte('\n')
}
