// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"strings"
	"testing"

	"provost/proto"
)

// TestDoctor: a collector that was just started finds its own parts in order, and that no node can reach it.
func TestDoctor(t *testing.T) {
	d := start(t, t.TempDir())
	var got proto.Doctor
	state := map[string]proto.Check{}
	eventually(t, "looks that a machine with much to do answers in time", func() bool {
		got = proto.Doctor{}
		if status := d.local("GET", "/v1/doctor", nil, &got); status != 200 {
			t.Fatalf("GET /v1/doctor = %d", status)
		}
		clear(state)
		in := true
		for _, c := range got.Checks {
			state[c.Name] = c
			in = in && !strings.Contains(c.Detail, "does not answer, for ")
		}
		return in
	})
	for name, want := range map[string]string{"database": proto.CheckGood, "certificate": proto.CheckGood, "certificate of the CA": proto.CheckGood, "logs": proto.CheckGood,
		"socket": proto.CheckGood, "agents and operators": proto.CheckWarn, "boot scripts": proto.CheckWarn} {
		if state[name].State != want {
			t.Errorf("check %s = %+v, want %s", name, state[name], want)
		}
	}
	if _, port, _ := net.SplitHostPort(d.rec.BootListen); !strings.Contains(state["boot scripts"].Detail, ":"+port) {
		t.Errorf("check boot scripts = %+v, want port %s in it", state["boot scripts"], port)
	}
	named := 0
	for _, c := range got.Checks {
		if strings.Contains(c.Name+c.Detail, "overlay") {
			named++
		}
	}
	if named != 1 {
		t.Errorf("the missing overlay is named by %d checks, want one: %+v", named, got.Checks)
	}
	var list proto.NodeList
	if d.local("GET", "/v1/status", nil, &list); !strings.Contains(strings.Join(list.Warnings, "\n"), "overlay") {
		t.Errorf("the status does not say that the overlay is missing: %q", list.Warnings)
	}
	if got.Version == "" || state["overlay"].Name == "" {
		t.Errorf("GET /v1/doctor = %+v, want a version and the overlay", got)
	}
}
