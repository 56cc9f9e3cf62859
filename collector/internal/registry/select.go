// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"slices"
	"strings"

	"provost/collector/internal/nodeset"
	"provost/proto"
)

// Select evaluates a node set expression. Every node that it names must be there. Machines that are only discovered are
// among the nodes of @all and %discovered if discovered is set: nobody can order anything of them.
func (r *Registry) Select(expr string, discovered bool) ([]string, error) {
	x, err := nodeset.Parse(expr)
	if err != nil {
		return nil, badRequest(err)
	}
	names, err := x.Eval(resolver{r, discovered})
	if err != nil {
		return nil, problem(400, proto.CodeBadRequest, "provost node list shows every node with its groups and its status", "%v", err)
	}
	var unknown []string
	r.pub.RLock()
	for _, name := range names {
		if r.pub.nodes[name] == nil {
			unknown = append(unknown, name)
		}
	}
	r.pub.RUnlock()
	if len(unknown) > 0 {
		named, _ := setOf(unknown)
		return nil, problem(404, proto.CodeUnknownNode, "nothing was done; provost node list shows every node", "there is no node %s", named)
	}
	return names, nil
}

// setOf writes names as a node set for a message, however many there are, and as an argument for a shell, which is NODES where
// nobody would type it.
func setOf(names []string) (named, argument string) {
	const most = 500 // bytes
	set := nodeset.Fold(names)
	if len(set) > most {
		return fmt.Sprintf("%d nodes, %s", len(names), proto.Clip(set, most)), "NODES"
	}
	return set, "'" + set + "'"
}

// resolver tells nodeset about the nodes.
type resolver struct {
	r          *Registry
	discovered bool
}

func (s resolver) filter(keep func(*node) bool) []string {
	s.r.pub.RLock()
	var found []*node
	for _, n := range s.r.pub.nodes {
		if s.discovered || !n.Discovered {
			found = append(found, n)
		}
	}
	s.r.pub.RUnlock()
	var names []string
	for _, n := range found {
		if keep(n) {
			names = append(names, n.Spec.Name)
		}
	}
	return names
}

func (s resolver) All() []string { return s.filter(func(*node) bool { return true }) }

func (s resolver) Group(name string) ([]string, bool) {
	names := s.filter(func(n *node) bool { return slices.Contains(n.Spec.Groups, name) })
	return names, len(names) > 0
}

func (s resolver) Status(word string) ([]string, bool) {
	word = strings.ToLower(word)
	if word == "waiting" || word == "contested" {
		return s.filter(func(n *node) bool {
			v := s.r.nodeView(n)
			return word == "waiting" && v.Waiting || word == "contested" && v.Contested
		}), true
	}
	status, err := proto.ParseStatus(word)
	if err != nil {
		return nil, false
	}
	return s.filter(func(n *node) bool { return s.r.nodeView(n).Status == status }), true
}
