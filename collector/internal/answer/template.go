// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"text/template"
	"text/template/parse"
)

// format is a kind of answer file.
type format struct {
	name     string    // the begin of its templates' names
	file     string    // what the kernel arguments name; empty: the directory of all of them
	main     string    // the file that the template makes
	quote    []string  // the functions through which a value may be put out
	hooks    []string  // scripts that call the agent
	further  []further // files beside the main one
	crlf     bool      // lines of the main file end in CR LF
	injected bool      // the boot loader puts all of them into the system that it loads
}

// further is a file of a template that the format's shared one defines, or of a text that is always the same.
type further struct{ file, template, text string }

var formats = []format{
	{name: "kickstart", file: "ks.cfg", main: "ks.cfg", quote: []string{"ks", "sh"}, hooks: []string{"pre", "post", "onerror"}},
	{name: "autoyast", file: "autoinst.xml", main: "autoinst.xml", quote: []string{"xml"}, hooks: []string{"pre", "chroot"}},
	{name: "preseed", file: "preseed.cfg", main: "preseed.cfg", quote: []string{"preseed"}, hooks: []string{"early", "disks", "late"}},
	{name: "esxi", file: "esxi.cfg", main: "esxi.cfg", quote: []string{"ks", "sh"}},
	// cmd.exe does not find the labels of a file whose lines end in LF alone.
	{name: "winpe", file: "startnet.cmd", main: "startnet.cmd", quote: []string{"cmd", "xml"}, crlf: true, injected: true,
		further: []further{{file: "unattend.xml", template: "unattend"}}},
	// cloud-init's data source NoCloud wants the two further files beside user-data.
	{name: "autoinstall", main: "user-data", quote: []string{"yaml"}, hooks: []string{"early", "late", "error"},
		further: []further{{file: "meta-data", template: "meta-data"}, {file: "vendor-data", text: "#cloud-config\n{}\n"}}},
}

var nameRE = regexp.MustCompile(`^([a-z]+)(-[A-Za-z0-9][A-Za-z0-9._-]{0,60})?\.tmpl$`)

// formatOf finds the format by a template's name. shared reports that the template is the one that all of its format may
// use, which makes no file by itself.
func formatOf(name string) (f format, shared bool, err error) {
	if m := nameRE.FindStringSubmatch(name); m != nil {
		i := slices.IndexFunc(formats, func(f format) bool { return f.name == m[1] })
		if i >= 0 {
			return formats[i], m[2] == "", nil
		}
	}
	var names []string
	for _, f := range formats {
		names = append(names, f.name+"-NAME.tmpl")
	}
	return format{}, false, fmt.Errorf("template %q: its name tells what it is for: use %s", name, strings.Join(names, ", "))
}

// SharedName is the name of the template that a template's format shares; "" if that is name itself.
func SharedName(name string) (string, error) {
	f, shared, err := formatOf(name)
	if err != nil || shared {
		return "", err
	}
	return f.name + ".tmpl", nil
}

// maxFile bounds an answer file, which also ends a template that would write for ever.
const maxFile = 1 << 20

type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxFile {
		return 0, fmt.Errorf("the file is larger than %d bytes", maxFile)
	}
	return b.Builder.Write(p)
}

// functions are those of the templates, over a node's variables and the hooks of its installer. None of them reaches
// outside of its arguments.
func functions(v vars, hooks map[string]string) template.FuncMap {
	quoter := func(quote func(string) (string, error)) func(string) (string, error) {
		return func(s string) (string, error) {
			q, err := quote(s)
			if err != nil {
				return "", fmt.Errorf("a value cannot be put there: %w", err)
			}
			return q, nil
		}
	}
	get := func(name string, otherwise ...string) (string, error) {
		value, ok := v[name]
		switch {
		case value != "":
			return value, nil
		case len(otherwise) > 0:
			return otherwise[0], nil
		case !ok:
			return "", fmt.Errorf("there is no var %q: set it in the profile, or give {{ var %q \"DEFAULT\" }}", name, name)
		}
		return "", nil
	}
	return template.FuncMap{
		"ks": quoter(quoteKickstart), "sh": quoter(quoteShell), "xml": quoter(quoteXML), "yaml": quoter(quoteYAML), "preseed": quoter(quotePreseed), "cmd": quoter(quoteCmd),
		"var": get,
		"list": func(name string) ([]string, error) {
			value, err := get(name, "")
			return splitList(value), err
		},
		"on":       func(name string) bool { return v[name] == "on" },
		"join":     func(with string, list []string) string { return strings.Join(list, with) },
		"urlhost":  urlPart(func(u *url.URL) string { return u.Host }),
		"urlpath":  urlPart(func(u *url.URL) string { return "/" + strings.Trim(u.Path, "/") }),
		"source":   func(schemes ...string) (string, error) { return sourceOf(v["source"], schemes) },
		"refuse":   func(text string) (string, error) { return "", errors.New(text) },
		"lower":    strings.ToLower,
		"diskname": func(path string) string { return strings.TrimPrefix(path, "/dev/") },
		"provost":  func() map[string]string { return hooks },
	}
}

func urlPart(part func(*url.URL) string) func(string) (string, error) {
	return func(s string) (string, error) {
		u, err := url.Parse(s)
		if err != nil {
			return "", errors.New("it is no URL")
		}
		return part(u), nil
	}
}

// sourceOf is the scheme of the packages' URL, of which an installer knows some; empty without one.
func sourceOf(source string, schemes []string) (string, error) {
	scheme, _, _ := strings.Cut(source, "://")
	if source != "" && !slices.Contains(schemes, scheme) {
		return "", fmt.Errorf("var source is a URL of %s: this installer takes packages by %s", scheme, strings.Join(schemes, ", "))
	}
	return scheme, nil
}

// parseTemplate gives a recipe's template with the one that its format shares, for the variables and hooks of a node.
func parseTemplate(f format, r *Recipe, v vars, hooks map[string]string) (*template.Template, error) {
	t, err := read.template(f, r)
	if err == nil {
		t, err = t.Clone()
	}
	if err != nil {
		return nil, err
	}
	return t.Funcs(functions(v, hooks)), nil
}

// texts are what a template is read from.
type texts struct{ name, text, shared string }

// templates are those that were read and found right: an order to a thousand nodes asks for the same one several thousand
// times. A site has few, and what is left of those before a reload goes when there are too many.
type templates struct {
	mu  sync.Mutex
	all map[texts]*template.Template
}

const maxTemplates = 64

var read templates

func (s *templates) template(f format, r *Recipe) (*template.Template, error) {
	key := texts{r.Name, r.Text, r.Shared}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.all[key]; t != nil {
		return t, nil
	}
	t, err := readTemplate(f, r)
	if err != nil {
		return nil, err
	}
	if s.all == nil || len(s.all) >= maxTemplates {
		s.all = map[texts]*template.Template{}
	}
	s.all[key] = t
	return t, nil
}

// readTemplate reads a template and looks at every value that it puts out.
func readTemplate(f format, r *Recipe) (*template.Template, error) {
	t := template.New(r.Name).Option("missingkey=error").Funcs(functions(nil, nil))
	if r.Shared != "" {
		if _, err := t.New(f.name + ".tmpl").Parse(r.Shared); err != nil {
			return nil, err
		}
	}
	if _, err := t.Parse(r.Text); err != nil {
		return nil, err
	}
	var errs []error
	for _, one := range t.Templates() {
		if one.Tree != nil {
			c := checker{tree: one.Tree, format: f}
			c.list(one.Tree.Root)
			errs = append(errs, c.errs...)
		}
	}
	return t, errors.Join(errs...)
}

// checker finds values that a template would put out as they are.
type checker struct {
	tree   *parse.Tree
	format format
	errs   []error
}

func (c *checker) list(l *parse.ListNode) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.ActionNode:
			c.action(n)
		case *parse.IfNode:
			c.list(n.List)
			c.list(n.ElseList)
		case *parse.RangeNode:
			c.list(n.List)
			c.list(n.ElseList)
		case *parse.WithNode:
			c.list(n.List)
			c.list(n.ElseList)
		}
	}
}

// action takes an assignment, a quoting function at the end of a pipeline, and a hook.
func (c *checker) action(n *parse.ActionNode) {
	if len(n.Pipe.Decl) > 0 {
		return
	}
	last := n.Pipe.Cmds[len(n.Pipe.Cmds)-1]
	switch first := last.Args[0].(type) {
	case *parse.IdentifierNode:
		if slices.Contains(c.format.quote, first.Ident) {
			return
		}
	case *parse.ChainNode:
		if from, ok := first.Node.(*parse.IdentifierNode); ok && from.Ident == "provost" && len(n.Pipe.Cmds) == 1 && len(first.Field) == 1 {
			if !slices.Contains(c.format.hooks, first.Field[0]) {
				var names []string
				for _, h := range c.format.hooks {
					names = append(names, "provost."+h)
				}
				c.bad(n, "there is no hook provost.%s: use %s", first.Field[0], cmp.Or(strings.Join(names, ", "), ".Callback, no agent runs there"))
			}
			return
		}
	}
	c.bad(n, "%s puts a value out as it is: end it with | %s", n, strings.Join(c.format.quote, " or | "))
}

func (c *checker) bad(n parse.Node, text string, args ...any) {
	where, _ := c.tree.ErrorContext(n)
	c.errs = append(c.errs, fmt.Errorf("template: %s: %s", where, fmt.Sprintf(text, args...)))
}
