// SPDX-License-Identifier: Apache-2.0

package eventjson

import (
	"encoding/json"
	"math"
	"time"
)

// maxDepth is how deep values may be nested here; encoding/json takes more.
const maxDepth = 16

// scanner reads JSON (RFC 8259) from i on. Its methods take what they are named after, with the blanks before it, and give
// false for what is not that or not simple: then nothing of what they set counts.
type scanner struct {
	b []byte
	i int
}

// next skips blanks and gives the byte that follows, 0 at the end.
func (s *scanner) next() byte {
	for s.i < len(s.b) {
		c := s.b[s.i]
		if c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
		s.i++
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.next() != c {
		return false
	}
	s.i++
	return true
}

// end reports whether nothing follows.
func (s *scanner) end() bool { return s.next() == 0 && s.i == len(s.b) }

// object calls field after each key, to take its value.
func (s *scanner) object(field func(key []byte) bool) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	for {
		key, plain, ok := s.quoted()
		if !ok || !plain || !s.take(':') || !field(key[1:len(key)-1]) {
			return false
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// array calls element before each element, to take it.
func (s *scanner) array(element func() bool) bool {
	if !s.take('[') {
		return false
	}
	if s.take(']') {
		return true
	}
	for {
		s.next()
		if !element() {
			return false
		}
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// quoted takes a string with its quotes. Plain is one that stands for itself: ASCII without escapes.
func (s *scanner) quoted() (raw []byte, plain, ok bool) {
	if s.next() != '"' {
		return nil, false, false
	}
	from := s.i
	plain = true
	for i := from + 1; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.i = i + 1
			return s.b[from:s.i], plain, true
		case c == '\\':
			plain = false
			i++ // whatever is escaped; what it is, is looked at by whoever wants to know
		case c < ' ':
			return nil, false, false
		case c >= 0x80:
			plain = false
		}
	}
	return nil, false, false
}

// text takes a string.
func text[S ~string](s *scanner, v *S) bool {
	raw, plain, ok := s.quoted()
	if !ok {
		return false
	}
	if plain {
		*v = S(raw[1 : len(raw)-1])
		return true
	}
	var t string
	if json.Unmarshal(raw, &t) != nil {
		return false
	}
	*v = S(t)
	return true
}

// word takes a string of which there may be one copy already.
func word[S ~string](s *scanner, v *S, known map[string]S) bool {
	raw, plain, ok := s.quoted()
	if !ok || !plain {
		return false
	}
	if w, ok := known[string(raw[1:len(raw)-1])]; ok {
		*v = w
	} else {
		*v = S(raw[1 : len(raw)-1])
	}
	return true
}

func (s *scanner) texts(v *[]string) bool {
	out := []string{}
	ok := s.array(func() bool {
		var t string
		ok := text(s, &t)
		out = append(out, t)
		return ok
	})
	*v = out
	return ok
}

func (s *scanner) time(v *time.Time) bool {
	raw, plain, ok := s.quoted()
	return ok && plain && v.UnmarshalJSON(raw) == nil
}

func (s *scanner) literal(word string) bool {
	if s.next(); len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return false
	}
	s.i += len(word)
	return true
}

func (s *scanner) bool(v *bool) bool {
	*v = s.next() == 't'
	return *v && s.literal("true") || !*v && s.literal("false")
}

// uint64 takes a whole number without sign. A number that goes on after its digits is not whole.
func (s *scanner) uint64(v *uint64) bool {
	c := s.next()
	if c < '0' || c > '9' {
		return false
	}
	from, n := s.i, uint64(0)
	for ; s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9'; s.i++ {
		n = n*10 + uint64(s.b[s.i]-'0')
	}
	if s.i-from > 18 || s.i-from > 1 && c == '0' { // 19 digits may be too many, and JSON has no leading zeros
		return false
	}
	*v = n
	if s.i == len(s.b) {
		return true
	}
	c = s.b[s.i]
	return c != '.' && c != 'e' && c != 'E'
}

func (s *scanner) int64(v *int64) bool {
	minus := s.next() == '-'
	if minus {
		s.i++
		if s.i < len(s.b) && (s.b[s.i] < '0' || s.b[s.i] > '9') { // no blank may stand between
			return false
		}
	}
	var n uint64
	if !s.uint64(&n) {
		return false
	}
	*v = int64(n) // 18 digits fit
	if minus {
		*v = -*v
	}
	return true
}

func (s *scanner) integer(v *int) bool {
	var n int64
	if !s.int64(&n) || n < math.MinInt || n > math.MaxInt {
		return false
	}
	*v = int(n)
	return true
}

// skip takes any value that is certainly JSON.
func (s *scanner) skip(depth int) bool {
	switch c := s.next(); {
	case depth == 0:
		return false
	case c == '{':
		return s.object(func([]byte) bool { return s.skip(depth - 1) })
	case c == '[':
		return s.array(func() bool { return s.skip(depth - 1) })
	case c == '"':
		raw, plain, ok := s.quoted()
		return ok && (plain || json.Valid(raw))
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	default:
		var n int64
		return s.int64(&n)
	}
}
