// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"time"

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
	nodes, order.Nodes = place(nodes)
	return c.order(ctx, nodePath(nodes, "install"), order)
}

// Order gives an order to every node of a node set, or to none. An agent carries it out at its next heartbeat.
func (c *Client) Order(ctx context.Context, nodes string, verb proto.Verb, order proto.NodeOrder) (*proto.NodeList, error) {
	nodes, order.Nodes = place(nodes)
	return c.order(ctx, nodePath(nodes, string(verb)), order)
}

// SetBoot sets the boot action of every node of a node set, or of none.
func (c *Client) SetBoot(ctx context.Context, nodes string, order proto.NodeOrder) (*proto.NodeList, error) {
	nodes, order.Nodes = place(nodes)
	return c.order(ctx, nodePath(nodes, "boot"), order)
}

// orderPauses are the waits before the repeats of an order without an answer: long enough for a collector that is started
// again. No repeat is begun a minute after the order (orderWithin): with the bounds of a request the last one ends within 6.
var orderPauses = []time.Duration{time.Second, 3 * time.Second, 9 * time.Second}

const orderWithin = time.Minute

// order gives an order under a key of its own, and again when no answer came: the collector carries it out once. In the end it
// may still be unknown whether it was taken: the *UnreachableError says so.
func (c *Client) order(ctx context.Context, path string, order any) (*proto.NodeList, error) {
	key, begin, sent := rand.Text(), time.Now(), false
	for again := 0; ; again++ {
		var list proto.NodeList
		err := c.keyed(ctx, http.MethodPost, path, key, nil, order, &list)
		var lost *UnreachableError
		var p *proto.Problem
		switch {
		case errors.As(err, &lost):
			sent = sent || lost.Sent
		case sent && errors.As(err, &p) && unknowing(p): // what has become of the first one is as open as before
			lost = &UnreachableError{Server: c.server, Err: err}
		default:
			return &list, err
		}
		lost.Order = sent
		if again >= len(c.again) || time.Since(begin) > orderWithin {
			return nil, lost
		}
		select {
		case <-time.After(c.again[again]):
		case <-ctx.Done():
			return nil, lost
		}
	}
}

// unknowing reports whether a refusal came before the collector looked for the order's key.
func unknowing(p *proto.Problem) bool {
	return p.Status >= 500 || p.Status == 401 || p.Status == 403 || p.Status == 429
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
