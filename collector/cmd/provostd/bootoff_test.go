// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"provost/proto"
)

// TestBootListenOff: nothing is served without TLS, and a profile that needs it is named.
func TestBootListenOff(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{
		"config/profiles/site.yaml": "name: site\nboot: external\n",
		"config/profiles/own.yaml":  "name: own\nkernel: images/vmlinuz\n",
		"config/postscripts/.keep":  "",
		"provostd.yaml":             "dirs: {config: " + filepath.Join(dir, "config") + "}\n",
	})
	d := start(t, filepath.Join(dir, "data"), "--config", filepath.Join(dir, "provostd.yaml"), "--boot-listen", "off")
	if d.rec.BootListen != "" || !strings.Contains(d.out.String(), "none: boot-listen is off") {
		t.Errorf("boot scripts are served at %q\n%s", d.rec.BootListen, d.out)
	}
	var n proto.NodeList
	if code := d.local("GET", "/v1/status", nil, &n); code != 200 {
		t.Fatalf("status = %d", code)
	}
	about := slices.DeleteFunc(n.Warnings, func(w string) bool { return !strings.Contains(w, "boot-listen is off") })
	if len(about) != 1 || !strings.Contains(about[0], "profile own") {
		t.Errorf("warnings about boot-listen: %q, want one that names profile own", about)
	}
}
