// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	for _, tt := range []struct {
		args string
		exit int
		says string
	}{
		{"", exitUsage, "a command is missing"},
		{"--help", exitOK, "agentload run"},
		{"run --help", exitOK, "-agents"},
		{"walk", exitUsage, `there is no command "walk"`},
		{"run", exitUsage, "--url, --ca and --join-key-file are required"},
		{"run --agents x", exitUsage, "invalid value"},
		{"order --agents 5", exitUsage, "--server is missing"},
		{"order --server s now", exitUsage, `order takes no argument "now"`},
		{"verify --server " + missing + " --acknowledged " + missing, exitError, "reading what was acknowledged"},
		{"run --url https://a:1 --ca sha256:00 --join-key-file " + missing, exitError, "reading the join key"},
		{"order --server " + missing + " --agents 1", exitError, "asking the collector"},
	} {
		var out, errs bytes.Buffer
		exit := run(t.Context(), strings.Fields(tt.args), strings.NewReader(""), &out, &errs)
		if text := out.String() + errs.String(); exit != tt.exit || !strings.Contains(text, tt.says) {
			t.Errorf("agentload %s = %d, %q; want %d, %q", tt.args, exit, text, tt.exit, tt.says)
		}
	}
}
