// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"encoding/json"
	"slices"
	"strings"
)

// PlanChange is what is new in the plans that a retry brought some nodes: names of steps.
type PlanChange struct {
	Nodes     []string `json:"nodes"`
	Added     []string `json:"added,omitempty"`
	Removed   []string `json:"removed,omitempty"`
	Changed   []string `json:"changed,omitempty"`   // the script, or how it is run
	Reordered bool     `json:"reordered,omitempty"` // steps of both plans come in another order
}

// DiffSteps says what a list of steps has that another one had not, without Nodes.
func DiffSteps(old, new []Step) PlanChange {
	var d PlanChange
	was := map[string]string{}
	for _, s := range old {
		was[s.Name] = encoded(s)
	}
	var kept []string
	for _, s := range new {
		w, ok := was[s.Name]
		switch {
		case !ok:
			d.Added = append(d.Added, s.Name)
			continue
		case w != encoded(s):
			d.Changed = append(d.Changed, s.Name)
		}
		kept = append(kept, s.Name)
	}
	i := 0
	for _, s := range old {
		if !slices.Contains(kept, s.Name) {
			d.Removed = append(d.Removed, s.Name)
			continue
		}
		d.Reordered = d.Reordered || kept[i] != s.Name
		i++
	}
	return d
}

// String says it in few words.
func (d PlanChange) String() string {
	var out []string
	for _, part := range []struct {
		steps []string
		what  string
	}{{d.Changed, " has changed"}, {d.Added, " is new"}, {d.Removed, " is gone"}} {
		for _, s := range part.steps {
			out = append(out, s+part.what)
		}
	}
	if d.Reordered {
		out = append(out, "the order is another one")
	}
	if len(out) == 0 {
		return "no step has changed"
	}
	return strings.Join(out, ", ")
}

// encoded gives a step as text, to be compared.
func encoded(s Step) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic("encoding a step: " + err.Error()) // it is plain data
	}
	return string(b)
}

// Same reports whether two changes are the same but for their nodes.
func (d PlanChange) Same(e PlanChange) bool {
	return slices.Equal(d.Added, e.Added) && slices.Equal(d.Removed, e.Removed) && slices.Equal(d.Changed, e.Changed) && d.Reordered == e.Reordered
}
