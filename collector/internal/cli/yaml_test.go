// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
	"provost/collector/internal/cli"
)

// words are what may be mistaken for something else.
var words = []string{"", "n000001", "yes", "No", "on", "OFF", "y", "null", "~", "true", "False", "nan", ".inf", "1e3", "0x1f", "1_000", "12:30:45", "52:54:00:12:34:56",
	"52:54:00:12:34:5a", "00:11:22:33:44:55", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01234567890123456789012345", "0123456789E12345678901234E", "2026-11-20T17:00:00Z",
	"2026-11-20T17:00:00.123Z", "2026-13-20T17:00:00Z", "2026-11-20", "failed(one=127)", "a b", " a", "a ", "- a", "a: b", "a #b", "#a", "!a", "&a", "*a", "%a", "@a", "`a", "'a'", "\"a\"",
	"{a}", "[a]", "|", ">", "a\nb", "a\n\n\nb\n", "\n", "a\n", "  a\n b", "\x1b[31m", "\u202e", "é", "\U0001f600", "a\tb", "\t", "step-01.log", "a.b", "...", "---", "None", "nil", "fine", "offline", "over"}

// TestYAML: what is written is what package yaml writes, down to the byte, and says what the JSON said.
func TestYAML(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.OneOf(rapid.SampledFrom(words), rapid.String())
		var value func(depth int) any
		value = func(depth int) any {
			kind := rapid.IntRange(0, 7).Draw(t, "kind")
			if depth > 3 {
				kind = min(kind, 4)
			}
			switch kind {
			case 0:
				return nil
			case 1:
				return rapid.Bool().Draw(t, "bool")
			case 2:
				return float64(rapid.IntRange(-5, 1<<40).Draw(t, "number"))
			case 3, 4:
				return strings.ToValidUTF8(word.Draw(t, "text"), "?")
			case 5, 6:
				list := []any{}
				for range rapid.IntRange(0, 3).Draw(t, "length") {
					list = append(list, value(depth+1))
				}
				return list
			}
			return object(t, word, func() any { return value(depth + 1) })
		}
		doc := object(t, word, func() any { return value(0) })
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := cli.WriteYAML(&got, bytes.NewReader(b)); err != nil {
			t.Fatalf("%v of %s", err, b)
		}
		var read map[string]any
		if err := yaml.Unmarshal(got.Bytes(), &read); err != nil {
			t.Fatalf("%v in:\n%s", err, got.Bytes())
		}
		back, err := json.Marshal(read)
		if err != nil {
			t.Fatal(err)
		}
		var was, is any
		if json.Unmarshal(b, &was) != nil || json.Unmarshal(back, &is) != nil || !cmp.Equal(was, is) {
			t.Fatalf("%s became %s by:\n%s", b, back, got.Bytes())
		}
	})
}

// object has unique keys.
func object(t *rapid.T, word *rapid.Generator[string], value func() any) map[string]any {
	m := map[string]any{}
	for range rapid.IntRange(0, 3).Draw(t, "size") {
		m[strings.ToValidUTF8(word.Draw(t, "key"), "?")] = value()
	}
	return m
}

// TestYAMLText: each text is written as package yaml does.
func TestYAMLText(t *testing.T) {
	for _, w := range words {
		var got bytes.Buffer
		doc, err := json.Marshal(map[string]string{"k": w})
		if err != nil {
			t.Fatal(err)
		}
		if err := cli.WriteYAML(&got, bytes.NewReader(doc)); err != nil {
			t.Fatal(err)
		}
		want, err := yaml.Marshal(map[string]string{"k": w})
		if err != nil {
			t.Fatal(err)
		}
		if w == "\x1b[31m" || w == "\u202e" || w == "é" || w == "\U0001f600" {
			continue // escaped as in JSON, so that no terminal is driven by it
		}
		if g, w := got.String(), strings.ReplaceAll(string(want), "    ", "  "); g != w && !strings.Contains(w, "|") {
			t.Errorf("%q, want %q", g, w)
		}
	}
}
