// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"provost/proto"
	"provost/proto/prototest"
)

// TestNoByteBeforeTrust: a peer that is not the pinned collector, or that speaks less than TLS 1.3, gets not one
// byte. The peer reads whatever comes, whether it is a request or not.
func TestNoByteBeforeTrust(t *testing.T) {
	b := newBench(t)
	other := prototest.NewAuthority(t)
	for _, tt := range []struct {
		name  string
		cert  tls.Certificate
		max   uint16
		bytes bool
	}{
		{"the collector", b.c.Authority.Server(t, proto.ServerName), tls.VersionTLS13, true}, // else nothing could fail here
		{"another CA", other.Server(t, proto.ServerName), tls.VersionTLS13, false},
		{"TLS 1.2", b.c.Authority.Server(t, proto.ServerName), tls.VersionTLS12, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var met, got atomic.Int64
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					conn.SetDeadline(time.Now().Add(time.Minute))
					n, _ := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{tt.cert}, MaxVersion: tt.max}).Read(make([]byte, 1))
					got.Add(int64(n))
					met.Add(1)
					conn.Close()
				}
			}()
			c := b.config()
			c.URLs = []string{"https://" + l.Addr().String()}
			stop := b.start(c)
			b.until("two tries", func() bool { return met.Load() > 1 })
			stop()
			if (got.Load() > 0) != tt.bytes {
				t.Errorf("%d bytes came, want some: %t", got.Load(), tt.bytes)
			}
		})
	}
}

// TestClocks: whatever an installer's clock says, its first report comes, and its plan is judged by the collector's time. The
// certificates were valid on one day of 2001.
func TestClocks(t *testing.T) {
	for _, year := range []int{1970, 2001, 2040} {
		b := newBench(t)
		b.note(1)
		c := b.config()
		c.Clock = func() proto.Clock {
			return proto.Clock{Boot: b.boot, OffsetMS: 60_000, Time: time.Date(year, 9, 9, 12, 0, 0, 0, time.UTC)}
		}
		b.start(c)
		b.until("the plan", b.planned)
		b.flush()
		b.want(1)
	}
}

// TestEndlessScript: of a script no more is read than the plan says that it has, and it is refused for that, not for the time
// that it took.
func TestEndlessScript(t *testing.T) {
	b := newBench(t)
	b.c.SetFault(func(r *http.Request) prototest.Fault {
		if strings.HasPrefix(r.URL.Path, "/v1/agent/files/") {
			return prototest.Fault{Kind: prototest.FaultEndless}
		}
		return prototest.Fault{}
	})
	c := b.config()
	c.Timing.Request, c.Timing.File = time.Minute, time.Minute
	b.start(c)
	b.until("the refusal", func() bool { return strings.Contains(b.dir.Sent().Trouble, "longer than") })
	if b.planned() {
		t.Error("the plan was taken")
	}
}
