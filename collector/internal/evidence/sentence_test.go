// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"provost/collector/internal/evidence"
)

// TestLook finds on a disk what keeps a server from sending a file.
func TestLook(t *testing.T) {
	dir, err := os.MkdirTemp("", "look")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	tftp, web := filepath.Join(dir, "tftp"), filepath.Join(dir, "html")
	for path, mode := range map[string]os.FileMode{"tftp/vmlinuz": 0o644, "tftp/el9/vmlinuz": 0o644, "html/ks/a.ks": 0o600, "html/shut/a.ks": 0o644, "html/ok.ks": 0o644, "html/empty.ks": 0o644} {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		text := "x"
		if strings.Contains(path, "empty") {
			text = ""
		}
		if err := os.WriteFile(full, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{dir, tftp, web} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(web, "shut"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ program, file, want string }{
		{"dnsmasq-tftp", tftp + "/wrong.0", tftp + " has no wrong.0"},
		{"in.tftpd", "wrong.0", tftp + " has no wrong.0"},
		{"in.tftpd", "el9/vmlinuz-5.14", tftp + "/el9 has no vmlinuz-5.14, but vmlinuz"},
		{"in.tftpd", "EL9\\VMLINUZ", tftp + " has no EL9, but el9"},
		{"in.tftpd", "vmlinuz/x", "has no x"},
		{"in.tftpd", "../../../../etc/shadow", ""}, // the network's names do not lead out of the roots
		{"dnsmasq-tftp", tftp + "/../../../etc/shadow", ""},
		{"in.tftpd", "/etc/shadow", tftp + " has no etc"},
		{"http", "/ks/a.ks", web + "/ks/a.ks has mode 0600 and the owner "},
		{"nginx", "/ks/a.ks", "chmod o+r " + web + "/ks/a.ks"},
		{"http", "/shut/a.ks", "x is missing on the directory " + web + "/shut"},
		{"http", "/ok.ks", web + "/ok.ks is there now, with mode 0644"},
		{"http", "/empty.ks", "is empty"},
		{"http", "/ks", "is a directory"},
		{"http", "/", ""},
		{"http", "", ""},
	} {
		o := evidence.Observation{Fact: evidence.Fact{Program: tt.program, File: tt.file}}
		got := o.Look([]string{filepath.Join(dir, "nothing"), tftp}, []string{web, "/nowhere"})
		if !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("Look(%s, %s) = %q, want %q in it", tt.program, tt.file, got, tt.want)
		}
	}
}
