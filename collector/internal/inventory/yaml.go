// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"

	"provost/proto"
)

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

// yaml reads `nodes:` with a list of nodes. Unknown keys, aliases and a second document are problems. An attribute whose
// value is null goes away.
func (f *File) yaml(b []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		f.wrong(1, "the file is empty: it should begin with nodes:")
		return
	}
	if err == nil {
		if again := dec.Decode(&second); again == nil {
			f.wrong(second.Line, "a second document begins: one file is one inventory")
		} else if !errors.Is(again, io.EOF) {
			err = again
		}
	}
	if err != nil {
		line := 1
		text := err.Error()
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			line, _ = strconv.Atoi(m[1])
			text = m[2]
		}
		f.wrong(line, "%s", text)
		return
	}
	found := false
	f.keys(doc.Content[0], "the file", func(key string, at *yaml.Node, v *yaml.Node) {
		switch key {
		case "nodes":
			found = true
			if v.Kind != yaml.SequenceNode {
				if v.Tag != "!!null" {
					f.wrong(v.Line, "nodes is no list")
				}
				return
			}
			for _, n := range v.Content {
				f.yamlNode(n)
			}
		case "schema":
		default:
			f.wrong(at.Line, "key %q is unknown: an inventory has nodes", proto.Clip(key, 64))
		}
	})
	if !found && len(f.Problems) == 0 {
		f.wrong(1, "there is no key nodes")
	}
}

// keys visits a map, each key once.
func (f *File) keys(n *yaml.Node, what string, visit func(key string, at, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		f.wrong(max(n.Line, 1), "%s is no map of keys and values", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode:
			f.wrong(k.Line, "a key of %s is no word", what)
		case seen[k.Value]:
			f.wrong(k.Line, "key %q stands twice", proto.Clip(k.Value, 64))
		default:
			seen[k.Value] = true
			visit(k.Value, k, v)
		}
	}
}

func (f *File) yamlNode(n *yaml.Node) {
	before := len(f.Problems)
	e := Entry{Line: n.Line}
	p := &e.Patch
	f.keys(n, "the node", func(key string, at, v *yaml.Node) {
		switch key {
		case "name":
			e.Name = f.scalar(key, v)
		case "macs":
			p.MACs = f.sequence(key, v)
		case "groups":
			p.Groups = f.sequence(key, v)
		case "ip":
			p.IP = text(f.scalar(key, v))
		case "serial":
			p.Serial = text(f.scalar(key, v))
		case "profile":
			p.Profile = text(f.scalar(key, v))
		case "protected":
			b, err := flag(f.scalar(key, v))
			if err != nil {
				f.wrong(v.Line, "%v", err)
			}
			p.Protected = b
		case "attrs":
			p.Attrs = map[string]*string{}
			if v.Tag == "!!null" {
				return
			}
			f.keys(v, "attrs", func(k string, _, v *yaml.Node) {
				if v.Tag == "!!null" {
					p.Attrs[k] = nil
					return
				}
				p.Attrs[k] = text(f.scalar("attribute "+proto.Clip(k, 64), v))
			})
		default:
			f.wrong(at.Line, "key %q is unknown: a node has name, macs, ip, serial, profile, groups, attrs, protected", proto.Clip(key, 64))
		}
	})
	if len(f.Problems) == before && e.Name == "" {
		f.wrong(n.Line, "the node has no name")
	}
	if len(f.Problems) == before {
		f.Nodes = append(f.Nodes, e)
	}
}

// scalar gives a value as it is written: 010 is the text 010.
func (f *File) scalar(key string, v *yaml.Node) string {
	if v.Kind != yaml.ScalarNode {
		f.wrong(v.Line, "%s is no plain value", key)
		return ""
	}
	if v.Tag == "!!null" {
		return ""
	}
	return v.Value
}

func (f *File) sequence(key string, v *yaml.Node) *[]string {
	out := []string{}
	switch {
	case v.Tag == "!!null":
	case v.Kind != yaml.SequenceNode:
		f.wrong(v.Line, "%s", fmt.Sprintf("%s is no list: write %s: [A, B]", key, key))
	default:
		for _, item := range v.Content {
			out = append(out, f.scalar("an element of "+key, item))
		}
	}
	return &out
}
