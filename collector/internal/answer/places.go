// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"maps"
	"slices"
	"text/template"
	"text/template/parse"
)

// NoPlace lists those of some variables that the shipped templates know, and that have no place in this recipe's files: who
// sets one there means something that will not happen. A site's own variables are not looked at.
func (r *Recipe) NoPlace(vars map[string]string) ([]string, error) {
	f, _, err := formatOf(r.Name)
	if err != nil {
		return nil, err
	}
	t, err := parseTemplate(f, r, nil, nil)
	if err != nil {
		return nil, err
	}
	p := places{templates: t, seen: map[string]bool{}, asked: map[string]bool{}}
	p.template(r.Name)
	for _, x := range f.further {
		p.template(x.template)
	}
	var none []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		_, known := variable(name)
		hook := len(f.hooks) > 0 && slices.Contains(hookVars, name)
		if known && !p.all && !p.asked[name] && !hook {
			none = append(none, name)
		}
	}
	return none, nil
}

// places finds the variables that templates ask for.
type places struct {
	templates *template.Template
	seen      map[string]bool // templates
	asked     map[string]bool // variables
	all       bool            // a name is not known before it runs
}

func (p *places) template(name string) {
	if t := p.templates.Lookup(name); t != nil && t.Tree != nil && !p.seen[name] {
		p.seen[name] = true
		p.node(t.Root)
	}
}

func (p *places) branch(n *parse.BranchNode) {
	p.node(n.Pipe)
	p.node(n.List)
	if n.ElseList != nil {
		p.node(n.ElseList)
	}
}

func (p *places) node(n parse.Node) {
	switch n := n.(type) {
	case *parse.ListNode:
		for _, one := range n.Nodes {
			p.node(one)
		}
	case *parse.ActionNode:
		p.node(n.Pipe)
	case *parse.IfNode:
		p.branch(&n.BranchNode)
	case *parse.RangeNode:
		p.branch(&n.BranchNode)
	case *parse.WithNode:
		p.branch(&n.BranchNode)
	case *parse.TemplateNode:
		if n.Pipe != nil {
			p.node(n.Pipe)
		}
		p.template(n.Name)
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			p.command(c)
		}
	}
}

func (p *places) command(c *parse.CommandNode) {
	for _, a := range c.Args {
		p.node(a)
	}
	function, _ := c.Args[0].(*parse.IdentifierNode)
	if function == nil {
		return
	}
	switch function.Ident {
	case "source":
		p.asked["source"] = true
	case "var", "list", "on":
		if name, ok := argument(c).(*parse.StringNode); ok {
			p.asked[name.Text] = true
		} else {
			p.all = true
		}
	}
}

// argument is the first of a function's; nil if it comes from the pipeline.
func argument(c *parse.CommandNode) parse.Node {
	if len(c.Args) < 2 {
		return nil
	}
	return c.Args[1]
}
