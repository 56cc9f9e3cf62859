// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"provost/collector/internal/auth"
	"provost/proto"
)

// first is the first certificate of a PEM text, and asks the name that a client that pins it asks for.
func first(t *testing.T, b []byte) (cert *x509.Certificate, asks string) {
	t.Helper()
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatal("no PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert, proto.PinName(sha256.Sum256(cert.Raw))
}

// trusts reports whether a client that asks by a name, and trusts one CA alone, gets a server and plans that it takes.
func trusts(t *testing.T, ca *auth.CA, name string, root *x509.Certificate) bool {
	t.Helper()
	c, err := ca.TLSConfig().GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	server := c.Leaf.CheckSignatureFrom(root) == nil && slices.ContainsFunc(c.Certificate, func(der []byte) bool { return string(der) == string(root.Raw) })
	sp, err := ca.SignPlan(name, plan())
	if err != nil {
		t.Fatal(err)
	}
	if plans := verify(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), sp) == nil; plans != server {
		t.Errorf("asked as %s: the server is trusted: %v, the plan: %v", name, server, plans)
	}
	return server
}

// TestRotate: until the overlap is over each client gets the CA that it has pinned, whatever happens to the process; new
// boot scripts have the new one; then the old one counts no more.
func TestRotate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	synctest.Test(t, func(t *testing.T) {
		running := open(t, dir)
		oldPin := running.Pin()
		old, oldName := first(t, running.PEM())
		until := time.Now().Add(30 * 24 * time.Hour)
		if err := auth.Rotate(dir, until); err != nil {
			t.Fatal(err)
		}
		if running.Pin() != oldPin {
			t.Error("a running collector has another CA before it looked")
		}
		if err := auth.Rotate(dir, until); !errors.Is(err, auth.ErrOverlap) {
			t.Errorf("a second rotation = %v, want ErrOverlap", err)
		}
		if err := running.Refresh(); err != nil {
			t.Fatal(err)
		}
		fresh, newName := first(t, running.PEM())
		if running.Pin() == oldPin || running.Pin() != auth.PinOf(fresh) {
			t.Errorf("Pin() = %s, want the new CA's; the old is %s", running.Pin(), oldPin)
		}
		for when, ca := range map[string]*auth.CA{"refreshed": running, "restarted": open(t, dir)} {
			for _, c := range []struct {
				name string
				root *x509.Certificate
				want bool
			}{{oldName, old, true}, {newName, fresh, true}, {newName, old, false}, {oldName, fresh, false}, {proto.ServerName, old, true}, {"", old, true}} {
				if got := trusts(t, ca, c.name, c.root); got != c.want {
					t.Errorf("%s: a client of %s that asks for %q is served: %v, want %v", when, c.root.Subject.CommonName, c.name, got, c.want)
				}
			}
			pool := x509.NewCertPool()
			if pool.AppendCertsFromPEM(ca.PEM()); !pool.Equal(both(old, fresh)) {
				t.Errorf("%s: PEM() has not the two CAs", when)
			}
		}
		b, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
		if err != nil || string(b) != string(running.PEM()) {
			t.Errorf("ca.pem is not what PEM() says: %v", err)
		}
		time.Sleep(time.Until(until) - time.Second)
		if err := running.Refresh(); err != nil || !trusts(t, running, oldName, old) {
			t.Errorf("a second before its end the old CA does not count: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := running.Refresh(); err != nil {
			t.Fatal(err)
		}
		for when, ca := range map[string]*auth.CA{"refreshed": running, "restarted": open(t, dir)} {
			if trusts(t, ca, oldName, old) || !trusts(t, ca, newName, fresh) || !trusts(t, ca, "", fresh) {
				t.Errorf("%s after the overlap: the old CA counts, or the new one does not", when)
			}
			if string(ca.PEM()) != string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: fresh.Raw})) {
				t.Errorf("%s after the overlap: PEM() has more than the new CA", when)
			}
		}
		if aside, err := filepath.Glob(filepath.Join(dir, "old-*", "ca-key.pem")); err != nil || len(aside) != 1 {
			t.Errorf("put aside: %v, %v, want the old key", aside, err)
		}
		time.Sleep(time.Second)
		// the next rotation keeps what was put aside
		if err := auth.Rotate(dir, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if err := auth.Finish(dir); err != nil {
			t.Fatal(err)
		}
		if aside, err := filepath.Glob(filepath.Join(dir, "old-*", "ca-key.pem")); err != nil || len(aside) != 2 {
			t.Errorf("put aside: %v, %v, want both old keys", aside, err)
		}
		if err := auth.Finish(dir); err == nil {
			t.Error("finishing twice is no error")
		}
	})
}

func both(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// TestRotateCutShort: what a crash leaves beside the directory is in nobody's way.
func TestRotateCutShort(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	pin := open(t, dir).Pin()
	if err := os.MkdirAll(dir+".next/old", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+".next/ca.pem", []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := open(t, dir).Pin(); got != pin {
		t.Errorf("pin = %s, want %s", got, pin)
	}
	if err := auth.Rotate(dir, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := open(t, dir).Pin(); got == pin {
		t.Error("the second try did not rotate")
	}
	if _, err := os.Lstat(dir + ".next"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left over: %v", err)
	}
}

// TestRefreshKeeps: whatever is wrong with the files, a running collector goes on with what it has.
func TestRefreshKeeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	ca := open(t, dir)
	pin := ca.Pin()
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := ca.Refresh(); err == nil || ca.Pin() != pin {
		t.Errorf("Refresh() of nothing = %v, pin %s, want an error and %s", err, ca.Pin(), pin)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("Refresh made a new CA: nodes that trust the old one would be locked out")
	}
}

// TestHosts: the server's certificate has every name and address that it is opened with, and is made anew when one is new.
func TestHosts(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	ca, err := auth.OpenCA(dir, "frontend.example", "10.0.0.1", "2001:db8::1")
	if err != nil {
		t.Fatal(err)
	}
	c := serverCert(t, ca)
	for _, name := range []string{proto.ServerName, "localhost", "127.0.0.1", "frontend.example", "10.0.0.1", "2001:db8::1"} {
		if err := c.VerifyHostname(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	again, err := auth.OpenCA(dir, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if !serverCert(t, again).Equal(c) {
		t.Error("a certificate that has more than is needed was made anew")
	}
	if !net.ParseIP("10.0.0.1").Equal(c.IPAddresses[2]) {
		t.Errorf("addresses = %v", c.IPAddresses)
	}
}
