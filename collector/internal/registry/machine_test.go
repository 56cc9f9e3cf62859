// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/registry/registrytest"
	"provost/proto"
)

// What a heartbeat says of the machine is shown with the time; how to get in is kept over a restart, until the agent says
// that there is no way any more. What makes no sense never refuses a heartbeat.
func TestHeartbeatOfMachine(t *testing.T) {
	s := registrytest.New(t)
	id := held(t, s)
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9AQ6Rxw0tWQ9p2Jc0C2oV3t8dE4wB4lYqz8G6m5v0r"
	beat := func(h proto.Heartbeat) proto.Node {
		t.Helper()
		h.Schema, h.Install = 1, id
		if _, err := s.Heartbeat(t.Context(), id, "10.0.0.7", &h); err != nil {
			t.Fatal(err)
		}
		return s.Seen("n1")
	}
	space := &proto.Space{Path: "/run", Free: 1, Total: 2}
	n := beat(proto.Heartbeat{Facts: &proto.Facts{Run: space, Target: &proto.Space{Path: "/t", Free: -1, Total: 5}, Load: 1.5},
		Rescue: &proto.Rescue{Port: 2200, HostKey: key, Address: "10.9.9.9"}})
	if n.Facts == nil || n.Facts.At.IsZero() || n.Facts.Target != nil || !cmp.Equal(n.Facts.Run, space) || n.Facts.Load != 1.5 {
		t.Errorf("facts = %+v", n.Facts)
	}
	want := &proto.Rescue{Port: 2200, HostKey: key, Address: "10.0.0.7"} // the address is the sender's
	if !cmp.Equal(n.Rescue, want) {
		t.Errorf("rescue = %+v, want %+v", n.Rescue, want)
	}
	s.Restart()
	if n := s.Seen("n1"); !cmp.Equal(n.Rescue, want) || n.Facts != nil {
		t.Errorf("after a restart rescue = %+v, facts = %+v, want %+v and none", n.Rescue, n.Facts, want)
	}
	for _, bad := range []proto.Rescue{{Port: 0, HostKey: key}, {Port: 1 << 16, HostKey: key}, {Port: 22, HostKey: "ssh-rsa " + strings.Fields(key)[1]}, {Port: 22, HostKey: key + "\nx"}} {
		if n := beat(proto.Heartbeat{Rescue: &bad}); n.Rescue != nil {
			t.Errorf("rescue of %+v = %+v, want none", bad, n.Rescue)
		}
		beat(proto.Heartbeat{Rescue: want})
	}
	if n := beat(proto.Heartbeat{}); n.Rescue != nil {
		t.Errorf("rescue = %+v when the agent has none", n.Rescue)
	}
}

// What a hello tells of the machine is shown with the node, and no line of it is longer than it needs to be.
func TestHardware(t *testing.T) {
	s := registrytest.New(t)
	s.Add("n1", 1)
	s.Ordered("n1")
	h := registrytest.HelloOf(s.Script(s.Seen("n1").MACs[0]), registrytest.Boot(1))
	h.Hardware = proto.Hardware{Arch: "amd64", Vendor: strings.Repeat("v", 1000), CPUs: 4, MemoryMB: 2048, NICs: []string{"eth0 52:54:00:00:00:01 up"}}
	for range 500 {
		h.Hardware.Disks = append(h.Hardware.Disks, strings.Repeat("d", 1000))
	}
	if _, err := s.Hello(t.Context(), "", h); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	one, err := s.Node("n1")
	if err != nil {
		t.Fatal(err)
	}
	if list := s.Nodes(nil); len(list) != 1 || list[0].Hardware != nil {
		t.Errorf("hardware stands in a list")
	}
	hw := one.Hardware
	if hw == nil || hw.CPUs != 4 || hw.MemoryMB != 2048 || len(hw.NICs) != 1 || len(hw.Vendor) > 160 || len(hw.Disks) != 64 || len(hw.Disks[0]) > 160 {
		t.Errorf("hardware = %.300v", hw)
	}
}

// What the hello of a machine that nobody has added tells of it is kept and shown, too.
func TestHardwareOfDiscovered(t *testing.T) {
	s := registrytest.New(t)
	h := &proto.Hello{Schema: proto.Schema, Version: "test", Env: proto.EnvInstaller, Clock: proto.Clock{Boot: registrytest.Boot(1), OffsetMS: 1000},
		MACs: []string{"52:54:00:00:00:07"}, Journal: registrytest.Journal, JoinKey: registrytest.JoinKey, Hardware: proto.Hardware{CPUs: 4, MemoryMB: 2048}}
	if _, err := s.Hello(t.Context(), "", h); err == nil {
		t.Error("a machine that nobody has added got a token")
	}
	s.Restart()
	n := s.Seen("52-54-00-00-00-07")
	if n.Status != proto.StatusDiscovered || n.Hardware == nil || n.Hardware.CPUs != 4 || n.Hardware.MemoryMB != 2048 {
		t.Errorf("node = %+v with %+v", n.Status, n.Hardware)
	}
}
