// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"slices"
	"strings"

	"provost/collector/internal/boot"
	"provost/proto"
)

// A node that is booted for rescue gets the kernel and initrds of its install, or else of its profile, without anything that
// makes an installer go on by itself: no answer file, no claim, and a word that makes the agent run no step. It is part of
// no install and changes none.

// unattended are the beginnings of kernel arguments that start an unattended install, of Anaconda, YaST, debian-installer,
// subiquity and FAI, wherever their file comes from.
var unattended = []string{"inst.ks", "ks=", "autoyast", "autoupgrade", "preseed", "url=", "file=", "auto=", "auto-install", "autoinstall", "ds=", "cloud-config-url=", "FAI_ACTION="}

// liveMedium reports whether an argument stays beside which the live system is booted: casper's url=, which is the medium itself
// and not debian-installer's preseed file (casper takes it only with this end), and what keeps cloud-init from fetching the same
// url= once more, as a file of its own.
func liveMedium(w string) bool {
	return strings.HasPrefix(w, "url=") && strings.HasSuffix(w, ".iso") || w == "cloud-config-url=/dev/null"
}

// rescue completes the decision for a node whose boot action is rescue; in is its newest install, nil if there is none.
func (r *Registry) rescue(d boot.Decision, n *node, in *install, q boot.Request) (boot.Decision, error) {
	recipe, err := r.rescueRecipe(r.opt.Profiles, n, in)
	if err != nil {
		return d, err
	}
	args, err := r.kernelArgs(recipe.bare(), n.Spec, "", 0, q, "")
	if err != nil {
		return d, problem(422, proto.CodeBadProfile, "mend the profile or the node's attributes", "%v", err)
	}
	d.Action, d.Kernel, d.Initrds, d.Args = proto.BootRescue, recipe.Kernel, recipe.Initrds, attended(args)
	d.Pin, d.URLs = r.opt.Pin(), r.opt.URLs
	return d, nil
}

// bare is a recipe without an answer file.
func (rc *Recipe) bare() *Recipe {
	b := *rc
	b.Answer = nil
	return &b
}

// attended leaves out the arguments that install by themselves, and those whose value was the answer file's URL alone.
func attended(args string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(args), func(w string) bool {
		return strings.HasSuffix(w, "=") || !liveMedium(w) && slices.ContainsFunc(unattended, func(begin string) bool { return strings.HasPrefix(w, begin) })
	}), " ")
}

func (r *Registry) rescueRecipe(profiles Profiles, n *node, in *install) (*Recipe, error) {
	if in != nil && in.recipe.Kernel != "" {
		return in.recipe, nil
	}
	name := n.Spec.Name
	if n.Spec.Profile == "" {
		return nil, problem(422, proto.CodeBadProfile, "provost node set "+name+" --profile P", "node %s has no profile, whose kernel could be booted", name)
	}
	if err := r.checkProfile(n.Spec.Profile); err != nil {
		return nil, err
	}
	p, err := profiles.Prepare(n.Spec.Profile, n.Spec)
	if err != nil {
		return nil, err
	}
	if p.Recipe.Kernel == "" {
		return nil, problem(422, proto.CodeBadProfile, "boot it for rescue by the site's own PXE, or give it a profile with boot: provost",
			"profile %s of %s leaves booting to the site: there is no kernel for a rescue", n.Spec.Profile, name)
	}
	return &p.Recipe, nil
}

// canRescue says why one of some nodes could not be booted for rescue.
func (r *Registry) canRescue(names []string) error {
	profiles := r.opt.Profiles.Frozen()
	for _, name := range names {
		r.pub.RLock()
		n := r.pub.nodes[name]
		var in *install
		if n != nil {
			in = r.pub.installs[n.Install]
		}
		r.pub.RUnlock()
		if n == nil || n.Discovered {
			return unknownNode(name)
		}
		if _, err := r.rescueRecipe(profiles, n, in); err != nil {
			return err
		}
	}
	return nil
}
