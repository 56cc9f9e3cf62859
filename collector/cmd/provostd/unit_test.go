// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestUnitIsConfined: the packaged unit runs the collector as a user of its own, without a shell, capabilities or a way to
// more; where systemd-analyze is there, it finds an exposure of 2.0 of 10 at most.
func TestUnitIsConfined(t *testing.T) {
	const unit = "../../../packaging/systemd/provostd.service"
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"User=provost", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "AmbientCapabilities=", "ProtectSystem=strict", "ProtectHome=yes",
		"RestrictNamespaces=yes", "MemoryDenyWriteExecute=yes", "DevicePolicy=closed", "SystemCallFilter=~@privileged"} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("%s has no line %s", unit, line)
		}
	}
	users, err := os.ReadFile("../../../packaging/systemd/provost.sysusers.conf")
	if err != nil {
		t.Fatal(err)
	}
	// u NAME ID GECOS HOME SHELL (sysusers.d(5)): without the last it is nologin.
	if !regexp.MustCompile(`(?m)^u provost - "[^"]*" \S+( (-|/usr/sbin/nologin))?$`).Match(users) {
		t.Errorf("the user of the unit may have a shell: %s", users)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not installed: its judgement is not asked")
		return
	}
	out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", unit).CombinedOutput()
	if strings.Contains(string(out), "unrecognized option") { // before systemd 250
		t.Logf("systemd-analyze is too old: %s", out)
		return
	}
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}
