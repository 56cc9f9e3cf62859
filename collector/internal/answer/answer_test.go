// SPDX-License-Identifier: Apache-2.0

package answer_test

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/answer"
)

var update = flag.Bool("update", false, "write the golden files and the snippets in packaging anew")

// families are the shipped templates that make files.
var families = []string{"kickstart-el7", "kickstart-el8", "kickstart-el9", "kickstart-el10", "autoyast-sles12", "autoyast-sles15",
	"preseed-debian", "preseed-ubuntu2004", "autoinstall-ubuntu", "esxi-ks", "winpe-startnet"}

// shipped gives the recipe of a shipped template, with no variable set.
func shipped(t testing.TB, name string) *answer.Recipe {
	t.Helper()
	r := &answer.Recipe{Name: name + ".tmpl", Profile: "compute"}
	shared, err := answer.SharedName(r.Name)
	if err != nil {
		t.Fatal(err)
	}
	for file, to := range map[string]*string{r.Name: &r.Text, shared: &r.Shared} {
		b, err := answer.Shipped.ReadFile("templates/" + file)
		if err != nil {
			t.Fatal(err)
		}
		*to = string(b)
	}
	return r
}

const (
	rootpw  = "$6$saltsalt$Ck1xU0CANARYkJ9./rest"
	joinKey = "pvj_CANARYjoin"
	pin     = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
)

// full has a value for every variable.
func full(t testing.TB, name string) *answer.Recipe {
	r := shipped(t, name)
	r.Site = map[string]string{"timezone": "Europe/Berlin", "ntp": "10.0.0.1, 10.0.0.2", "proxy": "http://10.0.0.1:3128"}
	r.Groups = map[string]map[string]string{"rack1": {"disk": "/dev/nvme0n1"}, "gpu": {"disk": "/dev/sdz", "kernel-args": "console=ttyS0 iommu=pt"}}
	r.Vars = map[string]string{"rootpw-hash": "file:/etc/provost/secrets/rootpw", "language": "de_DE.UTF-8", "keyboard": "de", "keymap": "german",
		"source": "http://10.0.0.1:8480/images/os", "packages": "vim, tcpdump", "modules": "Basesystem, Server-Applications", "ssh-key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ops@example", "selinux": "permissive",
		"esxi-disk": "mpx.vmhba0:C0:T0:L0", "windows-setup": `\\10.0.0.1\win\setup.exe`}
	r.Secrets = map[string]string{"file:/etc/provost/secrets/rootpw": rootpw}
	return r
}

func data() answer.Data {
	return answer.Data{
		Node:    answer.Node{Name: "n1.cluster", MAC: "52:54:00:00:0d:02", IP: "10.0.0.17", Groups: []string{"rack1", "gpu"}, Attrs: map[string]string{"firewall": "off"}},
		Install: "01J9ZQ5N3H8T6Y2R4W7K1M0CVB", Images: "http://10.0.0.1:8480/images", Callback: "http://10.0.0.1:8480/boot/callback/01J9ZQ5N3H8T6Y2R4W7K1M0CVB/TICKET",
		URLs: []string{"https://10.0.0.1:8440"}, Pin: pin,
	}
}

// golden compares with a file below testdata, or writes it.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s: -want +got (go test -update writes it anew)\n%s", path, diff)
	}
}

func TestGolden(t *testing.T) {
	for _, name := range families {
		t.Run(name, func(t *testing.T) {
			external := full(t, name)
			external.External = true
			external.Vars["join-key"] = joinKey
			external.Vars["agent-sha256"] = strings.Repeat("ab", 32)
			for kind, r := range map[string]*answer.Recipe{"plain": shipped(t, name), "full": full(t, name), "external": external} {
				files, err := r.RenderMasked(data())
				if err != nil {
					t.Fatalf("%s: %v", kind, err)
				}
				for file, b := range files {
					golden(t, filepath.Join("testdata/golden", name, kind, file), b)
				}
				open, err := r.Render(data())
				if err != nil {
					t.Fatal(err)
				}
				for file, b := range open {
					checkStructure(t, file, b)
					if strings.Contains(string(files[file]), "CANARY") {
						t.Errorf("%s, %s: a secret is in the masked file", kind, file)
					}
					if main := file != "meta-data" && file != "vendor-data" && name != "winpe-startnet"; main && kind != "plain" && !strings.Contains(string(b), rootpw) {
						t.Errorf("%s, %s: the secret is not in the file", kind, file)
					}
				}
			}
		})
	}
}

// TestShippedAreTested finds a template that no test looks at.
func TestShippedAreTested(t *testing.T) {
	entries, err := fs.ReadDir(answer.Shipped, "templates")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if shared, err := answer.SharedName(e.Name()); err != nil {
			t.Error(err)
		} else if shared != "" {
			got = append(got, strings.TrimSuffix(e.Name(), ".tmpl"))
		}
	}
	if len(got) != len(families) {
		t.Errorf("shipped templates = %q, tested are %q", got, families)
	}
}
