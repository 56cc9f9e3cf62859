// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"provost/proto"
)

// History asks who ordered what of a node since a time, of zero all that is kept; with the plans' steps if plan is set.
func (c *Client) History(ctx context.Context, node string, since time.Time, plan bool) (*proto.History, error) {
	v := url.Values{}
	if !since.IsZero() {
		v.Set("since", since.UTC().Format(time.RFC3339))
	}
	if plan {
		v.Set("plan", "true")
	}
	var h proto.History
	return &h, c.document(ctx, http.MethodGet, nodePath(node, "history"), v, nil, &h)
}
