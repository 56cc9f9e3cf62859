// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"provost/proto"
)

// Query selects nodes. The zero value is every node.
type Query struct {
	Nodes string // a node set expression, which the collector evaluates
	Label string // of the node's newest install
}

// Status opens GET /v1/status: a proto.NodeList as the collector wrote it, for DecodeNodes or to pass on. The caller
// closes it.
func (c *Client) Status(ctx context.Context, q Query) (io.ReadCloser, error) {
	if len(q.Nodes) > proto.MaxSetInPath {
		return c.stream(ctx, http.MethodPost, "/v1/status", nil, proto.Selection{Nodes: q.Nodes, Label: q.Label})
	}
	v := url.Values{}
	if q.Nodes != "" {
		v.Set("nodes", q.Nodes)
	}
	if q.Label != "" {
		v.Set("label", q.Label)
	}
	return c.stream(ctx, http.MethodGet, "/v1/status", v, nil)
}

// Nodes is Status in memory, for orders and other things that touch few nodes.
func (c *Client) Nodes(ctx context.Context, q Query) (*proto.NodeList, error) {
	body, err := c.Status(ctx, q)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var nodes []proto.Node
	list, err := DecodeNodes(body, func(n *proto.Node) { nodes = append(nodes, *n) })
	if err != nil {
		return nil, err
	}
	list.Nodes = nodes
	return list, nil
}

// DecodeNodes reads a proto.NodeList node by node, so that 100,000 of them need not be in memory at once. T is
// proto.Node, or a struct with those of its fields that the caller needs, which is faster. The node given to visit is
// overwritten by the next one. The answer's Nodes is nil.
func DecodeNodes[T any](r io.Reader, visit func(*T)) (*proto.NodeList, error) {
	list := &proto.NodeList{}
	dec := json.NewDecoder(r)
	wrap := func(err error) error {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("reading the list of nodes: %w", err)
	}
	expect := func(want json.Delim) error {
		t, err := dec.Token()
		if err == nil && t != want {
			err = fmt.Errorf("%v where %v should be", t, want)
		}
		return err
	}
	if err := expect('{'); err != nil {
		return nil, wrap(err)
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, wrap(err)
		}
		switch key {
		case "schema":
			if err = dec.Decode(&list.Schema); err == nil && list.Schema > proto.Schema {
				return nil, &SchemaError{list.Schema}
			}
		case "revision":
			err = dec.Decode(&list.Revision)
		case "cursor":
			err = dec.Decode(&list.Cursor)
		case "warnings":
			err = dec.Decode(&list.Warnings)
		case "blind":
			err = dec.Decode(&list.Blind)
		case "nodes":
			err = decodeArray(dec, expect, visit)
		default:
			var other json.RawMessage
			err = dec.Decode(&other)
		}
		if err != nil {
			return nil, wrap(err)
		}
	}
	if err := expect('}'); err != nil {
		return nil, wrap(err)
	}
	return list, nil
}

func decodeArray[T any](dec *json.Decoder, expect func(json.Delim) error, visit func(*T)) error {
	t, err := dec.Token()
	if err != nil || t == nil { // null is an empty list
		return err
	}
	if t != json.Delim('[') {
		return fmt.Errorf("%v where a list should be", t)
	}
	var n, zero T
	for dec.More() {
		n = zero
		if err := dec.Decode(&n); err != nil {
			return err
		}
		visit(&n)
	}
	return expect(']')
}

// escaped joins a route's begin and values that may hold anything, each as one segment.
func escaped(begin string, values ...string) string {
	for i, v := range values {
		if i > 0 {
			begin += "/"
		}
		begin += url.PathEscape(v)
	}
	return begin
}

func nodePath(nodes string, rest ...string) string {
	return escaped("/v1/nodes/", append([]string{nodes}, rest...)...)
}

// Latest stands for the id of a node's newest install.
const Latest = "latest"

// Install asks for one install with its steps and logs.
func (c *Client) Install(ctx context.Context, node, id string) (*proto.Install, error) {
	var in proto.Install
	return &in, c.document(ctx, http.MethodGet, nodePath(node, "installs", id), nil, nil, &in)
}

// Events asks for every event of one install, by time.
func (c *Client) Events(ctx context.Context, node, id string) (*proto.EventList, error) {
	var ev proto.EventList
	return &ev, c.document(ctx, http.MethodGet, nodePath(node, "installs", id, "events"), nil, nil, &ev)
}

// Log opens a log's bytes from an offset to its present end. They are the node's own: nothing in them is to be trusted.
func (c *Client) Log(ctx context.Context, node, id, name string, offset int64) (io.ReadCloser, error) {
	v := url.Values{}
	if offset > 0 {
		v.Set("offset", strconv.FormatInt(offset, 10))
	}
	return c.stream(ctx, http.MethodGet, nodePath(node, "installs", id, "logs", name), v, nil)
}

// Node asks for one node.
func (c *Client) Node(ctx context.Context, name string) (*proto.Node, error) {
	var n proto.Node
	return &n, c.document(ctx, http.MethodGet, nodePath(name), nil, nil, &n)
}

// Installs asks for a node's installs, the newest first, without their steps and logs.
func (c *Client) Installs(ctx context.Context, node string) (*proto.InstallList, error) {
	var list proto.InstallList
	return &list, c.document(ctx, http.MethodGet, nodePath(node, "installs"), nil, nil, &list)
}
