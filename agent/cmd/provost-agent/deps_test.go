// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// banned is what the agent must never link, and why. It has 9 MB, and it is the same program in an initrd, a chroot and
// on a system's first boot.
var banned = map[string]string{
	"provost/collector":               "agent and collector share proto and nothing else",
	"provost/proto/prototest":         "a fake for tests",
	"go.etcd.io/bbolt":                "the collector's database; the journal is a file that cat can read",
	"github.com/spf13/cobra":          "1 MB; the agent's command line is std flag",
	"github.com/spf13/pflag":          "comes with cobra",
	"github.com/spf13/viper":          "the agent reads the kernel command line, a file and flags, once",
	"github.com/prometheus":           "6 MB; nobody scrapes an installer",
	"github.com/getkin/kin-openapi":   "for the collector's tests",
	"github.com/klauspost/compress":   "nothing here is compressed",
	"github.com/cavaliergopher/cpio":  "for mkinitrd",
	"github.com/pkg/sftp":             "1.3 MB; rescue/sftp does it in 49 kB",
	"github.com/rogpeppe/go-internal": "for tests",
	"pgregory.net/rapid":              "for tests",
	"testing":                         "for tests",
	"net/http/pprof":                  "opens a door that nobody watches",
	"net/http/httptest":               "for tests",
	"html/template":                   "reflection keeps every method of every type: 1 MB",
	"text/template":                   "reflection keeps every method of every type: 1 MB",
	"encoding/gob":                    "no format of ours",
	"database/sql":                    "no database here",
	"os/user":                         "the initrd has no /etc/passwd to believe in",
	"plugin":                          "needs cgo",
}

func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}}", "provost/agent/cmd/provost-agent").Output()
	if err != nil {
		t.Fatalf("listing the dependencies: %v", err)
	}
	for dep := range strings.Lines(string(out)) {
		dep = strings.TrimSpace(dep)
		for bad, why := range banned {
			if dep == bad || strings.HasPrefix(dep, bad+"/") {
				t.Errorf("the agent imports %s: %s", dep, why)
			}
		}
	}
}
