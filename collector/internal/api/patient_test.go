// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"testing"
	"time"

	"provost/collector/internal/api"
)

// TestPatient: an order has more time the more nodes it is for, and ends with its client.
func TestPatient(t *testing.T) {
	t.Parallel()
	client, gone := context.WithCancel(t.Context())
	ctx, cancel := api.Patient(client, 100_000)
	defer cancel()
	end, ok := ctx.Deadline()
	if left := time.Until(end); !ok || ctx.Err() != nil || left < 2*time.Minute || left > 131*time.Second {
		t.Errorf("100,000 nodes have %v, error %v, want 130s", left, ctx.Err())
	}
	gone()
	if ctx.Err() == nil {
		t.Error("the order goes on without its client")
	}
}
