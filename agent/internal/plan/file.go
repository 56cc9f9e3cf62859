// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"provost/proto"
)

// MaxFile is the size limit of a plan file, in bytes.
const MaxFile = 1 << 20

// ParseFile reads a plan file: a YAML mapping with the one key "steps". Unknown keys, keys that stand twice and values
// that make no sense are errors that name file and line; all of them are given, joined.
func ParseFile(name string, data []byte) ([]proto.Step, error) {
	p := &parser{file: name}
	if len(data) > MaxFile {
		return nil, fmt.Errorf("%s: %d bytes, a plan file has at most %d", name, len(data), MaxFile)
	}
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%s:1: the file is empty: write a list of steps under the key steps", name)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one YAML document", name)
	}
	var steps []proto.Step
	seen := map[string]int{}
	list := p.steps(doc.Content[0])
	for _, n := range list {
		var s proto.Step
		p.decode(n, reflect.ValueOf(&s).Elem())
		if len(p.errs) > 0 {
			continue // what could not be read cannot be judged
		}
		if err := s.Check(); err != nil {
			p.bad(n, "%w", err)
		}
		for _, k := range slices.Sorted(maps.Keys(s.SecretEnv)) {
			if _, err := proto.SecretPath(s.SecretEnv[k]); err != nil {
				p.bad(n, "step %q: secret-env %s: %w", s.Name, k, err)
			}
		}
		if line, ok := seen[s.Name]; ok {
			p.bad(n, "step %q stands already in line %d: names are unique in a plan", s.Name, line)
		}
		seen[s.Name] = n.Line
		steps = append(steps, s)
	}
	if len(list) > proto.MaxSteps {
		p.bad(list[0], "%d steps, at most %d", len(list), proto.MaxSteps)
	}
	return steps, errors.Join(p.errs...)
}

type parser struct {
	file string
	errs []error
}

func (p *parser) bad(n *yaml.Node, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s:%d: "+format, append([]any{p.file, n.Line}, args...)...))
}

// steps gives the nodes of the list under the one key that there is.
func (p *parser) steps(root *yaml.Node) []*yaml.Node {
	root = resolve(root)
	if root.Kind != yaml.MappingNode {
		p.bad(root, "write a list of steps under the key steps")
		return nil
	}
	var list *yaml.Node
	for i := 0; i+1 < len(root.Content); i += 2 {
		key := root.Content[i]
		switch {
		case key.Value != "steps":
			p.bad(key, "unknown key %q: a plan file has the one key steps", key.Value)
		case list != nil:
			p.bad(key, "steps stands twice")
		default:
			list = resolve(root.Content[i+1])
		}
	}
	switch {
	case list == nil && len(p.errs) == 0:
		p.bad(root, "the key steps is missing")
	case list != nil && list.Kind != yaml.SequenceNode:
		p.bad(list, "steps: write a list, one \"- name: …\" for each step")
	case list != nil:
		return list.Content
	}
	return nil
}

// decode fills a struct from a mapping by its yaml tags, key by key, so that each error has its line.
func (p *parser) decode(n *yaml.Node, v reflect.Value) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		p.bad(n, "%q: write key: value", proto.Clip(n.Value, 64))
		return
	}
	keys := map[string]int{}
	var names []string
	for i := range v.NumField() {
		if key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ","); key != "-" && key != "" {
			keys[key] = i
			names = append(names, key)
		}
	}
	var seen []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		at, ok := keys[key.Value]
		switch {
		case !ok:
			p.bad(key, "unknown key %q: use %s", proto.Clip(key.Value, 64), strings.Join(names, ", "))
			continue
		case slices.Contains(seen, key.Value):
			p.bad(key, "%s stands twice", key.Value)
			continue
		}
		seen = append(seen, key.Value)
		field := v.Field(at)
		if field.Kind() == reflect.Pointer && value.Tag != "!!null" {
			field.Set(reflect.New(field.Type().Elem()))
			field = field.Elem()
		}
		if field.Kind() == reflect.Struct {
			p.decode(value, field)
			continue
		}
		if d, ok := field.Addr().Interface().(*proto.Duration); ok && value.Kind == yaml.ScalarNode {
			parsed, err := proto.ParseDuration(value.Value)
			if err != nil {
				p.bad(value, "%s: %w", key.Value, err)
			}
			*d = parsed
			continue
		}
		if err := value.Decode(field.Addr().Interface()); err != nil {
			p.bad(value, "%s: %w", key.Value, err)
		}
	}
}

func resolve(n *yaml.Node) *yaml.Node {
	for range 8 { // an alias of an alias is nothing that YAML can make; the bound costs nothing
		if n.Kind != yaml.AliasNode {
			break
		}
		n = n.Alias
	}
	return n
}

// Local makes a plan without a collector: from the steps of a plan file and ways to get a script's bytes, and those of a
// secret by its absolute path.
func Local(node, install string, steps []proto.Step, script, secret func(name string) ([]byte, error)) (*proto.Plan, error) {
	p := &proto.Plan{
		Schema: proto.Schema, Node: node, Install: install, Revision: 1, Profile: "local", OnFailure: proto.OnFailureHold,
		HoldLimit: proto.Duration(proto.DefaultHoldLimit), SealWait: proto.Duration(proto.DefaultSealWait),
	}
	var errs []error
	for _, s := range steps {
		b, err := script(s.WithDefaults().Script)
		if err != nil {
			errs = append(errs, fmt.Errorf("step %q: %w", s.Name, err))
			continue
		}
		if s.SecretEnv, err = secrets(s.SecretEnv, secret); err != nil {
			errs = append(errs, fmt.Errorf("step %q: %w", s.Name, err))
			continue
		}
		s.Digest, s.Size = proto.Digest(b), int64(len(b))
		p.Steps = append(p.Steps, s)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, p.Check()
}

// secrets gives the values of secret-env.
func secrets(env map[string]string, read func(name string) ([]byte, error)) (map[string]string, error) {
	if len(env) == 0 {
		return nil, nil
	}
	values := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(env)) {
		name, err := proto.SecretPath(env[k])
		if err != nil {
			return nil, fmt.Errorf("secret-env %s: %w", k, err)
		}
		b, err := read(name)
		if err != nil {
			return nil, fmt.Errorf("secret-env %s: %w", k, err)
		}
		if values[k], err = proto.SecretValue(b); err != nil {
			return nil, fmt.Errorf("secret-env %s: %s: %w", k, name, err)
		}
	}
	return values, nil
}
