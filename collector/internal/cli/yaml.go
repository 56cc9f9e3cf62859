// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
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

// writeYAML writes a JSON object as YAML, its keys in their order. Of a list in it one element at a time is in memory.
func writeYAML(w io.Writer, doc io.Reader) error {
	dec := json.NewDecoder(doc)
	dec.UseNumber()
	wrong := func(err error) error { return fmt.Errorf("reading the answer: %w", err) }
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return wrong(errors.Join(err, fmt.Errorf("%v where an object should begin", t)))
	}
	for dec.More() {
		key, err := yamlNode(dec)
		if err != nil {
			return wrong(err)
		}
		t, err := dec.Token()
		if err != nil {
			return wrong(err)
		}
		if t != json.Delim('[') || !dec.More() {
			v, err := yamlValue(dec, t)
			if err != nil {
				return wrong(err)
			}
			if err := encodeYAML(w, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{key, v}}); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(w, "%s:\n", key.Value); err != nil {
			return fmt.Errorf("writing output: %w", err)
		}
		for dec.More() {
			v, err := yamlNode(dec)
			if err != nil {
				return wrong(err)
			}
			if err := encodeYAML(&indentWriter{w: w}, &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{v}}); err != nil {
				return err
			}
		}
		if _, err := dec.Token(); err != nil {
			return wrong(err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return wrong(err)
	}
	return nil
}

// indentWriter puts two blanks in front of every line.
type indentWriter struct {
	w      io.Writer
	inside bool // of a line
}

func (i *indentWriter) Write(p []byte) (int, error) {
	var b []byte
	for _, c := range p {
		if !i.inside && c != '\n' {
			b = append(b, "  "...)
		}
		i.inside = c != '\n'
		b = append(b, c)
	}
	_, err := i.w.Write(b)
	return len(p), err
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

// yamlNode reads one JSON value.
func yamlNode(dec *json.Decoder) (*yaml.Node, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	return yamlValue(dec, t)
}

// yamlValue reads the rest of a JSON value that begins with t.
func yamlValue(dec *json.Decoder, t json.Token) (*yaml.Node, error) {
	switch t := t.(type) {
	case json.Delim:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		if t == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		for dec.More() {
			v, err := yamlNode(dec) // of a map, its keys and values in turn
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, v)
		}
		_, err := dec.Token()
		return n, err
	case string:
		return yamlString(t), nil
	case json.Number:
		tag := "!!int"
		if strings.ContainsAny(t.String(), ".eE") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: t.String()}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(t)}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

// yamlString writes text that has anything unsafe in quotes, the only place where it can be escaped.
func yamlString(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	if strings.IndexFunc(s, func(r rune) bool { return hostile(r) && r != '\n' }) >= 0 {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
