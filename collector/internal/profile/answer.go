// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"provost/collector/internal/answer"
	"provost/proto"
)

// siteVars is the file vars.yaml of the configuration directory: variables of the whole site and of groups of nodes.
type siteVars struct {
	Site   map[string]string            `yaml:"site"`
	Groups map[string]map[string]string `yaml:"groups"`
}

func (v siteVars) check(f *file) {
	checkVars(f, "site", v.Site)
	for g, vars := range v.Groups {
		f.badErr(f.line("groups"), proto.CheckName("group", g))
		checkVars(f, "groups", vars)
	}
}

func checkVars(f *file, key string, vars map[string]string) {
	for k, v := range vars {
		f.badErr(f.line(key), proto.CheckAttr(k, v))
		f.badErr(f.line(key), answer.CheckVar(k, v))
	}
}

const varsFile = "vars.yaml"

// readVars reads vars.yaml; a site without one has no such variables.
func readVars(configDir string) (siteVars, []error) {
	var v siteVars
	if configDir == "" {
		return v, nil
	}
	path := filepath.Join(configDir, varsFile)
	b, err := readSome(os.DirFS(configDir), varsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	if err != nil {
		return v, []error{&Problem{Path: path, Text: err.Error()}}
	}
	f := &file{path: path}
	f.read(b, &v)
	if len(f.problems) == 0 {
		v.check(f)
	}
	return v, f.problems
}

// readTemplates reads templates/*.tmpl, the site's over the shipped ones, by name.
func readTemplates(configDir string) (map[string]string, []error) {
	found := map[string]string{}
	read := func(fsys fs.FS, where string) (problems []error) {
		entries, err := fs.ReadDir(fsys, "templates")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return []error{fmt.Errorf("reading the templates of %s: %w", where, err)}
		}
		for _, e := range entries {
			path := filepath.Join(where, "templates", e.Name())
			if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".tmpl") {
				continue
			}
			b, err := readSome(fsys, "templates/"+e.Name())
			if err == nil {
				_, err = answer.SharedName(e.Name())
			}
			if err != nil {
				problems = append(problems, &Problem{Path: path, Text: err.Error()})
				continue
			}
			found[e.Name()] = string(b)
		}
		return problems
	}
	problems := read(answer.Shipped, "shipped")
	if configDir != "" {
		problems = append(problems, read(os.DirFS(configDir), configDir)...)
	}
	return found, problems
}

// checkAnswer looks for what is wrong with a profile's template, and for variables that would change nothing.
func (s *Set) checkAnswer(p *Profile) (problems []error) {
	r, err := s.recipe(p, nil)
	var unused []string
	if err == nil {
		unused, err = r.NoPlace(p.Vars)
	}
	if err != nil {
		return []error{&Problem{Path: p.path, Line: p.answerLine, Text: "answer: " + err.Error()}}
	}
	inArgs, all := attrsOf(p.args)
	for _, name := range unused {
		if !all && !slices.Contains(inArgs, name) {
			problems = append(problems, &Problem{Path: p.path, Line: p.varsLine,
				Text: fmt.Sprintf("vars: %s has no place for %s: leave it out, or take a template that has one", p.Answer, name)})
		}
	}
	return problems
}

// recipe is a profile's answer without the content of secrets.
func (s *Set) recipe(p *Profile, groups []string) (*answer.Recipe, error) {
	text, ok := s.templates[p.Answer]
	shared, err := answer.SharedName(p.Answer)
	if err == nil && !ok {
		err = fmt.Errorf("template %s is not there: there are %s", p.Answer, strings.Join(s.Templates(), ", "))
	}
	if err != nil {
		return nil, err
	}
	r := &answer.Recipe{Name: p.Answer, Text: text, Shared: s.templates[shared], Profile: p.Name, External: p.Boot == BootExternal, Site: s.vars.Site, Vars: p.Vars}
	for _, g := range groups {
		if v, ok := s.vars.Groups[g]; ok {
			if r.Groups == nil {
				r.Groups = map[string]map[string]string{}
			}
			r.Groups[g] = v
		}
	}
	return r, r.Check()
}

// Templates lists the templates that a profile may name as its answer, sorted.
func (s *Set) Templates() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.templates)) {
		if shared, err := answer.SharedName(name); err == nil && shared != "" {
			names = append(names, name)
		}
	}
	return names
}

// Answer gives what the answer files of a profile are made of for a node of these groups, as it is now; nil if the profile
// has none. Values from files are read here: what cannot be read is an error, which never has their content.
func (s *Set) Answer(p *Profile, groups []string) (*answer.Recipe, error) {
	if p.Answer == "" {
		return nil, nil
	}
	r, err := s.recipe(p, groups)
	if err != nil {
		return nil, fmt.Errorf("answer of profile %s: %w", p.Name, err)
	}
	var errs []error
	for _, vars := range append(slices.Collect(maps.Values(r.Groups)), r.Site, r.Vars) {
		for k, v := range vars {
			if _, done := r.Secrets[v]; done || !strings.HasPrefix(v, answer.FilePrefix) {
				continue
			}
			secret, err := readSecret(v)
			if err != nil {
				errs = append(errs, fmt.Errorf("answer of profile %s: var %s: %w", p.Name, k, err))
				continue
			}
			if r.Secrets == nil {
				r.Secrets = map[string]string{}
			}
			r.Secrets[v] = secret
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return r, nil
}
