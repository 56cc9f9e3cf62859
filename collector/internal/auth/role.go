// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"fmt"
	"slices"
)

// Role is what the holder of a token is.
type Role string

// The roles that a token can be given.
const (
	RoleJoin    Role = "join"    // nodes that say hello with a join key
	RoleRead    Role = "read"    // looks
	RoleOperate Role = "operate" // looks and gives orders to nodes
	RoleAdmin   Role = "admin"   // everything an operator can do
)

// Roles lists every role.
var Roles = []Role{RoleJoin, RoleRead, RoleOperate, RoleAdmin}

// ParseRole reads a role.
func ParseRole(s string) (Role, error) {
	if !slices.Contains(Roles, Role(s)) {
		return "", fmt.Errorf("role %q: use one of join, read, operate, admin", s)
	}
	return Role(s), nil
}

// Scope is what a route asks of its caller. The empty scope is none: a route without one must not be served.
type Scope string

// The scopes of routes.
const (
	ScopePublic  Scope = "public"  // needs no credentials
	ScopeAgent   Scope = "agent"   // the token of an install, for that install
	ScopeJoin    Scope = "join"    // a hello by join key
	ScopeRead    Scope = "read"    // sees nodes, events, logs
	ScopeOperate Scope = "operate" // changes nodes and their installs
	ScopeAdmin   Scope = "admin"   // changes the collector itself
)

// Scopes lists every scope.
var Scopes = []Scope{ScopePublic, ScopeAgent, ScopeJoin, ScopeRead, ScopeOperate, ScopeAdmin}

var allowed = map[Role][]Scope{
	RoleJoin:    {ScopePublic, ScopeJoin}, // the key is in every initrd of the site: it may read nothing
	RoleRead:    {ScopePublic, ScopeRead},
	RoleOperate: {ScopePublic, ScopeRead, ScopeOperate},
	// neither agent nor join: nobody may speak for a node but the node
	RoleAdmin: {ScopePublic, ScopeRead, ScopeOperate, ScopeAdmin},
}

// Allows reports whether a role may use a route of this scope. Without a known role only ScopePublic is open, and an
// unknown scope is open to nobody.
func Allows(role Role, scope Scope) bool {
	return scope == ScopePublic || slices.Contains(allowed[role], scope)
}
