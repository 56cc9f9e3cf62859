// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net/http"

	"provost/proto"
)

// AddNode adds one node.
func (c *Client) AddNode(ctx context.Context, spec proto.NodeSpec) (*proto.Node, error) {
	var n proto.Node
	return &n, c.document(ctx, http.MethodPost, "/v1/nodes", nil, spec, &n)
}

// PatchNodes changes every node of a node set, or none.
func (c *Client) PatchNodes(ctx context.Context, nodes string, patch proto.NodePatch) (*proto.NodeList, error) {
	var list proto.NodeList
	nodes, patch.Nodes = place(nodes)
	return &list, c.document(ctx, http.MethodPatch, nodePath(nodes), nil, patch, &list)
}

// RemoveNodes removes every node of a node set with all its installs, or none.
func (c *Client) RemoveNodes(ctx context.Context, nodes string, why proto.Removal) error {
	nodes, why.Nodes = place(nodes)
	return c.document(ctx, http.MethodDelete, nodePath(nodes), nil, why, nil)
}

// place says where a node set goes: into the path, or, if it is too long for one, into the body.
func place(nodes string) (path, body string) {
	if len(nodes) > proto.MaxSetInPath {
		return proto.SetInBody, nodes
	}
	return nodes, ""
}

// OrderInstall orders an install of every node of a node set, or of none. The answer has the new installs' ids.
func (c *Client) OrderInstall(ctx context.Context, nodes string, order proto.InstallOrder) (*proto.NodeList, error) {
	var list proto.NodeList
	nodes, order.Nodes = place(nodes)
	return &list, c.document(ctx, http.MethodPost, nodePath(nodes, "install"), nil, order, &list)
}

// Order gives an order to every node of a node set, or to none. An agent carries it out at its next heartbeat.
func (c *Client) Order(ctx context.Context, nodes string, verb proto.Verb, order proto.NodeOrder) (*proto.NodeList, error) {
	var list proto.NodeList
	nodes, order.Nodes = place(nodes)
	return &list, c.document(ctx, http.MethodPost, nodePath(nodes, string(verb)), nil, order, &list)
}

// SetBoot sets the boot action of every node of a node set, or of none.
func (c *Client) SetBoot(ctx context.Context, nodes string, order proto.NodeOrder) (*proto.NodeList, error) {
	var list proto.NodeList
	nodes, order.Nodes = place(nodes)
	return &list, c.document(ctx, http.MethodPost, nodePath(nodes, "boot"), nil, order, &list)
}

// Profiles asks for every profile.
func (c *Client) Profiles(ctx context.Context) (*proto.ProfileList, error) {
	var list proto.ProfileList
	return &list, c.document(ctx, http.MethodGet, "/v1/profiles", nil, nil, &list)
}

// Profile asks for one profile.
func (c *Client) Profile(ctx context.Context, name string) (*proto.ProfileInfo, error) {
	var p proto.ProfileInfo
	return &p, c.document(ctx, http.MethodGet, escaped("/v1/profiles/", name), nil, nil, &p)
}

// Version asks for the collector's version. It needs no credentials.
func (c *Client) Version(ctx context.Context) (*proto.VersionInfo, error) {
	var v proto.VersionInfo
	return &v, c.document(ctx, http.MethodGet, "/v1/version", nil, nil, &v)
}
