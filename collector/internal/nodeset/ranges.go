// SPDX-License-Identifier: Apache-2.0

package nodeset

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxDigits keeps numbers within 64 bits.
const maxDigits = 18

// maxWord is the length of the longest name that proto.CheckNode and CheckName take. It bounds the work on one operand: at
// most 64 brackets of MaxNames words each.
const maxWord = 64

// span is first, first+step, … up to last, written with at least width digits.
type span struct {
	first, last, step uint64
	width             int
}

func (s span) count() uint64 { return (s.last-s.first)/s.step + 1 }

// expand gives the words that expr[at:end] stands for: the product of its brackets.
func expand(expr string, at, end, room int) ([]string, error) {
	words := []string{""}
	tooMany := func(pos int) error {
		return &Error{expr, pos, fmt.Sprintf("this makes more than %d names", MaxNames)}
	}
	if room < 1 {
		return nil, tooMany(at)
	}
	for at < end {
		if len(words[0]) > maxWord {
			return nil, &Error{expr, at, fmt.Sprintf("this name has more than %d characters", maxWord)}
		}
		if expr[at] != '[' {
			stop := at
			for stop < end && expr[stop] != '[' {
				stop++
			}
			for i := range words {
				words[i] += expr[at:stop]
			}
			at = stop
			continue
		}
		stop := at + strings.IndexByte(expr[at:end], ']') // operandEnd has seen it
		spans, err := parseSpans(expr, at+1, stop)
		if err != nil {
			return nil, err
		}
		total := uint64(0)
		for _, s := range spans {
			if s.count() > uint64(room) {
				return nil, tooMany(at)
			}
			total += s.count()
		}
		if total > uint64(room/len(words)) {
			return nil, tooMany(at)
		}
		next := make([]string, 0, uint64(len(words))*total)
		for _, w := range words {
			for _, s := range spans {
				for i := range s.count() {
					next = append(next, w+pad(s.first+i*s.step, s.width))
				}
			}
		}
		words = next
		at = stop + 1
	}
	return words, nil
}

func pad(n uint64, width int) string {
	s := strconv.FormatUint(n, 10)
	if len(s) < width {
		s = strings.Repeat("0", width-len(s)) + s
	}
	return s
}

// parseSpans reads what stands in brackets: 1-9,12,0-30/2.
func parseSpans(expr string, at, end int) ([]span, error) {
	var spans []span
	for {
		stop := end
		if i := strings.IndexByte(expr[at:end], ','); i >= 0 {
			stop = at + i
		}
		s, err := parseSpan(expr, at, stop)
		if err != nil {
			return nil, err
		}
		spans = append(spans, s)
		if stop == end {
			return spans, nil
		}
		at = stop + 1
	}
}

func parseSpan(expr string, at, end int) (span, error) {
	body, step, stepped := strings.Cut(expr[at:end], "/")
	first, last, ranged := strings.Cut(body, "-")
	if !ranged {
		last = first
	}
	number := func(s string) (uint64, error) {
		if s == "" || len(s) > maxDigits || strings.Trim(s, "0123456789") != "" {
			return 0, &Error{expr, at, fmt.Sprintf("%q is no number: write a range like [1-9,12]", s)}
		}
		return strconv.ParseUint(s, 10, 64)
	}
	var err error
	s := span{step: 1}
	if s.first, err = number(first); err != nil {
		return span{}, err
	}
	if s.last, err = number(last); err != nil {
		return span{}, err
	}
	if stepped {
		if s.step, err = number(step); err != nil {
			return span{}, err
		}
		if s.step == 0 || !ranged {
			return span{}, &Error{expr, at, "a step is a number from 1 on, after a range: [0-30/2]"}
		}
	}
	if s.first > s.last {
		return span{}, &Error{expr, at, fmt.Sprintf("the range %s-%s runs backwards", first, last)}
	}
	if padded(first) {
		s.width = len(first)
	}
	if len(last) < s.width || padded(last) && len(last) != s.width {
		return span{}, &Error{expr, at, fmt.Sprintf("%s and %s are padded differently: write [001-010]", first, last)}
	}
	return s, nil
}

// padded reports whether a number has zeros in front.
func padded(s string) bool { return len(s) > 1 && s[0] == '0' }

// Fold writes names as short as it can: n[001-100]. Padding is kept, repeats are dropped, and Eval gives back the same
// set. Names that differ in several numbers are folded where they make a full grid: r[1-2]n[1-4].
func Fold(names []string) string {
	names = slices.Clone(names)
	slices.SortFunc(names, Compare)
	names = slices.Compact(names)
	var items []item
	dims := 0
	for _, n := range names {
		it := split(n)
		dims = max(dims, len(it.numbers))
		items = append(items, it)
	}
	for d := dims - 1; d >= 0; d-- {
		items = foldDim(items, d)
	}
	out := make([]string, len(items))
	for i, it := range items {
		out[i] = it.String()
	}
	return strings.Join(out, ",")
}

// item is a name cut at its numbers: texts[0] numbers[0] texts[1] … A number may have become a bracket.
type item struct {
	texts   []string
	numbers []string
}

func (it item) String() string {
	var b strings.Builder
	for i, t := range it.texts {
		b.WriteString(t)
		if i < len(it.numbers) {
			b.WriteString(it.numbers[i])
		}
	}
	return b.String()
}

// split cuts a name at its numbers. One too long to count with stays text.
func split(name string) item {
	it := item{texts: []string{""}}
	for len(name) > 0 {
		n := digits(name)
		if n == 0 || n > maxDigits {
			n = max(n, 1)
			it.texts[len(it.texts)-1] += name[:n]
		} else {
			it.numbers = append(it.numbers, name[:n])
			it.texts = append(it.texts, "")
		}
		name = name[n:]
	}
	return it
}

// digits counts the digits that s begins with.
func digits(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }

// foldDim joins the items that differ in their number d only, in the place of the first of them.
func foldDim(items []item, d int) []item {
	groups := map[string]int{} // key → index in out
	var out []item
	var values [][]string
	for _, it := range items {
		if d >= len(it.numbers) {
			out = append(out, it)
			values = append(values, nil)
			continue
		}
		value := it.numbers[d]
		it.numbers = slices.Clone(it.numbers)
		it.numbers[d] = ""
		key := strings.Join(it.texts, "\x00") + "\x01" + strings.Join(it.numbers, "\x00")
		i, ok := groups[key]
		if !ok {
			i = len(out)
			groups[key] = i
			out = append(out, it)
			values = append(values, nil)
		}
		values[i] = append(values[i], value)
	}
	for i, v := range values {
		if v != nil {
			out[i].numbers[d] = foldNumbers(v)
		}
	}
	return out
}

// foldNumbers writes numbers as one of them, or as a bracket.
func foldNumbers(numbers []string) string {
	if len(numbers) == 1 {
		return numbers[0]
	}
	// a number belongs to the padded ones if its length is one that padding is used with: 007 and 100, but not 1000
	paddedLen := map[int]bool{}
	for _, s := range numbers {
		if padded(s) {
			paddedLen[len(s)] = true
		}
	}
	classes := map[int][]uint64{}
	for _, s := range numbers {
		width := 0
		if paddedLen[len(s)] {
			width = len(s)
		}
		v, _ := strconv.ParseUint(s, 10, 64) // digits only, at most maxDigits
		classes[width] = append(classes[width], v)
	}
	var spans []span
	for width, v := range classes {
		slices.Sort(v)
		for len(v) > 0 {
			n := 1
			for n < len(v) && v[n] == v[n-1]+1 {
				n++
			}
			spans = append(spans, span{first: v[0], last: v[n-1], width: width})
			v = v[n:]
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.width, b.width)) })
	parts := make([]string, len(spans))
	for i, s := range spans {
		parts[i] = pad(s.first, s.width)
		if s.last > s.first {
			parts[i] += "-" + pad(s.last, s.width)
		}
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// Compare orders names as people do: n2 before n10, and n2 before n02.
func Compare(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		m, n := digits(x), digits(y)
		if m == 0 || n == 0 {
			if x[0] != y[0] {
				return int(x[0]) - int(y[0])
			}
			x, y = x[1:], y[1:]
			continue
		}
		p, q := strings.TrimLeft(x[:m], "0"), strings.TrimLeft(y[:n], "0")
		if len(p) != len(q) {
			return len(p) - len(q)
		}
		if c := strings.Compare(p, q); c != 0 {
			return c
		}
		x, y = x[m:], y[n:]
	}
	if c := len(x) - len(y); c != 0 {
		return c
	}
	if c := len(a) - len(b); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}
