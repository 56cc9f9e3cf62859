// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net/http"

	"provost/proto"
)

// Render asks what a node's installer gets, secrets masked.
func (c *Client) Render(ctx context.Context, node string) (*proto.RenderedNode, error) {
	var r proto.RenderedNode
	return &r, c.document(ctx, http.MethodGet, nodePath(node, "render"), nil, nil, &r)
}
