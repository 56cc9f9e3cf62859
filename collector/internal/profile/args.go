// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"unicode"
	"unicode/utf8"

	"provost/collector/internal/answer"
)

// MaxArgs bounds the kernel arguments of a profile in bytes. The kernel keeps 2048 on most architectures and cuts the
// rest off without a word; the agent's own arguments take about 400.
const MaxArgs = 1500

// ArgData is what the template of a profile's args sees. A key that is not there is an error; index gives "" for it:
// {{ with index .Attrs "console" }}console={{ . }}{{ end }}.
type ArgData struct {
	Images  string // URL of the images directory as the node reaches it, without a slash at its end
	Answer  string // URL of the answer file, or of the directory of its files with a slash at its end; empty without one
	Node    string
	Install string
	Attempt int
	MAC     string // aa:bb:cc:dd:ee:ff
	Profile string // set by KernelArgs
	Groups  []string
	Attrs   map[string]string
	Vars    map[string]string // set by KernelArgs: the profile's under the node's attributes, without secrets
}

// parseArgs gives the template with no functions but the language's own: none of them reads a file, asks the network
// or runs a program.
func parseArgs(name, text string) (*template.Template, error) {
	return template.New(name).Option("missingkey=error").Parse(text)
}

// KernelArgs executes the profile's args: one line of printable ASCII. Node attributes that the template names must not
// have white space, quotes, backslashes, "${" or control characters, so that none of them becomes a further argument or
// a command of the boot loader; others do not matter. Line breaks of the template become spaces.
func (p *Profile) KernelArgs(d ArgData) (string, error) {
	d.Profile, d.Vars = p.Name, map[string]string{}
	maps.Copy(d.Vars, p.Vars)
	maps.Copy(d.Vars, d.Attrs)
	maps.DeleteFunc(d.Vars, func(k, v string) bool { return answer.IsSecret(k, v) }) // a command line is no place for one
	if err := checkAttrs(p.args, d.Attrs); err != nil {
		return "", fmt.Errorf("kernel arguments of profile %s for %s: %w", p.Name, d.Node, err)
	}
	var out bounded
	if err := p.args.Execute(&out, d); err != nil {
		return "", fmt.Errorf("kernel arguments of profile %s for %s: %w", p.Name, d.Node, err)
	}
	line := strings.TrimSpace(strings.NewReplacer("\r\n", " ", "\n", " ", "\t", " ").Replace(out.String()))
	for _, r := range line {
		if r < ' ' || r > '~' {
			return "", fmt.Errorf("kernel arguments of profile %s for %s: %q is not printable ASCII", p.Name, d.Node, r)
		}
	}
	if strings.Contains(line, "${") {
		return "", fmt.Errorf(`kernel arguments of profile %s for %s: "${" would be expanded by the boot loader`, p.Name, d.Node)
	}
	return line, nil
}

// bounded refuses to grow past MaxArgs, which also ends a template that would write for ever.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > MaxArgs {
		return 0, fmt.Errorf("they are longer than %d bytes", MaxArgs)
	}
	return b.Builder.Write(p)
}

// ArgVars are the variables of a profile's args for a node of these groups: those of its groups, of which the one counts
// that comes first, over the profile's over the site's. Secrets are left out.
func (s *Set) ArgVars(p *Profile, groups []string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, s.vars.Site)
	maps.Copy(out, p.Vars)
	for _, g := range slices.Backward(groups) {
		maps.Copy(out, s.vars.Groups[g])
	}
	maps.DeleteFunc(out, func(k, v string) bool { return answer.IsSecret(k, v) })
	return out
}

// checkAttrs refuses the attributes that the template could put out and that are no part of one word.
func checkAttrs(t *template.Template, attrs map[string]string) error {
	var errs []error
	keys, all := attrsOf(t)
	for k, v := range attrs {
		if all || slices.Contains(keys, k) {
			errs = append(errs, checkWord(k, v))
		}
	}
	return errors.Join(errs...)
}

func checkWord(key, value string) error {
	bad := func(what string) error {
		return fmt.Errorf("attribute %s = %q has %s, which kernel arguments cannot hold: change it by provost node set --attr", key, value, what)
	}
	if !utf8.ValidString(value) {
		return bad("bytes that are not UTF-8")
	}
	for _, r := range value {
		switch {
		case unicode.IsSpace(r):
			return bad("white space")
		case unicode.IsControl(r):
			return bad("a control character")
		case r == '\'' || r == '"' || r == '`' || r == '\\':
			return bad("quotes or a backslash")
		}
	}
	if strings.Contains(value, "${") {
		return bad(`"${"`)
	}
	return nil
}

// attrsOf lists the attributes that a template names, as .Attrs.KEY or index .Attrs "KEY", or so of .Vars, which has them too. It reports all where the
// template takes the whole map, or everything that it is given, in hand.
func attrsOf(t *template.Template) (keys []string, all bool) {
	w := &attrWalk{}
	for _, one := range t.Templates() {
		if one.Tree != nil {
			// a template that is called gets as its dot what the call names, and that is looked at there
			w.list(one.Tree.Root, one.Name() == t.Name())
		}
	}
	return w.keys, w.all
}

type attrWalk struct {
	keys []string
	all  bool
}

func (w *attrWalk) field(ident []string) {
	switch {
	case len(ident) == 0:
		w.all = true
	case ident[0] != "Attrs" && ident[0] != "Vars":
	case len(ident) == 1:
		w.all = true
	default:
		w.keys = append(w.keys, ident[1])
	}
}

func (w *attrWalk) list(l *parse.ListNode, top bool) {
	if l != nil {
		for _, n := range l.Nodes {
			w.node(n, top)
		}
	}
}

// node looks at n; top tells that the dot is the ArgData itself, and not the value of a with or a range, which has been
// looked at where it came from.
func (w *attrWalk) node(n parse.Node, top bool) {
	switch n := n.(type) {
	case *parse.ActionNode:
		w.node(n.Pipe, top)
	case *parse.IfNode:
		w.node(n.Pipe, top)
		w.list(n.List, top)
		w.list(n.ElseList, top)
	case *parse.RangeNode:
		w.node(n.Pipe, top)
		w.list(n.List, false)
		w.list(n.ElseList, top)
	case *parse.WithNode:
		w.node(n.Pipe, top)
		w.list(n.List, false)
		w.list(n.ElseList, top)
	case *parse.TemplateNode:
		if n.Pipe != nil {
			w.node(n.Pipe, top)
		}
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			w.command(c, top)
		}
	case *parse.FieldNode:
		w.field(n.Ident)
	case *parse.VariableNode:
		if n.Ident[0] == "$" {
			w.field(n.Ident[1:])
		}
	case *parse.ChainNode:
		w.node(n.Node, top)
	case *parse.DotNode:
		w.all = w.all || top
	}
}

func (w *attrWalk) command(c *parse.CommandNode, top bool) {
	if len(c.Args) == 3 {
		function, _ := c.Args[0].(*parse.IdentifierNode)
		from, _ := c.Args[1].(*parse.FieldNode)
		key, _ := c.Args[2].(*parse.StringNode)
		if function != nil && function.Ident == "index" && from != nil && len(from.Ident) == 1 && (from.Ident[0] == "Attrs" || from.Ident[0] == "Vars") && key != nil {
			w.keys = append(w.keys, key.Text)
			return
		}
	}
	for _, a := range c.Args {
		w.node(a, top)
	}
}
