// SPDX-License-Identifier: Apache-2.0

package registry

import "provost/proto"

// unprotected refuses what would cost a protected node its system or its history, and names all such nodes.
func (c *change) unprotected(names []string, what string) error {
	var guarded []string
	for _, name := range names {
		if n := c.node(name); n != nil && n.Spec.Protected {
			guarded = append(guarded, name)
		}
	}
	if len(guarded) == 0 {
		return nil
	}
	named, argument := setOf(guarded)
	return problem(409, proto.CodeConflict, "provost node set "+argument+" --unprotect, if that is meant", "%s refused, nothing was done: protected: %s", what, named)
}

// canProtect refuses to call a node protected that is about to be installed.
func (n *node) canProtect(patch *bool) error {
	if patch == nil || !*patch || n.Spec.Protected {
		return nil
	}
	if n.BootAction == proto.BootInstall {
		return problem(409, proto.CodeConflict, "provost boot "+n.Spec.Name+" disk stops it, then protect it",
			"node %s cannot be protected: it gets the installer at its next network boot", n.Spec.Name)
	}
	return nil
}
