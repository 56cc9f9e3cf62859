// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"

	"provost/proto"
)

// writeJSON writes one document in one line. Nothing in it can drive a terminal.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(&jsonWriter{w: w})
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing output: %w", err)
	}
	return nil
}

// writeYAML writes a JSON object as YAML, its keys in their order, as package yaml would with an indent of 2. It holds one
// token in memory: package yaml would take 0.3 ms for a node, and half a minute for 100,000 of them.
func writeYAML(w io.Writer, doc io.Reader) error {
	dec := jsontext.NewDecoder(doc, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true)) // as encoding/json, which takes longer
	y := &yamlWriter{dec: dec, w: bufio.NewWriterSize(w, 64<<10), known: map[string]string{}}
	t, err := dec.ReadToken()
	if err == nil && t.Kind() != jsontext.KindBeginObject {
		err = fmt.Errorf("%v where an object should begin", t)
	}
	if err == nil && !y.more() {
		y.w.WriteString("{}\n")
	}
	for err == nil && y.more() {
		err = y.pair(0)
	}
	if err == nil {
		_, err = dec.ReadToken()
	}
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return flush(y.w)
}

// yamlWriter turns JSON's tokens into YAML. What it writes to keeps its errors until it is flushed.
type yamlWriter struct {
	dec   *jsontext.Decoder
	w     *bufio.Writer
	known map[string]string // texts as package yaml writes them
}

// maxKnown bounds known: texts that are all different are not worth it.
const maxKnown = 10_000

// more reports whether the object or array goes on; an error is the next token's.
func (y *yamlWriter) more() bool {
	k := y.dec.PeekKind()
	return k != jsontext.KindEndObject && k != jsontext.KindEndArray
}

func (y *yamlWriter) blanks(n int) {
	for range n {
		y.w.WriteByte(' ')
	}
}

// pair writes a key, where the line has come to it already, and its value.
func (y *yamlWriter) pair(indent int) error {
	key, err := y.dec.ReadToken()
	if err != nil {
		return err
	}
	text := key.String()
	name, err := y.text(text)
	if err == nil && strings.Contains(name, "\n") { // a key has one line; JSON's strings are YAML's, too
		var quoted []byte
		quoted, err = json.Marshal(text)
		name = string(quoted)
	}
	if err != nil {
		return err
	}
	y.w.WriteString(name)
	y.w.WriteByte(':')
	return y.value(indent+2, false)
}

// value writes what stands after a key or a dash: on the same line if it has one, else from the next one on.
func (y *yamlWriter) value(indent int, dash bool) error {
	t, err := y.dec.ReadToken()
	if err != nil {
		return err
	}
	open := t.Kind()
	if open != jsontext.KindBeginObject && open != jsontext.KindBeginArray {
		return y.scalar(t, indent)
	}
	switch {
	case !y.more() && open == jsontext.KindBeginObject:
		y.w.WriteString(" {}\n")
	case !y.more():
		y.w.WriteString(" []\n")
	case dash:
		y.w.WriteByte(' ')
	default:
		y.w.WriteByte('\n')
	}
	for first := true; y.more(); first = false {
		if !first || !dash {
			y.blanks(indent)
		}
		if open == jsontext.KindBeginObject {
			err = y.pair(indent)
		} else {
			y.w.WriteByte('-')
			err = y.value(indent+2, true)
		}
		if err != nil {
			return err
		}
	}
	_, err = y.dec.ReadToken()
	return err
}

func (y *yamlWriter) scalar(t jsontext.Token, indent int) error {
	text := t.String() // of numbers, true, false and null it is what stands there
	if t.Kind() == jsontext.KindString {
		var err error
		if text, err = y.text(text); err != nil {
			return err
		}
		if lines := strings.Split(text, "\n"); len(lines) > 1 { // they stand below the key
			for i := 1; i < len(lines); i++ {
				if lines[i] != "" {
					lines[i] = strings.Repeat(" ", indent-2) + lines[i]
				}
			}
			text = strings.Join(lines, "\n")
		}
	}
	y.w.WriteByte(' ')
	y.w.WriteString(text)
	y.w.WriteByte('\n')
	return nil
}

// text gives a string as package yaml writes it. What is in every node, and in each differently, is known here.
func (y *yamlWriter) text(s string) (string, error) {
	if plainWord(s) {
		return s, nil
	}
	if isStamp(s) {
		return `"` + s + `"`, nil
	}
	if text, ok := y.known[s]; ok {
		return text, nil
	}
	var v any = s
	if strings.IndexFunc(s, func(r rune) bool { return hostile(r) && r != '\n' }) >= 0 {
		v = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle} // the only place where it can be escaped
	}
	var b bytes.Buffer
	if err := encodeYAML(&b, map[string]any{"k": v}); err != nil {
		return "", err
	}
	text := strings.TrimSuffix(strings.TrimPrefix(b.String(), "k: "), "\n")
	if len(y.known) < maxKnown {
		y.known[strings.Clone(s)] = text
	}
	return text, nil
}

// plainWord reports whether a text is written as it is: letters, digits, dashes, dots and underlines after a letter that
// begins no word with a meaning of its own, or an install's id with a letter that is in no number.
func plainWord(s string) bool {
	if s == "" || len(s) > 64 || strings.ContainsRune("yntfoYNTFO", rune(s[0])) && len(s) <= 5 {
		return false // yes, no, true, false, null, on, off: whatever their case
	}
	digits := s[0] >= '0' && s[0] <= '9'
	if digits && (!proto.ValidID(s) || !strings.ContainsAny(s, "GHJKMNPQRSTVWYZ")) {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i == 0, c != '-' && c != '.' && c != '_':
			return false
		}
	}
	return true
}

// isStamp reports whether a text is a time as our JSON has it, which is quoted so that it stays one.
func isStamp(s string) bool {
	if len(s) < 20 || len(s) > 30 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' || s[len(s)-1] != 'Z' {
		return false
	}
	_, err := time.Parse(time.RFC3339Nano, s)
	return err == nil
}

// writeYAMLOf writes v as the YAML of its JSON.
func writeYAMLOf(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing output: %w", err)
	}
	return writeYAML(w, bytes.NewReader(b))
}

func encodeYAML(w io.Writer, v any) error {
	enc := yaml.NewEncoder(&jsonWriter{w: w}) // in a quoted string \u is the same; above U+FFFF the encoder escapes itself
	enc.SetIndent(2)
	err := enc.Encode(v)
	if err == nil {
		err = enc.Close()
	}
	if err != nil {
		return fmt.Errorf("writing output: %w", err)
	}
	return nil
}
