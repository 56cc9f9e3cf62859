// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"strings"

	"provost/proto"
)

// csv reads RFC 4180 with a header line: name, mac, ip, serial, profile, groups, protected, attr.KEY. Several MACs or groups
// in one field stand between blanks, commas, semicolons or bars. A field that is empty takes away what was there; a column
// that is missing leaves it alone.
func (f *File) csv(b []byte) {
	r := csv.NewReader(bytes.NewReader(b))
	r.FieldsPerRecord = -1
	r.TrimLeadingSpace = true
	r.Comment = '#'
	var head []string
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			line, text := 1, err.Error()
			var pe *csv.ParseError
			if errors.As(err, &pe) {
				line, text = pe.Line, pe.Err.Error()
			}
			f.wrong(line, "%s: what follows was not read", text)
			return
		}
		line, _ := r.FieldPos(0)
		if head == nil {
			if head = f.csvHead(line, rec); head == nil {
				return
			}
			continue
		}
		if len(rec) != len(head) {
			f.wrong(line, "%d fields, and the header has %d", len(rec), len(head))
			continue
		}
		f.csvNode(line, head, rec)
	}
	if head == nil {
		f.wrong(1, "the file is empty: its first line names the columns, such as name,mac,profile,groups")
	}
}

// csvHead checks the names of the columns, nil if one is bad.
func (f *File) csvHead(line int, rec []string) []string {
	before := len(f.Problems)
	head := make([]string, len(rec))
	seen := map[string]bool{}
	for i, c := range rec {
		c = strings.TrimSpace(c)
		if !strings.HasPrefix(c, "attr.") {
			c = strings.ToLower(c)
		}
		switch c {
		case "node":
			c = "name"
		case "mac":
			c = "macs"
		case "group":
			c = "groups"
		case "name", "macs", "ip", "serial", "profile", "groups", "protected":
		default:
			if k, ok := strings.CutPrefix(c, "attr."); !ok || proto.CheckAttr(k, "") != nil {
				f.wrong(line, "column %q is unknown: use name, mac, ip, serial, profile, groups, protected, attr.KEY", proto.Clip(c, 64))
			}
		}
		if seen[c] {
			f.wrong(line, "column %q stands twice", proto.Clip(c, 64))
		}
		seen[c], head[i] = true, c
	}
	if !seen["name"] {
		f.wrong(line, "there is no column name: the first line names the columns")
	}
	if len(f.Problems) > before {
		return nil
	}
	return head
}

func (f *File) csvNode(line int, head, rec []string) {
	e := Entry{Line: line}
	p := &e.Patch
	for i, c := range head {
		v := strings.TrimSpace(rec[i])
		switch c {
		case "name":
			e.Name = v
		case "macs":
			l := list(v)
			p.MACs = &l
		case "groups":
			l := list(v)
			p.Groups = &l
		case "ip":
			p.IP = text(v)
		case "serial":
			p.Serial = text(v)
		case "profile":
			p.Profile = text(v)
		case "protected":
			b, err := flag(v)
			if err != nil {
				f.wrong(line, "%v", err)
				return
			}
			p.Protected = b
		default:
			if p.Attrs == nil {
				p.Attrs = map[string]*string{}
			}
			p.Attrs[strings.TrimPrefix(c, "attr.")] = nil
			if v != "" {
				p.Attrs[strings.TrimPrefix(c, "attr.")] = text(v)
			}
		}
	}
	if e.Name == "" {
		f.wrong(line, "the node has no name")
		return
	}
	f.Nodes = append(f.Nodes, e)
}
