// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"crypto/tls"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"provost/collector/internal/auth"
)

// visit makes one connection to a collector with this CA, and reports whether it resumed a session.
func visit(t *testing.T, ca *auth.CA, client *tls.Config) bool {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", ca.TLSConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.Copy(c, c) // the first bytes of it bring the ticket
	}()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", l.Addr().String(), client)
	if err != nil {
		t.Fatalf("connecting: %v", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().DidResume
}

// TestTickets: a client resumes its session, also with the collector's next process, and not once the CA is another one.
func TestTickets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	ca := open(t, dir)
	_, name := first(t, ca.PEM())
	client := clientConfig(ca.Pin(), "provostd")
	client.ServerName = name
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	if visit(t, ca, client) {
		t.Error("the first connection resumed something")
	}
	if !visit(t, ca, client) {
		t.Error("the second connection did not resume")
	}
	if !visit(t, open(t, dir), client) {
		t.Error("after a restart the session is not resumed")
	}
	if visit(t, open(t, t.TempDir()), &tls.Config{InsecureSkipVerify: true, ServerName: name, ClientSessionCache: client.ClientSessionCache}) {
		t.Error("another collector resumed the session")
	}
	if visit(t, ca, client) { // that handshake has taken the session's place
		visit(t, ca, client)
	}
	if err := auth.Rotate(dir, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := ca.Refresh(); err != nil {
		t.Fatal(err)
	}
	if visit(t, ca, client) {
		t.Error("a session from before the rotation was resumed")
	}
	if !visit(t, ca, client) {
		t.Error("in the overlap no session is resumed")
	}
	if err := auth.Finish(dir); err != nil {
		t.Fatal(err)
	}
	if err := ca.Refresh(); err != nil {
		t.Fatal(err)
	}
	client.VerifyConnection = nil // it has pinned the CA that is over: what counts here is that it is not let off the check
	if visit(t, ca, client) {
		t.Error("the old CA's session was resumed after its end")
	}
}
