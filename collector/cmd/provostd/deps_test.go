// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// banned is what the collector must not link, and why.
var banned = map[string]string{
	"provost/agent":           "agent and collector share proto and nothing else",
	"provost/proto/prototest": "it is a fake",
	"provost/collector/internal/registry/registrytest": "it is for tests",
	"provost/collector/internal/cli":                   "the CLI is a program of its own",
	"testing":                                          "it registers flags",
	"github.com/hashicorp/go-retryablehttp":            "the collector calls nobody",
	"github.com/gliderlabs/ssh":                        "only the agent's rescue shell listens to ssh",
	"net/http/pprof":                                   "it registers routes without a scope",
}

func list(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestDependencies(t *testing.T) {
	for _, pkg := range list(t, "-deps", ".") {
		for bad, why := range banned {
			if pkg == bad || strings.HasPrefix(pkg, bad+"/") {
				t.Errorf("provostd links %s: %s", pkg, why)
			}
		}
	}
	const bolt = "go.etcd.io/bbolt"
	for _, line := range list(t, "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "provost/collector/...") {
		f := strings.Fields(line)
		for _, imported := range f[1:] {
			if strings.HasPrefix(imported, bolt) && f[0] != "provost/collector/internal/store" {
				t.Errorf("%s imports %s: only store knows the engine", f[0], imported)
			}
			if strings.HasPrefix(imported, "provost/agent") {
				t.Errorf("%s imports %s: agent and collector share proto and nothing else", f[0], imported)
			}
		}
	}
}
