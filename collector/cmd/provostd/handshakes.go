// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"runtime"
	"sync"
	"time"
)

// The bounds of TLS handshakes. After a restart ten thousand agents come back at once, each with a millisecond or two of
// arithmetic: were all begun, each would end when all do, and an operator's request would wait among them.
const (
	handshakesEach = 4                     // under way for each processor
	handshakeTurn  = 50 * time.Millisecond // what takes longer waits for its client, and not for a processor
	handshakeWait  = 10 * time.Second      // for a turn; then the client has to come again
)

// handshakes lets few of them be computed at a time. The others wait with what the client has said, in the order in which they
// came.
type handshakes struct {
	turns chan struct{}
	wait  time.Duration
}

func newHandshakes() *handshakes {
	return &handshakes{turns: make(chan struct{}, handshakesEach*runtime.GOMAXPROCS(0)), wait: handshakeWait}
}

var errHandshakes = errors.New("too many TLS handshakes wait")

// bound makes a server's handshakes wait for their turns.
func (h *handshakes) bound(c *tls.Config) {
	choose := c.GetConfigForClient
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if err := h.turn(hello.Context()); err != nil {
			return nil, err
		}
		return choose(hello)
	}
}

// turn waits for one, which is given back when ctx, the handshake's, ends, or after handshakeTurn.
func (h *handshakes) turn(ctx context.Context) error {
	select {
	case h.turns <- struct{}{}:
	default:
		late := time.NewTimer(h.wait)
		defer late.Stop()
		select {
		case h.turns <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return errHandshakes
		}
	}
	back := sync.OnceFunc(func() { <-h.turns })
	timer := time.AfterFunc(handshakeTurn, back)
	context.AfterFunc(ctx, func() {
		timer.Stop()
		back()
	})
	return nil
}
