// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"provost/postscripts"
	"provost/proto"
)

// Lookup finds the script of a step by its plain name.
type Lookup interface {
	// Script gives a script's bytes, and its path for messages. The error of one that is not there says where it was
	// looked for, and is fs.ErrNotExist.
	Script(name string) (b []byte, path string, err error)
}

// Scripts looks a script up in the site's postscripts directory, then among the shipped ones of package postscripts. It
// reads at every call, so that an edit counts for the next install. The zero value has the shipped ones only.
type Scripts struct{ dir string }

// Script implements Lookup. A symbolic link that leads out of the directory is refused.
func (s Scripts) Script(name string) ([]byte, string, error) {
	if s.dir != "" {
		b, err := s.site(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return b, filepath.Join(s.dir, name), err
		}
	}
	b, err := postscripts.Stock.ReadFile("stock/" + name)
	if err == nil {
		return b, "shipped/" + name, nil
	}
	return nil, "", &missing{name: name, places: s.places()}
}

type missing struct{ name, places string }

func (m *missing) Error() string {
	return fmt.Sprintf("script %q is not there: looked in %s", m.name, m.places)
}
func (m *missing) Is(target error) bool { return target == fs.ErrNotExist }

func (s Scripts) site(name string) ([]byte, error) {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("no regular file")
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, proto.MaxScript+1))
}

func (s Scripts) places() string {
	var names []string
	entries, _ := postscripts.Stock.ReadDir("stock") // embedded: it is there
	for _, e := range entries {
		names = append(names, e.Name())
	}
	stock := "among the shipped ones (" + strings.Join(names, ", ") + ")"
	if s.dir == "" {
		return stock
	}
	return s.dir + " and " + stock
}

// Snapshot gives the profile's steps with every default written out and the digest and size of each script, and the
// scripts by digest, and the secrets read. Each script is looked at as the node's kernel would: one that could not be started is an error that
// names profile, step and file; all of them are reported, joined.
func (p *Profile) Snapshot(scripts Lookup) ([]proto.Step, map[string][]byte, error) {
	steps := make([]proto.Step, 0, len(p.Steps))
	files := map[string][]byte{}
	var errs []error
	for _, s := range p.Steps {
		s = s.WithDefaults()
		b, where, err := scripts.Script(s.Script)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("profile %s, step %s: %w", p.Name, s.Name, err))
			continue
		case err == nil:
			err = preflight(b)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("profile %s, step %s: script %s: %w", p.Name, s.Name, where, err))
			continue
		}
		if s.SecretEnv, err = readSecrets(s.SecretEnv); err != nil {
			errs = append(errs, fmt.Errorf("profile %s, step %s: %w", p.Name, s.Name, err))
			continue
		}
		s.Digest, s.Size = proto.Digest(b), int64(len(b))
		files[s.Digest] = b
		steps = append(steps, s)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	return steps, files, nil
}

// readSecrets gives the values of secret-env, which the files that it names hold at this moment. They must never be shown.
func readSecrets(env map[string]string) (map[string]string, error) {
	if len(env) == 0 {
		return nil, nil
	}
	values := map[string]string{}
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(env)) {
		v, err := readSecret(env[k])
		if err != nil {
			errs = append(errs, fmt.Errorf("secret-env %s: %w", k, err))
		}
		values[k] = v
	}
	return values, errors.Join(errs...)
}

func readSecret(ref string) (string, error) {
	name, err := proto.SecretPath(ref)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("the collector cannot read it: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("the collector cannot read it: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, proto.MaxSecret+3)) // the end of a line, and one byte too many
	if err != nil {
		return "", fmt.Errorf("the collector cannot read it: %w", err)
	}
	v, err := proto.SecretValue(b)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// maxShebang is what Linux looks at of a script's first line (BINPRM_BUF_SIZE), less the end of the line.
const maxShebang = 255

// preflight says why the kernel of a node would not start a script.
func preflight(b []byte) error {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	switch {
	case len(b) > proto.MaxScript:
		return fmt.Errorf("larger than %d bytes", proto.MaxScript)
	case bytes.HasPrefix(b, []byte("\x7fELF")):
		return nil
	case bytes.HasPrefix(b, []byte("\xef\xbb\xbf#!")):
		return errors.New("a byte order mark stands before #!: save it as UTF-8 without one")
	case !bytes.HasPrefix(b, []byte("#!")):
		return errors.New("its first line is not #! and an interpreter, like #!/bin/sh")
	case bytes.HasSuffix(line, []byte("\r")):
		return fmt.Errorf("its first line %q ends as on Windows, so that the interpreter would not be found: convert it by dos2unix", line)
	case len(line) > maxShebang:
		return fmt.Errorf("its first line is longer than %d bytes, which is all that Linux reads", maxShebang)
	}
	words := strings.Fields(string(line[2:]))
	if len(words) == 0 || !path.IsAbs(words[0]) {
		return fmt.Errorf("its first line %q names no interpreter by its whole path, like #!/bin/sh", line)
	}
	return nil
}
