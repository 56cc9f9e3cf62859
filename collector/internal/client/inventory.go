// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net/http"

	"provost/proto"
)

// RenameNode gives a node another name.
func (c *Client) RenameNode(ctx context.Context, old, name string) (*proto.Node, error) {
	var n proto.Node
	return &n, c.document(ctx, http.MethodPost, nodePath(old, "rename"), nil, proto.Rename{Name: name}, &n)
}

// Import adds and changes nodes, all of them or none; a dry run says what would be done.
func (c *Client) Import(ctx context.Context, inv proto.Inventory) (*proto.InventoryAnswer, error) {
	var a proto.InventoryAnswer
	return &a, c.document(ctx, http.MethodPost, "/v1/inventory", nil, inv, &a)
}
