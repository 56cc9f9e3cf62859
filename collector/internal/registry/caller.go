// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"net/netip"
)

// Caller is whose request something is, for the history.
type Caller struct {
	Actor  string
	Client string     // the program, as it calls itself
	Addr   netip.Addr // where the request came from; not valid over the unix socket
	Asked  string     // the name that its TLS handshake asked for
	Key    *Key       // of the order, if it has one
}

type callerKey struct{}

// By gives a context whose decisions are the caller's.
func By(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

func callerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
