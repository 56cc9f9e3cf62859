// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Where a site bakes its settings in.
const (
	ConfigFile = "/etc/provost/agent.conf"
	CAFile     = "/etc/provost/ca.pem"
)

// Settings say who this machine is and where its collector is. Every field may be empty.
type Settings struct {
	URLs        []string
	Node        string
	Install     string
	Claim       string // a secret
	CA          string // a file with PEM certificates, or sha256:HEX of a certificate
	JoinKeyFile string
	Hold        bool
	Rescue      bool // the boot installs nothing: steps must not run
	Look        bool // the boot installs nothing: the disks are looked at
	Debug       bool
}

// Settings reads the kernel command line, and for what it does not say the file ConfigFile; a CA that neither names is
// CAFile if that is there. What this returns along with an error can be used: it is what could be understood.
func (h Host) Settings() (Settings, error) {
	b, err := os.ReadFile(h.path("/proc/cmdline"))
	var errs []error
	if err != nil {
		errs = append(errs, fmt.Errorf("reading the kernel command line: %w", err))
	}
	s := fromCommandLine(string(b))
	b, err = os.ReadFile(h.path(ConfigFile))
	switch {
	case err == nil:
		var file Settings
		if file, err = parseConfig(string(b)); err != nil {
			errs = append(errs, fmt.Errorf("reading %s: %w", ConfigFile, err))
		}
		s.fill(file)
	case !errors.Is(err, fs.ErrNotExist):
		errs = append(errs, fmt.Errorf("reading settings: %w", err))
	}
	if s.CA == "" {
		if _, err := os.Stat(h.path(CAFile)); err == nil {
			s.CA = h.path(CAFile)
		}
	}
	return s, errors.Join(errs...)
}

// fill takes from other what s does not say.
func (s *Settings) fill(other Settings) {
	if len(s.URLs) == 0 {
		s.URLs = other.URLs
	}
	for _, p := range []struct{ dst, src *string }{
		{&s.Node, &other.Node}, {&s.CA, &other.CA}, {&s.JoinKeyFile, &other.JoinKeyFile},
	} {
		if *p.dst == "" {
			*p.dst = *p.src
		}
	}
}

// Words splits a kernel command line as the kernel does (lib/cmdline.c, next_arg): white space separates, double
// quotes hold words together, around a value or around the whole; the quotes are dropped and there are no escapes.
func Words(line string) []string {
	var out []string
	var word strings.Builder
	quoted, inWord := false, false
	for i := range len(line) {
		switch c := line[i]; {
		case c == '"':
			quoted, inWord = !quoted, true
		case !quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == 0):
			if inWord {
				out = append(out, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		out = append(out, word.String())
	}
	return out
}

// fromCommandLine picks out what is ours. Of a word that stands twice the last counts, as for the kernel. Words after
// "--" count too: boot loaders and debian-installer use it for more than init's arguments.
func fromCommandLine(line string) Settings {
	var s Settings
	for _, w := range Words(line) {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "provost.url":
			s.URLs = SplitList(value)
		case "provost.node":
			s.Node = value
		case "provost.install":
			s.Install = value
		case "provost.claim":
			s.Claim = value
		case "provost.ca":
			s.CA = value
		case "provost.hold":
			s.Hold = value != "0"
		case "provost.rescue":
			s.Rescue = value != "0"
		case "provost.look":
			s.Look = value != "0"
		case "provost.debug":
			s.Debug = value != "0"
		}
	}
	return s
}

// parseConfig reads key=value lines; # starts a comment line.
func parseConfig(text string) (Settings, error) {
	var s Settings
	var errs []error
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok {
			errs = append(errs, fmt.Errorf("line %d: %q is not key=value", n, line))
			continue
		}
		switch key {
		case "url":
			s.URLs = SplitList(value)
		case "node":
			s.Node = value
		case "ca":
			s.CA = value
		case "join-key-file":
			s.JoinKeyFile = value
		default:
			errs = append(errs, fmt.Errorf("line %d: unknown key %q: use url, node, ca or join-key-file", n, key))
		}
	}
	return s, errors.Join(errs...)
}

// SplitList splits at commas and drops what is empty.
func SplitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
