// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net/http"

	"provost/proto"
)

// Reload lets the collector read its profiles and sequences anew. What is wrong with them is a *proto.Problem, and then
// nothing has changed.
func (c *Client) Reload(ctx context.Context) (*proto.ReloadAnswer, error) {
	var a proto.ReloadAnswer
	return &a, c.document(ctx, http.MethodPost, "/v1/reload", nil, nil, &a)
}
