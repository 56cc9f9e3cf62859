// SPDX-License-Identifier: Apache-2.0

// Package nodeset reads and writes sets of nodes in the grammar of ClusterShell
// (https://clustershell.readthedocs.io/en/latest/tools/nodeset.html).
//
//	n01  n[001-100]  n[1-9,12]-ib  r[1-4]n[0-30/2]   names; /2 is every second one
//	@rack1  @rack[1-3]  @all                          groups; every node
//	%failed  %waiting                                 nodes of a status or flag
//	a,b   a!b   a&b                                   union, difference, intersection
//
// Operators are applied from left to right, without precedence and parentheses. The package knows no nodes: a Resolver
// does. It must never let a short expression make a huge set.
package nodeset

import (
	"fmt"
	"slices"
	"strings"

	"provost/proto"
)

// MaxNames bounds the names that the ranges of one expression stand for. What a Resolver gives is not counted.
const MaxNames = 200_000

// Resolver knows the nodes. The lists may be in any order and are not changed.
type Resolver interface {
	Group(name string) ([]string, bool)  // false: there is no such group
	All() []string                       // every node
	Status(word string) ([]string, bool) // nodes of this status or flag; false: there is no such word
}

// Error says what is wrong with an expression, and where.
type Error struct {
	Expr string
	Pos  int // byte, from 0
	Text string
}

func (e *Error) Error() string {
	return fmt.Sprintf("node set %q, character %d: %s", proto.Clip(e.Expr, 200), e.Pos+1, e.Text)
}

// Expr is a node set that was read.
type Expr struct {
	text  string
	terms []term
}

func (x *Expr) String() string { return x.text }

// term is one operand with the operator in front of it; the first one has ','.
type term struct {
	op    byte
	kind  byte // '@', '%', or 0 for names
	words []string
	pos   int
}

// Parse reads an expression. Blanks around operators do not count.
func Parse(expr string) (*Expr, error) {
	x := &Expr{text: expr}
	names := 0
	op := byte(',')
	for at := 0; ; {
		end, err := operandEnd(expr, at)
		if err != nil {
			return nil, err
		}
		t, err := parseTerm(expr, at, end, MaxNames-names)
		if err != nil {
			return nil, err
		}
		t.op = op
		names += len(t.words)
		x.terms = append(x.terms, t)
		if end == len(expr) {
			return x, nil
		}
		op = expr[end]
		at = end + 1
	}
}

// Eval gives the nodes of a parsed expression, each once, in natural order (n2 before n10).
func (x *Expr) Eval(r Resolver) ([]string, error) {
	set := map[string]bool{}
	for _, t := range x.terms {
		names, err := x.resolve(t, r)
		if err != nil {
			return nil, err
		}
		switch t.op {
		case ',':
			for _, n := range names {
				set[n] = true
			}
		case '!':
			for _, n := range names {
				delete(set, n)
			}
		case '&':
			both := map[string]bool{}
			for _, n := range names {
				if set[n] {
					both[n] = true
				}
			}
			set = both
		}
	}
	out := make([]string, 0, len(set))
	for n := range set {
		out = append(out, n)
	}
	slices.SortFunc(out, Compare)
	return out, nil
}

// Eval parses an expression and gives its nodes.
func Eval(expr string, r Resolver) ([]string, error) {
	x, err := Parse(expr)
	if err != nil {
		return nil, err
	}
	return x.Eval(r)
}

func (x *Expr) resolve(t term, r Resolver) ([]string, error) {
	if t.kind == 0 {
		return t.words, nil
	}
	var out []string
	for _, w := range t.words {
		switch {
		case t.kind == '@' && w == "all":
			out = append(out, r.All()...)
			continue
		case t.kind == '@':
			if names, ok := r.Group(w); ok {
				out = append(out, names...)
				continue
			}
			return nil, &Error{x.text, t.pos, fmt.Sprintf("there is no group %q", w)}
		}
		names, ok := r.Status(w)
		if !ok {
			return nil, &Error{x.text, t.pos, fmt.Sprintf("there is no status or flag %q", w)}
		}
		out = append(out, names...)
	}
	return out, nil
}

// operandEnd gives where the operand that begins at `at` ends: at an operator outside of brackets, or the end.
func operandEnd(expr string, at int) (int, error) {
	open := -1
	for i := at; i < len(expr); i++ {
		switch c := expr[i]; {
		case c == '[' && open >= 0:
			return 0, &Error{expr, i, "a bracket inside of brackets"}
		case c == '[':
			open = i
		case c == ']' && open < 0:
			return 0, &Error{expr, i, "this bracket was not opened"}
		case c == ']':
			open = -1
		case open < 0 && (c == ',' || c == '!' || c == '&'):
			return i, nil
		case c == '^':
			return 0, &Error{expr, i, "'^' is not known: use , ! and &"}
		}
	}
	if open >= 0 {
		return 0, &Error{expr, open, "this bracket is not closed"}
	}
	return len(expr), nil
}

// parseTerm reads expr[at:end], which may stand for at most `room` names.
func parseTerm(expr string, at, end, room int) (term, error) {
	for at < end && blank(expr[at]) {
		at++
	}
	for end > at && blank(expr[end-1]) {
		end--
	}
	if at == end {
		return term{}, &Error{expr, at, "a node, @group or %status is wanted here"}
	}
	t := term{pos: at}
	check := proto.CheckNode
	switch expr[at] {
	case '@':
		t.kind = '@'
		check = func(s string) error { return proto.CheckName("group", s) }
		at++
	case '%':
		t.kind = '%'
		check = func(s string) error { return proto.CheckName("status", s) }
		at++
	}
	var err error
	if t.words, err = expand(expr, at, end, room); err != nil {
		return term{}, err
	}
	for _, w := range suspects(t.words) {
		if err := check(w); err != nil {
			return term{}, &Error{expr, t.pos, err.Error()}
		}
	}
	return t, nil
}

// suspects gives those of an operand's words that have to be checked. They differ in digits only, which may stand
// anywhere in a name: what is wrong with one is wrong with the longest, unless they could be addresses.
func suspects(words []string) []string {
	if strings.Trim(words[0], "0123456789.") == "" {
		return words
	}
	return []string{slices.MaxFunc(words, func(a, b string) int { return len(a) - len(b) })}
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' }
