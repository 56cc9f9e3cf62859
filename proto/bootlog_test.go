// SPDX-License-Identifier: Apache-2.0

package proto_test

import (
	"testing"
	"time"

	"provost/proto"
)

func TestBootLog(t *testing.T) {
	first := proto.BootLog("agent", time.Date(2026, 11, 20, 8, 5, 1, 0, time.UTC), "f1d2c3b4-0000-4000-8000-000000000001")
	if want := "agent-20261120-080501-f1d2c3b4.log"; first != want {
		t.Errorf("BootLog = %q, want %q", first, want)
	}
	if err := proto.CheckName("log", first); err != nil {
		t.Error(err)
	}
	second := proto.BootLog("agent", time.Date(2026, 11, 20, 9, 0, 0, 0, time.FixedZone("", 3600)), "0")
	names := []string{"agent.log", second, first, "agent-firstboot.log", "installer-20261121-080501-f1d2c3b4.log", "agent-20261121-080501-f1d2c3b4"}
	for base, want := range map[string]string{"agent": first, "installer": names[4], "rescue": "", "": ""} {
		if got := proto.LastBootLog(names, base); got != want {
			t.Errorf("LastBootLog of %q = %q, want %q", base, got, want)
		}
	}
}
