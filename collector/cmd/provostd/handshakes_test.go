// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"

	"provost/collector/internal/auth"
)

// TestHandshakes: clients that stop in the middle of a handshake keep the others waiting for their turns' time, and no longer.
func TestHandshakes(t *testing.T) {
	t.Parallel()
	ca, err := auth.OpenCA(t.TempDir(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	h := &handshakes{turns: make(chan struct{}, 1), wait: handshakeWait}
	config := ca.TLSConfig()
	h.bound(config)
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.(*tls.Conn).HandshakeContext(t.Context())
				c.Read(make([]byte, 1))
			}()
		}
	}()
	for range 3 {
		stuck, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer stuck.Close()
		if _, err := stuck.Write(clientHello(t)); err != nil { // and it never answers
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.PEM()) {
		t.Fatal("the CA has no certificate")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range 3 {
		d := tls.Dialer{Config: &tls.Config{RootCAs: roots}}
		c, err := d.DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			t.Fatalf("behind clients that are stuck: %v", err)
		}
		c.Close()
	}
}

// clientHello is the first message of a client.
func clientHello(t *testing.T) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go tls.Client(client, &tls.Config{InsecureSkipVerify: true, ServerName: "127.0.0.1"}).HandshakeContext(t.Context())
	b := make([]byte, 16<<10)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// TestHandshakeWait: a turn is waited for as long as is said, and is given back at the end of the handshake that had it.
func TestHandshakeWait(t *testing.T) {
	t.Parallel()
	h := &handshakes{turns: make(chan struct{}, 1), wait: 10 * time.Millisecond}
	h.turns <- struct{}{} // of somebody who keeps it
	if err := h.turn(t.Context()); !errors.Is(err, errHandshakes) {
		t.Fatalf("turn = %v, want %v", err, errHandshakes)
	}
	<-h.turns
	h.wait = time.Minute
	for range 3 {
		ctx, end := context.WithCancel(t.Context())
		if err := h.turn(ctx); err != nil {
			t.Fatal(err)
		}
		end()
	}
}
