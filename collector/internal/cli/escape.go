// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// hostile reports whether a rune can do anything to a terminal but show itself: C0 and C1 controls, DEL, format
// characters (Unicode category Cf: the bidirectional overrides, zero-width characters, soft hyphen, tags), and the line
// and paragraph separators. A tab and a newline are unsafe here; those who allow them say so.
func hostile(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' || r == 0x7f
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// escapeRune writes one rune that cannot be shown: as \r, \x1b, \u202e; a byte that is no UTF-8 as \xff.
func escapeRune(b []byte, r rune) []byte {
	switch {
	case r == '\r':
		return append(b, `\r`...)
	case r == '\n':
		return append(b, `\n`...)
	case r == '\t':
		return append(b, `\t`...)
	case r < utf8.RuneSelf:
		return fmt.Appendf(b, `\x%02x`, r)
	case r > 0xffff:
		return fmt.Appendf(b, `\U%08x`, r)
	default:
		return fmt.Appendf(b, `\u%04x`, r)
	}
}

// clean makes text of any origin fit to stand in one line on a terminal. Text without anything unsafe is returned as it
// is; backslashes are left alone, so the result is for people and not to be decoded.
func clean(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, hostile) < 0 {
		return s
	}
	b := make([]byte, 0, len(s)+16)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = fmt.Appendf(b, `\x%02x`, s[i])
		case hostile(r):
			b = escapeRune(b, r)
		default:
			b = append(b, s[i:i+n]...)
		}
		i += n
	}
	return string(b)
}

// escapeWriter passes text of any origin on to a terminal: newlines and tabs as they are, a carriage return in front
// of a newline dropped, everything else that is unsafe escaped. It may be written to in any pieces; Flush ends it.
type escapeWriter struct {
	w    io.Writer
	held []byte // the begin of a rune, or a carriage return, whose continuation is still to come
	buf  []byte
}

func (e *escapeWriter) Write(p []byte) (int, error) {
	return len(p), e.write(p, false)
}

// Flush writes what was held back. After it the writer may be used on.
func (e *escapeWriter) Flush() error { return e.write(nil, true) }

func (e *escapeWriter) write(p []byte, last bool) error {
	in := p
	if len(e.held) > 0 {
		in = append(e.held, p...)
		e.held = nil
	}
	out := e.buf[:0]
	for i := 0; i < len(in); {
		c := in[i]
		if c >= ' ' && c < 0x7f || c == '\n' || c == '\t' {
			j := i + 1
			for j < len(in) && (in[j] >= ' ' && in[j] < 0x7f || in[j] == '\n' || in[j] == '\t') {
				j++
			}
			out = append(out, in[i:j]...)
			i = j
			continue
		}
		if !last && (c == '\r' && i+1 == len(in) || !utf8.FullRune(in[i:])) {
			e.held = append([]byte(nil), in[i:]...)
			break
		}
		if c == '\r' && i+1 < len(in) && in[i+1] == '\n' {
			i++
			continue
		}
		r, n := utf8.DecodeRune(in[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			out = fmt.Appendf(out, `\x%02x`, c)
		case hostile(r):
			out = escapeRune(out, r)
		default:
			out = append(out, in[i:i+n]...)
		}
		i += n
	}
	e.buf = out
	_, err := e.w.Write(out)
	return err
}

// jsonWriter passes a JSON document on and keeps it the same document: what is unsafe on a terminal becomes its \u
// escape, which is the same character inside a string and stands nowhere else in JSON. Newlines and tabs between the
// tokens stay.
type jsonWriter struct {
	w    io.Writer
	held []byte
	buf  []byte
}

func (j *jsonWriter) Write(p []byte) (int, error) {
	in := p
	if len(j.held) > 0 {
		in = append(j.held, p...)
		j.held = nil
	}
	out := j.buf[:0]
	for i := 0; i < len(in); {
		c := in[i]
		if c < utf8.RuneSelf && (!hostile(rune(c)) || c == '\n' || c == '\t' || c == '\r' && i+1 < len(in) && in[i+1] == '\n') {
			out = append(out, c)
			i++
			continue
		}
		if !utf8.FullRune(in[i:]) {
			j.held = append([]byte(nil), in[i:]...)
			break
		}
		r, n := utf8.DecodeRune(in[i:])
		switch {
		case !hostile(r) && (r != utf8.RuneError || n > 1):
			out = append(out, in[i:i+n]...)
		case r > 0xffff: // as a surrogate pair (RFC 8259, section 7)
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		i += n
	}
	j.buf = out
	_, err := j.w.Write(out)
	return len(p), err
}
