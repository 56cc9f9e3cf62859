// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"provost/proto"
)

// xcatAttrs are attributes of xCAT's nodes that become attributes here, so that nothing that was decided about a node is
// lost: how it was installed has no counterpart that could be told by itself.
var xcatAttrs = map[string]string{
	"arch": "arch", "os": "os", "provmethod": "xcat-provmethod", "profile": "xcat-profile",
	"postscripts": "xcat-postscripts", "postbootscripts": "xcat-postbootscripts",
}

// xcat reads the stanzas of `lsdef -z` (xCAT, xcatstanzafile(5)): a line "NAME:", then lines "ATTRIBUTE=VALUE", comments
// behind "#", blanks do not count. A stanza "default-node" is for the nodes behind it. Objects that are no nodes are left
// out.
func (f *File) xcat(b []byte) {
	other, left := 0, map[string]bool{}
	var name string
	var line, before int
	values, defaults := map[string]string{}, map[string]string{}
	end := func() {
		if name == "" {
			return
		}
		if name == "default-node" {
			maps.Copy(defaults, values)
			return
		}
		if t := values["objtype"]; t != "" && t != "node" {
			other++
			return
		}
		if strings.HasPrefix(name, "default-") {
			return
		}
		for k, v := range defaults {
			if _, own := values[k]; !own {
				values[k] = v
			}
		}
		if len(f.Problems) > before {
			return
		}
		f.Nodes = append(f.Nodes, xcatNode(name, line, values, left))
	}
	n := 0
	for l := range strings.Lines(string(b)) {
		n++
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		k, v, is := strings.Cut(l, "=")
		switch {
		case is:
			if name == "" {
				f.wrong(n, "an attribute stands before the first \"NAME:\"")
				continue
			}
			k = strings.ToLower(strings.TrimSpace(k))
			if _, twice := values[k]; twice {
				f.wrong(n, "attribute %q of %s stands twice", proto.Clip(k, 64), proto.Clip(name, 64))
			}
			values[k] = strings.TrimSpace(v)
		case len(l) > 1 && strings.HasSuffix(l, ":"):
			end()
			name, line, before = strings.TrimSuffix(l, ":"), n, len(f.Problems)
			values = map[string]string{}
		default:
			f.wrong(n, "%q is no line of a stanza: write \"NAME:\", then \"ATTRIBUTE=VALUE\" (lsdef -z)", proto.Clip(l, 64))
		}
	}
	end()
	if len(f.Nodes) == 0 && len(f.Problems) == 0 {
		f.wrong(1, "there is no node in it: lsdef -t node -z writes what is read here")
	}
	if other > 0 {
		f.Notes = append(f.Notes, fmt.Sprintf("objects that are no nodes were left out: %d", other))
	}
	if len(left) > 0 {
		f.Notes = append(f.Notes, "attributes of xCAT that have no place here were left out: "+strings.Join(slices.Sorted(maps.Keys(left)), " "))
	}
}

func xcatNode(name string, line int, values map[string]string, left map[string]bool) Entry {
	e := Entry{Line: line}
	e.Name = name
	p := &e.Patch
	for k, v := range values {
		switch k {
		case "objtype":
		case "mac":
			macs := xcatMACs(v)
			p.MACs = &macs
		case "ip":
			p.IP = text(v)
		case "serial":
			p.Serial = text(v)
		case "groups":
			groups := slices.DeleteFunc(list(v), func(g string) bool { return g == "all" }) // @all is every node anyway
			p.Groups = &groups
		default:
			attr, ok := xcatAttrs[k]
			if !ok {
				left[k] = true
				continue
			}
			if p.Attrs == nil {
				p.Attrs = map[string]*string{}
			}
			p.Attrs[attr] = nil
			if v != "" {
				p.Attrs[attr] = text(v)
			}
		}
	}
	return e
}

// xcatMACs reads the attribute mac: addresses between bars, each with "!" and a host's name behind it or not (xCAT,
// mac(5)). One that is for a name other than the node's is a port of the same machine.
func xcatMACs(s string) []string {
	out := []string{}
	for part := range strings.SplitSeq(s, "|") {
		mac, _, _ := strings.Cut(part, "!")
		if mac = strings.TrimSpace(mac); mac != "" {
			out = append(out, mac)
		}
	}
	return out
}
