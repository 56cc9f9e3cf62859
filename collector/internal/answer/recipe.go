// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"embed"
	"errors"
	"fmt"
	"strings"
	"text/template"
)

// Shipped has the templates that come with the program, as templates/NAME.
//
//go:embed templates
var Shipped embed.FS

// Recipe is what the answer files of an install are made of, without its node: a snapshot that does not change when the
// site's files do. It holds secrets.
type Recipe struct {
	Name     string                       `json:"name"`             // of the template, which also says what kind it is
	Text     string                       `json:"text"`             // the template
	Shared   string                       `json:"shared,omitempty"` // the template FORMAT.tmpl
	Profile  string                       `json:"profile"`
	External bool                         `json:"external,omitempty"` // the site boots the machine: the hooks bring the agent's settings
	Site     map[string]string            `json:"site,omitempty"`     // variables of the site
	Groups   map[string]map[string]string `json:"groups,omitempty"`   // of groups
	Vars     map[string]string            `json:"vars,omitempty"`     // of the profile
	Secrets  map[string]string            `json:"secrets,omitempty"`  // content of files, by "file:PATH"
}

// Node is what a template sees of a node.
type Node struct {
	Name   string
	MAC    string // of the card to install by, aa:bb:cc:dd:ee:ff
	IP     string // empty if not known
	Serial string
	Groups []string
	Attrs  map[string]string
}

// Data is the rest of what answer files are made of.
type Data struct {
	Node    Node
	Install string
	Images  string // URL of the images directory as the node reaches it, without a slash at its end
	// Callback is the URL below which a system without an agent tells its stages, without a slash at its end.
	Callback string
	URLs     []string // of the collector for the agent; needed for Recipe.External only, as Pin
	Pin      string   // "sha256:" and hex
}

// view is the dot of a template.
type view struct {
	Node, MAC, IP, Serial    string
	Groups                   []string
	Install, Profile, Images string
	Callback                 string
}

// File is the file that an installer is told to fetch; empty if it is told the directory that all are in, with a slash
// at its end.
func (r *Recipe) File() (string, error) {
	f, _, err := formatOf(r.Name)
	return f.file, err
}

// Injected are the files that a boot loader has to put into the system that it loads; nil if the system fetches by itself.
func (r *Recipe) Injected() []string {
	f, _, err := formatOf(r.Name)
	if err != nil || !f.injected {
		return nil
	}
	names := []string{f.main}
	for _, x := range f.further {
		names = append(names, x.file)
	}
	return names
}

// Check says what is wrong with the template itself.
func (r *Recipe) Check() error {
	f, shared, err := formatOf(r.Name)
	if err != nil {
		return err
	}
	if shared {
		return fmt.Errorf("template %s is the part that others of its kind share: use one like %s-NAME.tmpl", r.Name, f.name)
	}
	_, err = parseTemplate(f, r, nil, nil)
	return err
}

// Render makes the answer files, by name. A variable that has no place in the file is an error that names it.
func (r *Recipe) Render(d Data) (map[string][]byte, error) { return r.render(d, false) }

// RenderMasked is Render for eyes: every secret is a row of asterisks. What Render refuses is refused here too.
func (r *Recipe) RenderMasked(d Data) (map[string][]byte, error) { return r.render(d, true) }

func (r *Recipe) render(d Data, masked bool) (map[string][]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	f, _, err := formatOf(r.Name)
	if err != nil {
		return nil, err
	}
	v, err := r.resolve(d.Node, masked)
	if err != nil {
		return nil, fmt.Errorf("variables of %s: %w", d.Node.Name, err)
	}
	hooks, err := makeHooks(f, r.External, d, v)
	if err != nil {
		return nil, fmt.Errorf("hooks of %s: %w", r.Name, err)
	}
	t, err := parseTemplate(f, r, v, hooks)
	if err != nil {
		return nil, err
	}
	dot := view{d.Node.Name, d.Node.MAC, d.Node.IP, d.Node.Serial, d.Node.Groups, d.Install, r.Profile, d.Images, d.Callback}
	text, err := execute(t, r.Name, dot)
	if err != nil {
		return nil, err
	}
	if f.crlf {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	files := map[string][]byte{f.main: []byte(text)}
	for _, x := range f.further {
		text := x.text
		if x.template != "" {
			if text, err = execute(t, x.template, dot); err != nil {
				return nil, err
			}
		}
		files[x.file] = []byte(text)
	}
	return files, nil
}

func execute(t *template.Template, name string, dot view) (string, error) {
	var b bounded
	if err := t.ExecuteTemplate(&b, name, dot); err != nil {
		return "", plainError(err)
	}
	return b.String(), nil
}

// plainError is the error of a template without the words that are of use to Go programmers only. An error of a function
// never names the value that it was given.
func plainError(err error) error {
	var exec template.ExecError
	if !errors.As(err, &exec) {
		return err
	}
	text := strings.TrimPrefix(exec.Error(), "template: ")
	if i := strings.Index(text, ": error calling "); i >= 0 {
		return fmt.Errorf("template %s: %w", text[:i], errors.Unwrap(exec.Err))
	}
	return fmt.Errorf("template %s", text)
}
