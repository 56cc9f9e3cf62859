// SPDX-License-Identifier: Apache-2.0

package answer_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A file's shape is its structure without its values. script is every script that an installer would run of it.
type shape struct {
	parts   []string
	scripts []string
}

func checkStructure(t testing.TB, file string, b []byte) shape {
	t.Helper()
	s, err := shapeOf(file, string(b))
	if err != nil {
		t.Errorf("%s: %v\n%s", file, err, b)
	}
	return s
}

func shapeOf(file, text string) (shape, error) {
	switch file {
	case "ks.cfg":
		return kickstartShape(text)
	case "esxi.cfg":
		return esxiShape(text)
	case "startnet.cmd":
		return batchShape(text)
	case "autoinst.xml", "unattend.xml":
		return xmlShape(text)
	case "preseed.cfg":
		return preseedShape(text)
	}
	return yamlShape(file, text)
}

// kickstartCommands are those of the shipped templates.
var kickstartCommands = []string{"text", "reboot", "install", "eula", "url", "nfs", "lang", "keyboard", "network", "rootpw", "sshkey", "selinux", "firewall",
	"firstboot", "timezone", "timesource", "zerombr", "ignoredisk", "clearpart", "autopart", "bootloader"}

// kickstartShape reads a file as pykickstart does (parser.py): a line that begins with % begins a section, %end ends it,
// others outside of a section are commands, split by shlex.
func kickstartShape(text string) (shape, error) {
	var s shape
	section := ""
	var body []string
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case section != "" && strings.HasPrefix(trimmed, "%end"):
			if section != "%packages" {
				s.scripts = append(s.scripts, strings.Join(body, "\n")+"\n")
			} else {
				s.parts = append(s.parts, fmt.Sprintf("%d packages", len(body)))
			}
			section, body = "", nil
		case strings.HasPrefix(trimmed, "%"):
			if section != "" {
				return s, fmt.Errorf("line %d: %s within %s", i+1, line, section)
			}
			section, _, _ = strings.Cut(trimmed, " ")
			s.parts = append(s.parts, trimmed)
			if !slices.Contains([]string{"%packages", "%pre", "%post", "%onerror"}, section) {
				return s, fmt.Errorf("line %d: section %s", i+1, section)
			}
		case section != "":
			body = append(body, line)
		case trimmed == "" || trimmed[0] == '#':
		default:
			words, err := shlex(trimmed)
			if err != nil {
				return s, fmt.Errorf("line %d: %w", i+1, err)
			}
			if !slices.Contains(kickstartCommands, words[0]) {
				return s, fmt.Errorf("line %d: command %q", i+1, words[0])
			}
			for j, w := range words[1:] {
				if name, _, ok := strings.Cut(w, "="); strings.HasPrefix(w, "--") && ok {
					words[j+1] = name
				} else if !strings.HasPrefix(w, "--") {
					words[j+1] = "VALUE"
				}
			}
			s.parts = append(s.parts, strings.Join(words, " "))
		}
	}
	if section != "" {
		return s, fmt.Errorf("section %s has no end", section)
	}
	return s, nil
}

// shlex splits as Python's shlex.split(comments=True) does.
func shlex(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	in, started := rune(0), false
	runes := []rune(line)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case in == '"' && r == '\\' && i+1 < len(runes) && (runes[i+1] == '"' || runes[i+1] == '\\'):
			i++
			word.WriteRune(runes[i])
		case in != 0 && r == in:
			in = 0
		case in != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			in, started = r, true
		case r == '\\':
			if i++; i == len(runes) {
				return nil, errors.New("backslash at the end")
			}
			word.WriteRune(runes[i])
			started = true
		case r == '#':
			i = len(runes)
		case strings.ContainsRune(" \t\r\n", r):
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		default:
			word.WriteRune(r)
			started = true
		}
	}
	if in != 0 {
		return nil, errors.New("no closing quotation")
	}
	if started {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("nothing but a comment")
	}
	return words, nil
}

func xmlShape(text string) (shape, error) {
	var s shape
	d := xml.NewDecoder(strings.NewReader(text))
	var path []string
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return s, err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			path = append(path, tok.Name.Local)
			if tok.Name.Local == "source" {
				s.scripts = append(s.scripts, "")
			}
			s.parts = append(s.parts, fmt.Sprint(strings.Join(path, "/"), len(tok.Attr)))
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			if len(path) > 0 && path[len(path)-1] == "source" { // it may come in pieces
				s.scripts[len(s.scripts)-1] += string(tok)
			}
		case xml.ProcInst, xml.Directive:
			s.parts = append(s.parts, fmt.Sprintf("%T", tok))
		case xml.Comment:
			s.parts = append(s.parts, "comment")
		}
	}
}

var preseedRE = regexp.MustCompile(`^(\S+)\s+(\S+)\s+(\S+)(?:\s(.*))?$`)

// preseedShape reads a file as debconf-set-selections(1) does.
func preseedShape(text string) (shape, error) {
	var s shape
	for _, line := range strings.Split(strings.ReplaceAll(text, "\\\n", ""), "\n") {
		if trimmed := strings.TrimSpace(line); trimmed == "" || trimmed[0] == '#' {
			continue
		}
		m := preseedRE.FindStringSubmatch(line)
		if m == nil {
			return s, fmt.Errorf("line %q", line)
		}
		s.parts = append(s.parts, strings.Join(m[1:4], " "))
		if !slices.Contains([]string{"string", "boolean", "select", "multiselect", "note", "password"}, m[3]) {
			return s, fmt.Errorf("line %q has the type %q", line, m[3])
		}
		if strings.HasSuffix(m[2], "_command") {
			s.scripts = append(s.scripts, m[4]+"\n")
		}
	}
	return s, nil
}

func yamlShape(file, text string) (shape, error) {
	var s shape
	if file != "meta-data" && !strings.HasPrefix(text, "#cloud-config\n") {
		return s, errors.New("it does not begin with #cloud-config")
	}
	var doc yaml.Node
	d := yaml.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&doc); err != nil {
		return s, err
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return s, errors.New("it has more than one document")
	}
	var walk func(path string, n *yaml.Node)
	walk = func(path string, n *yaml.Node) {
		s.parts = append(s.parts, fmt.Sprintf("%s %d %s", path, n.Kind, n.Tag))
		for i, c := range n.Content {
			switch {
			case n.Kind != yaml.MappingNode:
				walk(path+"[]", c)
			case i%2 == 1:
				walk(path+"."+n.Content[i-1].Value, c)
			}
		}
		if strings.HasSuffix(path, "-commands[]") {
			s.scripts = append(s.scripts, n.Value)
		}
	}
	walk("", doc.Content[0])
	return s, nil
}

// esxiShape reads a kickstart file of ESXi, whose sections end where the next one begins.
func esxiShape(text string) (shape, error) {
	head, rest, ok := strings.Cut(text, "\n%pre ")
	if !ok {
		return shape{}, errors.New("there is no %pre")
	}
	sections := strings.Split("%pre "+rest, "\n%")
	for i, s := range sections {
		line, body, _ := strings.Cut(strings.TrimPrefix(s, "%"), "\n")
		sections[i] = "%" + strings.Replace(line, "firstboot", "post", 1) + "\n" + body + "\n%end"
	}
	head = strings.Replace(head, "vmaccepteula", "eula", 1)
	return kickstartShape(head + "\n" + strings.Join(sections, "\n"))
}

// batchShape is all that means something to cmd.exe, line by line.
func batchShape(text string) (shape, error) {
	var s shape
	if strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\n") {
		return s, errors.New("a line ends in LF alone")
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		s.parts = append(s.parts, regexp.MustCompile(`[^&|<>^%!"()]+`).ReplaceAllString(line, ""))
	}
	return s, nil
}
