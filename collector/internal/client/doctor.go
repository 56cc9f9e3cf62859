// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net/http"

	"provost/proto"
)

// Doctor asks what the collector finds when it looks at itself.
func (c *Client) Doctor(ctx context.Context) (*proto.Doctor, error) {
	var d proto.Doctor
	return &d, c.document(ctx, http.MethodGet, "/v1/doctor", nil, nil, &d)
}
