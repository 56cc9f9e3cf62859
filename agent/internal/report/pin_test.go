// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"provost/proto"
)

// TestHandshakeNamesThePin: a collector that has two CAs for a while sees which one this machine trusts.
func TestHandshakeNamesThePin(t *testing.T) {
	b := newBench(t)
	der := b.c.Authority.CertDER
	sum := sha256.Sum256(der)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ca := range []string{file, "sha256:" + hex.EncodeToString(sum[:])} {
		asked := make(chan string, 100)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				tls.Server(conn, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
					asked <- h.ServerName
					return nil, nil
				}}).Handshake()
				conn.Close()
			}
		}()
		c := b.config()
		c.CA, c.URLs = ca, []string{"https://" + l.Addr().String()}
		stop := b.start(c)
		select {
		case got := <-asked:
			if want := proto.PinName(sum); got != want {
				t.Errorf("with --ca %s the handshake asks for %q, want %q", ca, got, want)
			}
		case <-time.After(time.Minute):
			t.Errorf("with --ca %s nothing came", ca)
		}
		stop()
	}
}
