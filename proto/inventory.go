// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"maps"
	"slices"
	"strings"
)

// Rename is the body of POST /v1/nodes/{node}/rename.
type Rename struct {
	Name string `json:"name"`
}

// Inventory is the body of POST /v1/inventory: nodes to be added or changed, all of them or none. With DryRun the answer
// says what would be done, and everything that stands against it; nothing is done.
type Inventory struct {
	DryRun bool            `json:"dry_run,omitempty"`
	Nodes  []InventoryNode `json:"nodes"`
}

// InventoryNode is what an inventory says of one node. What the patch does not mention stays as it is; of a new node it
// is empty.
type InventoryNode struct {
	Name  string    `json:"name"`
	Patch NodePatch `json:"patch"`
}

// InventoryAnswer is what an inventory did, or would do. Problems come with DryRun only: else the whole is refused.
type InventoryAnswer struct {
	Schema   int                `json:"schema"`
	DryRun   bool               `json:"dry_run,omitempty"`
	Changes  []NodeChange       `json:"changes"` // in the inventory's order; nodes that stay as they are are left out
	Problems []InventoryProblem `json:"problems,omitempty"`
}

// InventoryProblem is why an inventory cannot be taken.
type InventoryProblem struct {
	Index  int    `json:"index"` // of the node in the inventory, from 0
	Name   string `json:"name"`
	Detail string `json:"detail"`
}

// NodeChange is what becomes of one node.
type NodeChange struct {
	Name   string        `json:"name"`
	New    bool          `json:"new,omitempty"`
	Fields []FieldChange `json:"fields"`
}

// FieldChange is one field of a node before and after. Lists are written with commas; an attribute is attr.KEY.
type FieldChange struct {
	Field string `json:"field"`
	Old   string `json:"old,omitempty"`
	New   string `json:"new,omitempty"`
}

// Diff gives the fields in which two specs of a node differ, in a fixed order.
func Diff(old, new NodeSpec) []FieldChange {
	var out []FieldChange
	add := func(field, a, b string) {
		if a != b {
			out = append(out, FieldChange{field, a, b})
		}
	}
	flag := func(b bool) string {
		if b {
			return "yes"
		}
		return ""
	}
	add("macs", strings.Join(old.MACs, ","), strings.Join(new.MACs, ","))
	add("ip", old.IP, new.IP)
	add("serial", old.Serial, new.Serial)
	add("profile", old.Profile, new.Profile)
	add("groups", strings.Join(old.Groups, ","), strings.Join(new.Groups, ","))
	add("protected", flag(old.Protected), flag(new.Protected))
	keys := maps.Clone(old.Attrs)
	if keys == nil {
		keys = map[string]string{}
	}
	maps.Copy(keys, new.Attrs)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		a, had := old.Attrs[k]
		b, has := new.Attrs[k]
		if a != b || had != has {
			out = append(out, FieldChange{"attr." + k, a, b})
		}
	}
	return out
}
