// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"slices"
	"sort"
	"strings"
)

// Redacted stands where a secret stood.
const Redacted = "[redacted]"

const (
	// minSecret is the length in bytes from which a secret is looked for: a shorter one is found everywhere.
	minSecret = 4
	// minLine is the same of one line of a secret of several: a key is often printed line by line.
	minLine = 8
)

// Redactor takes secrets out of texts. Its zero value, and nil, knows none.
type Redactor struct {
	needles [][]byte
	longest int
}

// NewRedactor makes one that knows these secrets, and each longer line of them.
func NewRedactor(secrets []string) *Redactor {
	var all []string
	for _, s := range secrets {
		if len(s) >= minSecret {
			all = append(all, s)
		}
		for line := range strings.Lines(s) {
			if line = strings.TrimSpace(line); len(line) >= minLine {
				all = append(all, line)
			}
		}
	}
	slices.Sort(all)
	r := &Redactor{}
	for _, s := range slices.Compact(all) {
		r.needles = append(r.needles, []byte(s))
		r.longest = max(r.longest, len(s))
	}
	return r
}

// String gives the text with every secret replaced, also where two overlap.
func (r *Redactor) String(text string) string {
	if r == nil || len(r.needles) == 0 {
		return text
	}
	f := filter{r: r}
	return string(append(f.write([]byte(text)), f.end()...))
}

// start is String for the start of a text: what may be the start of a secret at its end is left out.
func (r *Redactor) start(text string) string {
	f := filter{r: r}
	return string(f.write([]byte(text)))
}

// filter is a Redactor on a stream: a secret may come in any number of pieces. It keeps back what may be the beginning of
// one, and nothing else.
type filter struct {
	r      *Redactor
	rest   []byte // the beginning of a needle
	inside int    // so many bytes of rest belong to a secret that was found
	in     bool   // the last byte that was given out belonged to one
}

// write takes the next piece and gives what can be shown by now. With no secrets that is the piece itself.
func (f *filter) write(b []byte) []byte {
	if f.r == nil || len(f.r.needles) == 0 {
		return b
	}
	return f.show(append(f.rest, b...), false)
}

// end gives the rest: nothing comes any more.
func (f *filter) end() []byte {
	if len(f.rest) == 0 {
		return nil
	}
	return f.show(f.rest, true)
}

func (f *filter) show(b []byte, end bool) []byte {
	keep := len(b) // from here on it is undecided
	if !end {
		keep = f.beginning(b)
	}
	var out []byte
	at := 0
	last := f.inside
	f.inside = 0
	emit := func(from, to int) { // b[from:to] is a secret's
		from, to = max(from, at), min(to, keep)
		if from > at {
			out = append(out, b[at:from]...)
			at, f.in = from, false
		}
		if to > from {
			if !f.in {
				out = append(out, Redacted...)
			}
			f.in = true
			at = to
		}
	}
	emit(0, last)
	for _, m := range f.r.find(b) {
		emit(m[0], m[1])
		if m[0] < keep {
			f.inside = max(f.inside, m[1]-keep)
		}
	}
	f.inside = max(f.inside, last-keep)
	if keep > at {
		out = append(out, b[at:keep]...)
		f.in = false
	}
	f.rest = bytes.Clone(b[keep:])
	return out
}

// beginning is where the longest end of b that is the beginning of a needle stands; len(b) if there is none.
func (f *filter) beginning(b []byte) int {
	for i := max(0, len(b)-f.r.longest+1); i < len(b); i++ {
		for _, n := range f.r.needles {
			if len(n) > len(b)-i && bytes.HasPrefix(n, b[i:]) {
				return i
			}
		}
	}
	return len(b)
}

// find gives where needles stand in b, by their beginnings.
func (r *Redactor) find(b []byte) [][2]int {
	var out [][2]int
	for _, n := range r.needles {
		for at := 0; ; {
			i := bytes.Index(b[at:], n)
			if i < 0 {
				break
			}
			out = append(out, [2]int{at + i, at + i + len(n)})
			at += i + 1
		}
	}
	sort.Slice(out, func(a, b int) bool { return out[a][0] < out[b][0] })
	return out
}
