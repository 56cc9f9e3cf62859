// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDependencies: what the agents may know of a collector is its protocol.
func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}}", "provost/agent/cmd/agentload").Output()
	if err != nil {
		t.Fatalf("listing the dependencies: %v", err)
	}
	for dep := range strings.Lines(string(out)) {
		dep = strings.TrimSpace(dep)
		for _, bad := range []string{"provost/collector", "provost/proto/prototest", "go.etcd.io/bbolt", "testing"} {
			if dep == bad || strings.HasPrefix(dep, bad+"/") {
				t.Errorf("agentload imports %s", dep)
			}
		}
	}
}
