// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"provost/collector/internal/doctor"
	"provost/proto"
)

// TestHangs: a file system that never answers costs one look and its time, however often somebody asks; the other checks
// are there, and when it answers again all is as before.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := make(chan struct{})
		var begun atomic.Int32
		site := doctor.Site{Data: "/", Images: "/", Looks: &doctor.Looks{}, Database: func() error { return nil }, Clock: func() (bool, error) {
			begun.Add(1)
			<-back // as a system call on a dead server's file system
			return true, nil
		}}
		for call, limit := range []time.Duration{2 * time.Second, 0, 0} {
			start := time.Now()
			all := doctor.Check(t.Context(), site)
			if took := time.Since(start); took != limit {
				t.Errorf("call %d took %s, want %s", call, took, limit)
			}
			if c := find(t, all, "time"); c.State != proto.CheckBad || !strings.Contains(c.Detail, "does not answer, for 2s now") {
				t.Errorf("call %d: %+v, want that it does not answer", call, c)
			}
			if c := find(t, all, "database"); c.State != proto.CheckGood {
				t.Errorf("call %d: %+v, want good", call, c)
			}
		}
		if n := begun.Load(); n != 1 {
			t.Errorf("%d looks hang, want 1", n)
		}
		close(back)
		synctest.Wait()
		if c := find(t, doctor.Check(t.Context(), site), "time"); c.State != proto.CheckGood {
			t.Errorf("when it answers again: %+v, want good", c)
		}
	})
}

// TestManyHang: the looks that hang are bounded in number.
func TestManyHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := make(chan struct{})
		looks := &doctor.Looks{}
		for i := range 40 {
			site := doctor.Site{Data: "/", Images: strings.Repeat("/.", i+1), Looks: looks, Profiles: slow{back}}
			doctor.Check(t.Context(), site)
		}
		site := doctor.Site{Data: "/", Images: "/", Looks: looks}
		if c := find(t, doctor.Check(t.Context(), site), "disk of the data"); c.State != proto.CheckBad || !strings.Contains(c.Detail, "32 others have not answered yet") {
			t.Errorf("%+v, want that too many hang", c)
		}
		close(back)
	})
}

// slow are profiles that do not answer.
type slow struct{ back chan struct{} }

func (s slow) Names() []string { <-s.back; return nil }

func (s slow) Info(string) (proto.ProfileInfo, bool) { return proto.ProfileInfo{}, false }

// TestSockets: what this machine receives at is found by the kernel's own word, and what it stopped to receive at is not.
func TestSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	tcp := doctor.Socket{Network: "tcp", Port: uint16(l.Addr().(*net.TCPAddr).Port)}
	udp := doctor.Socket{Network: "udp", Port: uint16(u.LocalAddr().(*net.UDPAddr).Port)}
	have, err := doctor.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(have, tcp) || !slices.Contains(have, udp) {
		t.Errorf("%v and %v are not among %v", tcp, udp, have)
	}
	l.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) { // somebody else may have it for a moment
		if have, err = doctor.Sockets(); err == nil && !slices.Contains(have, tcp) {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("%v, %v: %v was closed", have, err, tcp)
		}
	}
}

func TestServices(t *testing.T) {
	site := doctor.Site{Data: "/", Profiles: profiles{"ours": {Kernel: "images/x"}}}
	for _, tt := range []struct {
		have []doctor.Socket
		want string
	}{
		{nil, "here: none; not here: DHCP (UDP 67), TFTP (UDP 69), HTTP (TCP 80, 443), which is right where another machine has them"},
		{[]doctor.Socket{{"udp", 67}, {"tcp", 69}, {"tcp", 443}}, "here: DHCP (UDP 67), HTTP (TCP 80, 443); not here: TFTP (UDP 69)"},
		{[]doctor.Socket{{"udp", 67}, {"udp", 69}, {"tcp", 80}}, "here: DHCP (UDP 67), TFTP (UDP 69), HTTP (TCP 80, 443); nodes need DHCP"},
	} {
		site.Sockets = func() ([]doctor.Socket, error) { return tt.have, nil }
		if c := find(t, doctor.Check(t.Context(), site), "site's services"); c.State != proto.CheckGood || !strings.Contains(c.Detail, tt.want) {
			t.Errorf("%v: %+v, want %s", tt.have, c, tt.want)
		}
	}
	site.Profiles = profiles{"theirs": {Boot: "external"}, "ours": {}}
	if c := find(t, doctor.Check(t.Context(), site), "site's services"); !strings.Contains(c.Detail, "your own servers boot the nodes of profile theirs: they need DHCP") {
		t.Errorf("%+v, want the profile that needs them", c)
	}
}
