// SPDX-License-Identifier: Apache-2.0

// Package profile reads what an administrator writes: profiles, sequences, and the scripts of steps. Files below the
// configuration directory stand in for the shipped ones of the same name.
//
// It must never pass over a key, a file or a value that it does not understand, read outside of the directories that it
// is given, or run anything of what it reads.
package profile

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"provost/collector/internal/sequence"
)

//go:embed shipped
var shipped embed.FS

// maxFile bounds a profile's or sequence's file, in bytes.
const maxFile = 1 << 20

// Set is all profiles and sequences of a site. It does not change after Load and may be used by any number of goroutines.
type Set struct {
	profiles  map[string]*Profile
	sequences map[string]sequence.Sequence
	scripts   Scripts
	templates map[string]string // of answer files, by name
	vars      siteVars
}

// Load reads {profiles,sequences}/NAME.yaml and templates/NAME.tmpl below configDir over the shipped files, and vars.yaml;
// "" is for the shipped ones alone. What is not there is empty.
//
// The error joins a *Problem for everything that is wrong in any file. The set is there even then, with the files that
// are right, so that a collector whose site has one wrong profile can still serve the nodes of the others.
func Load(configDir string) (*Set, error) {
	set := &Set{profiles: map[string]*Profile{}, sequences: map[string]sequence.Sequence{}}
	if configDir != "" {
		set.scripts.dir = filepath.Join(configDir, "postscripts")
	}
	var problems []error
	own, err := fs.Sub(shipped, "shipped")
	if err != nil {
		return nil, fmt.Errorf("reading shipped files: %w", err)
	}
	files, errs := gather(own, "shipped", configDir, "sequences")
	problems = append(problems, errs...)
	for _, s := range files {
		q, errs := readSequence(s.path, s.name, s.bytes)
		problems = append(problems, errs...)
		if len(errs) == 0 {
			set.sequences[s.name] = q
		}
	}
	set.templates, errs = readTemplates(configDir)
	problems = append(problems, errs...)
	set.vars, errs = readVars(configDir)
	problems = append(problems, errs...)
	files, errs = gather(own, "shipped", configDir, "profiles")
	problems = append(problems, errs...)
	for _, s := range files {
		p, errs := readProfile(s.path, s.name, s.bytes)
		if _, ok := set.sequences[p.Family]; !ok && len(errs) == 0 && !slices.Contains(families, p.Family) {
			errs = append(errs, &Problem{Path: s.path, Text: fmt.Sprintf("family %q: use one of %s, or write sequences/%s.yaml",
				p.Family, strings.Join(families, ", "), p.Family)})
		}
		if _, ok := set.sequences[p.Sequence]; !ok && p.Sequence != "" && len(errs) == 0 {
			errs = append(errs, &Problem{Path: s.path, Line: p.sequenceLine, Text: fmt.Sprintf("sequence %q: use one of %s, or write sequences/%s.yaml",
				p.Sequence, strings.Join(set.Sequences(), ", "), p.Sequence)})
		}
		if p.Answer != "" && len(errs) == 0 {
			errs = append(errs, set.checkAnswer(p)...)
		}
		problems = append(problems, errs...)
		if len(errs) == 0 {
			set.profiles[s.name] = p
		}
	}
	return set, errors.Join(problems...)
}

// Profile gives a profile by its name.
func (s *Set) Profile(name string) (*Profile, bool) {
	p, ok := s.profiles[name]
	return p, ok
}

// Names lists the profiles, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.profiles)) }

// Sequence gives a family's sequence; the generic one for a family that has none of its own.
func (s *Set) Sequence(family string) sequence.Sequence {
	if q, ok := s.sequences[family]; ok {
		return q
	}
	return s.sequences["generic"]
}

// Sequences lists the sequences, sorted.
func (s *Set) Sequences() []string { return slices.Sorted(maps.Keys(s.sequences)) }

// SequenceOf gives a profile's sequence: the one that it names, its family's, or that of every diskless node.
func (s *Set) SequenceOf(p *Profile) sequence.Sequence {
	if p.Sequence != "" {
		return s.Sequence(p.Sequence)
	}
	if p.Kind == KindDiskless {
		return s.Sequence(KindDiskless)
	}
	return s.Sequence(p.Family)
}

// Scripts is where the steps of this set find their scripts.
func (s *Set) Scripts() Scripts { return s.scripts }

// Check looks at what Load does not: whether the scripts of every profile are there and can be started. Scripts are read
// anew, as Snapshot does, so that a later answer may differ.
func (s *Set) Check() error {
	var errs []error
	for _, name := range s.Names() {
		if _, _, err := s.profiles[name].Snapshot(s.scripts); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

type source struct {
	name  string // without .yaml
	path  string // for messages
	bytes []byte
}

// gather reads the YAML files of one kind, sorted by name, the site's over the shipped ones.
func gather(own fs.FS, ownName, configDir, kind string) ([]source, []error) {
	found, problems := readDir(own, ownName, kind)
	if configDir != "" {
		over, errs := readDir(os.DirFS(configDir), configDir, kind)
		maps.Copy(found, over)
		problems = append(problems, errs...)
	}
	return slices.SortedFunc(maps.Values(found), func(a, b source) int { return strings.Compare(a.name, b.name) }), problems
}

func readDir(fsys fs.FS, fsysName, kind string) (map[string]source, []error) {
	found := map[string]source{}
	entries, err := fs.ReadDir(fsys, kind)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return found, []error{fmt.Errorf("reading the %s of %s: %w", kind, fsysName, err)}
	}
	var problems []error
	for _, e := range entries {
		path := filepath.Join(fsysName, kind, e.Name())
		name, ok := strings.CutSuffix(e.Name(), ".yaml")
		switch {
		case strings.HasPrefix(e.Name(), "."):
			continue // an editor's
		case strings.HasSuffix(e.Name(), ".yml"):
			problems = append(problems, &Problem{Path: path, Text: "is not read: rename it to end in .yaml"})
			continue
		case !ok:
			continue
		}
		b, err := readSome(fsys, kind+"/"+e.Name())
		if err != nil {
			problems = append(problems, &Problem{Path: path, Text: err.Error()})
			continue
		}
		found[name] = source{name: name, path: path, bytes: b}
	}
	return found, problems
}

// readSome reads a file of at most maxFile bytes.
func readSome(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is no regular file")
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("is larger than %d bytes", maxFile)
	}
	return b, nil
}

// sequenceSources are the words of a stage's sources.
var sequenceSources = []string{"agent", "boot", "callback", "log", "compat", "operator"}

func readSequence(path, name string, b []byte) (sequence.Sequence, []error) {
	f := &file{path: path}
	var q sequence.Sequence
	f.read(b, &q)
	if len(f.problems) > 0 {
		return q, f.problems
	}
	if q.Family != name {
		f.bad(f.line("family"), "family %q: the file's name says %q", q.Family, name)
	}
	check := func(key string, i int, s sequence.Stage) {
		line := f.line(key, i)
		f.badErr(line, sequence.Sequence{Family: "x", Stages: []sequence.Stage{s}}.Check())
		for _, src := range s.Sources {
			if !slices.Contains(sequenceSources, src) {
				f.bad(line, "stage %q: source %q: use one of %s", s.Name, src, strings.Join(sequenceSources, ", "))
			}
		}
	}
	for i, s := range q.Stages {
		check("stages", i, s)
	}
	for i, s := range q.Aside {
		check("aside", i, s)
		if s.Within != 0 || s.Optional || s.HeartbeatExtends {
			f.bad(f.line("aside", i), "stage %q is out of line: it is never awaited, so leave out within, optional and heartbeat-extends", s.Name)
		}
	}
	if len(f.problems) == 0 {
		f.badErr(f.line("stages"), q.Check())
	}
	return q, f.problems
}
