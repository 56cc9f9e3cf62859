// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"provost/proto"
)

// Problem is one mistake in one file.
type Problem struct {
	Path string
	Line int // from 1; 0 for the file as a whole
	Text string
}

func (p *Problem) Error() string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", p.Path, p.Text)
	}
	return fmt.Sprintf("%s:%d: %s", p.Path, p.Line, p.Text)
}

// file is a YAML file being read; it gathers everything that is wrong with it.
type file struct {
	path     string
	root     *yaml.Node // the document's mapping; nil when there is none
	problems []error
}

func (f *file) bad(line int, format string, args ...any) {
	f.problems = append(f.problems, &Problem{Path: f.path, Line: line, Text: fmt.Sprintf(format, args...)})
}

// badErr reports each of the joined errors by itself.
func (f *file) badErr(line int, err error) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			f.badErr(line, e)
		}
		return
	}
	f.bad(line, "%v", err)
}

var durationType = reflect.TypeFor[proto.Duration]()

// read decodes one YAML document into out, a pointer to a struct whose fields have yaml tags. It is stricter than the
// library: every unknown or double key, and every duration without a unit, is reported with its line, all together.
// Anchors are refused, since what an alias stands for is not in the line that is reported.
func (f *file) read(b []byte, out any) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	err := dec.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF):
		f.bad(0, "the file is empty")
		return
	case err != nil:
		f.badYAML(err)
		return
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		f.bad(0, "there is more than one YAML document: use one file for each")
		return
	}
	f.root = doc.Content[0]
	f.walk(f.root, reflect.TypeOf(out).Elem())
	if len(f.problems) > 0 {
		return
	}
	dec = yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(out); err != nil {
		f.badYAML(err)
	}
}

// has reports whether the document's mapping has a key.
func (f *file) has(key string) bool {
	if f.root == nil || f.root.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i < len(f.root.Content); i += 2 {
		if f.root.Content[i].Value == key {
			return true
		}
	}
	return false
}

// walk looks at what the YAML library would let pass or would report without its line.
func (f *file) walk(n *yaml.Node, t reflect.Type) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		f.bad(n.Line, "anchors and aliases (& and *) are not allowed: write the value out")
		return
	}
	if n.Tag == "!!null" {
		return
	}
	switch {
	case t.Kind() == reflect.Pointer:
		f.walk(n, t.Elem())
	case t == durationType:
		if n.Kind != yaml.ScalarNode {
			f.bad(n.Line, "a duration is wanted here, like 90s, 5m or 2h")
		} else if _, err := proto.ParseDuration(n.Value); err != nil {
			f.badErr(n.Line, err)
		}
	case t.Kind() == reflect.Struct:
		f.walkStruct(n, t)
	case t.Kind() == reflect.Map:
		f.walkPairs(n, func(_, value *yaml.Node) { f.walk(value, t.Elem()) })
	case t.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			f.bad(n.Line, "a list is wanted here, like [a, b]")
			return
		}
		for _, c := range n.Content {
			f.walk(c, t.Elem())
		}
	case n.Kind != yaml.ScalarNode:
		f.bad(n.Line, "a single value is wanted here")
	}
}

func (f *file) walkStruct(n *yaml.Node, t reflect.Type) {
	fields := map[string]reflect.Type{}
	var known []string
	for i := range t.NumField() {
		key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if key != "" && key != "-" {
			fields[key] = t.Field(i).Type
			known = append(known, key)
		}
	}
	f.walkPairs(n, func(key, value *yaml.Node) {
		ft, ok := fields[key.Value]
		switch {
		case ok:
			f.walk(value, ft)
		default:
			f.bad(key.Line, "unknown key %q: there are %s", key.Value, strings.Join(known, ", "))
		}
	})
}

func (f *file) walkPairs(n *yaml.Node, do func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		f.bad(n.Line, "a mapping is wanted here: lines of \"key: value\"")
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			f.bad(key.Line, "a key has to be a word")
			continue
		}
		if first, ok := lines[key.Value]; ok {
			f.bad(key.Line, "key %q stands in line %d already", key.Value, first)
			continue
		}
		lines[key.Value] = key.Line
		do(key, value)
	}
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)

// badYAML reports an error of the library, with its line: the texts of syntax errors have none for the first.
func (f *file) badYAML(err error) {
	texts := []string{err.Error()}
	if te := new(yaml.TypeError); errors.As(err, &te) {
		texts = te.Errors
	}
	for _, text := range texts {
		line := 1
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			line, _ = strconv.Atoi(m[1])
			text = m[2]
		}
		f.bad(line, "%s", strings.TrimPrefix(text, "yaml: "))
	}
}

// line is where a top-level key's value begins, or with index the element of its list; 1 if it is not there.
func (f *file) line(key string, index ...int) int {
	if f.root == nil {
		return 1
	}
	for i := 0; i+1 < len(f.root.Content); i += 2 {
		if f.root.Content[i].Value != key {
			continue
		}
		if v := f.root.Content[i+1]; len(index) > 0 && index[0] < len(v.Content) {
			return v.Content[index[0]].Line
		}
		return f.root.Content[i].Line
	}
	return f.root.Line
}
