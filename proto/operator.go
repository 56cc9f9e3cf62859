// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// NodePatch is the body of PATCH /v1/nodes/{nodes}: what is absent stays as it is. An empty string or list clears.
type NodePatch struct {
	MACs         *[]string          `json:"macs,omitempty"` // of one node only
	IP           *string            `json:"ip,omitempty"`   // of one node only
	Serial       *string            `json:"serial,omitempty"`
	Profile      *string            `json:"profile,omitempty"`
	Groups       *[]string          `json:"groups,omitempty"` // instead of all that were there
	AddGroups    []string           `json:"add_groups,omitempty"`
	RemoveGroups []string           `json:"remove_groups,omitempty"`
	Attrs        map[string]*string `json:"attrs,omitempty"` // key by key; null removes one
	Protected    *bool              `json:"protected,omitempty"`
	Nodes        string             `json:"nodes,omitempty"` // see SetInBody
}

// Check says everything that is wrong with the patch as such, joined. Apply's result is to be checked as well.
func (p *NodePatch) Check() error {
	var errs []error
	if p.IP != nil && *p.IP != "" {
		if _, err := netip.ParseAddr(*p.IP); err != nil {
			errs = append(errs, fmt.Errorf("address %q: %w", *p.IP, err))
		}
	}
	for _, g := range slices.Concat(p.AddGroups, p.RemoveGroups) {
		errs = append(errs, CheckName("group", g))
	}
	return errors.Join(errs...)
}

// Apply gives n as the patch makes it. Nothing of n is changed in place.
func (p *NodePatch) Apply(n NodeSpec) NodeSpec {
	set := func(to *string, v *string) {
		if v != nil {
			*to = *v
		}
	}
	n.MACs = slices.Clone(n.MACs) // Check writes them anew
	if p.MACs != nil {
		n.MACs = slices.Clone(*p.MACs)
	}
	set(&n.IP, p.IP)
	set(&n.Serial, p.Serial)
	set(&n.Profile, p.Profile)
	groups := slices.Clone(n.Groups)
	if p.Groups != nil {
		groups = slices.Clone(*p.Groups)
	}
	for _, g := range p.AddGroups {
		if !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	n.Groups = slices.DeleteFunc(groups, func(g string) bool { return slices.Contains(p.RemoveGroups, g) })
	attrs := make(map[string]string, len(n.Attrs)+len(p.Attrs))
	for k, v := range n.Attrs {
		attrs[k] = v
	}
	for k, v := range p.Attrs {
		if v == nil {
			delete(attrs, k)
		} else {
			attrs[k] = *v
		}
	}
	n.Attrs = attrs
	if p.Protected != nil {
		n.Protected = *p.Protected
	}
	return n
}

// InstallList is GET /v1/nodes/{node}/installs: the newest first, without their steps and logs.
type InstallList struct {
	Schema   int       `json:"schema"`
	Installs []Install `json:"installs"`
}

// LogList is GET /v1/nodes/{node}/installs/{id}/logs.
type LogList struct {
	Schema int       `json:"schema"`
	Logs   []LogInfo `json:"logs"`
}

// ProfileInfo is GET /v1/profiles/{name}: how a class of nodes is installed, without its secrets.
type ProfileInfo struct {
	Schema    int       `json:"schema"`
	Name      string    `json:"name"`
	Kind      string    `json:"kind"`
	Family    string    `json:"family"`
	Sequence  string    `json:"sequence,omitempty"` // if it is not the family's
	Boot      string    `json:"boot"`
	Kernel    string    `json:"kernel,omitempty"`
	Initrds   []string  `json:"initrds,omitempty"`
	Args      string    `json:"args,omitempty"`
	Answer    string    `json:"answer,omitempty"` // template of the answer file
	Attempts  int       `json:"attempts"`
	OnFailure OnFailure `json:"on_failure"`
	Deadline  Duration  `json:"deadline"`
	Steps     []Step    `json:"steps"`
}

// ProfileList is GET /v1/profiles, by name.
type ProfileList struct {
	Schema   int           `json:"schema"`
	Profiles []ProfileInfo `json:"profiles"`
	// ConfigDir is where the site's profiles are, on the frontend; Problems is what is wrong with files that were left out.
	ConfigDir string   `json:"config_dir,omitempty"`
	Problems  []string `json:"problems,omitempty"`
}

// VersionInfo is GET /v1/version.
type VersionInfo struct {
	Schema  int    `json:"schema"`
	Version string `json:"version"`
}

// TokenOrder is the body of POST /v1/tokens.
type TokenOrder struct {
	Name string `json:"name"`
	Role string `json:"role"` // join, read, operate, admin
}

// TokenAnswer has the new token, which is shown this once.
type TokenAnswer struct {
	Schema int    `json:"schema"`
	Token  string `json:"token"`
}
