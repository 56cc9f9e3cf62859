// SPDX-License-Identifier: Apache-2.0

package proto_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"provost/proto"
)

// TestWords: what is checked by hand, because each event is, is what these expressions say.
func TestWords(t *testing.T) {
	boot := regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	journal := regexp.MustCompile(`^[0-9a-f]{16}$`)
	name := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	good := []string{"", "a", "0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdef", "a..b", "step-01.log", strings.Repeat("x", 64), strings.Repeat("x", 65), ".a", "é"}
	rapid.Check(t, func(t *rapid.T) {
		s := []byte(rapid.SampledFrom(good).Draw(t, "word"))
		for range rapid.IntRange(0, 2).Draw(t, "edits") {
			c := rapid.SampledFrom([]byte("0fgG-._ \n/\x00\xff")).Draw(t, "byte")
			if len(s) > 0 && rapid.Bool().Draw(t, "replace") {
				s[rapid.IntRange(0, len(s)-1).Draw(t, "at")] = c
			} else {
				s = append(s, c)
			}
		}
		w := string(s)
		if got, want := proto.ValidBoot(w), boot.MatchString(w); got != want {
			t.Errorf("ValidBoot(%q) = %v, want %v", w, got, want)
		}
		if got, want := proto.ValidJournal(w), journal.MatchString(w); got != want {
			t.Errorf("ValidJournal(%q) = %v, want %v", w, got, want)
		}
		if got, want := proto.CheckName("step", w) == nil, name.MatchString(w) && !strings.Contains(w, ".."); got != want {
			t.Errorf("CheckName(%q) = %v, want %v", w, got, want)
		}
	})
}
