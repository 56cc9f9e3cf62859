// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"provost/collector/internal/doctor"
	"provost/proto"
)

func TestClock(t *testing.T) {
	for _, tt := range []struct {
		kept bool
		err  error
		want string
	}{{true, nil, proto.CheckGood}, {false, nil, proto.CheckWarn}, {false, errors.New("no"), proto.CheckWarn}} {
		site := doctor.Site{Data: t.TempDir(), Clock: func() (bool, error) { return tt.kept, tt.err }}
		if c := find(t, doctor.Check(t.Context(), site), "time"); c.State != tt.want {
			t.Errorf("time with %v, %v = %+v, want %s", tt.kept, tt.err, c, tt.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	own := func(list ...string) func() ([]net.Addr, error) {
		return func() ([]net.Addr, error) {
			var out []net.Addr
			for _, s := range append(list, "127.0.0.1/8", "fe80::1/64") {
				ip, n, err := net.ParseCIDR(s)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, &net.IPNet{IP: ip, Mask: n.Mask})
			}
			return out, nil
		}
	}
	for _, tt := range []struct {
		name      string
		own       func() ([]net.Addr, error)
		advertise []string
		want      string
	}{
		{"ours", own("10.0.0.1/24"), []string{"10.0.0.1"}, "good 10.0.0.1"},
		{"ours with a port", own("10.0.0.1/24"), []string{"10.0.0.1:8480"}, "good 10.0.0.1"},
		{"ours, version 6", own("2001:db8::1/64"), []string{"[2001:db8::1]:8480"}, "good 2001:db8::1"},
		{"another's", own("10.0.0.1/24"), []string{"10.0.0.9"}, "warn none of this machine's: 10.0.0.1"},
		{"the second is another's", own("10.0.0.1/24"), []string{"10.0.0.1", "10.0.0.9"}, "warn 10.0.0.9"},
		{"a name", own("10.0.0.1/24"), []string{"frontend"}, "good frontend"},
		{"none is named", own("10.0.0.1/24"), nil, "good the one that they reached, of 10.0.0.1"},
		{"there is none", own(), nil, "bad no address that a node could reach"},
		{"unknown", func() ([]net.Addr, error) { return nil, errors.New("no") }, nil, "warn cannot be read"},
	} {
		state, text, _ := strings.Cut(tt.want, " ")
		c := find(t, doctor.Check(t.Context(), doctor.Site{Data: t.TempDir(), Addresses: tt.own, Advertise: tt.advertise}), "addresses")
		if c.State != state || !strings.Contains(c.Detail, text) {
			t.Errorf("%s: %s: %s, want %s", tt.name, c.State, c.Detail, tt.want)
		}
	}
}

// TestTree: what a file server gives to nodes is looked at with its user's eyes.
func TestTree(t *testing.T) {
	if _, err := user.Lookup("nobody"); err != nil {
		t.Fatalf("looking up the user of the test: %v", err)
	}
	root, err := os.MkdirTemp("/tmp", "doctor-") // every directory above it is open to all
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	tree := doctor.Tree{Name: "TFTP", Roots: []string{root, "/nonexistent/tftp"}, Users: []string{"no-such-user", "nobody"}}
	state := func() proto.Check {
		t.Helper()
		return find(t, doctor.Check(t.Context(), doctor.Site{Data: root, Trees: []doctor.Tree{tree}}), "TFTP files")
	}
	chmod := func(name string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(filepath.Join(root, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "images/el9"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pxelinux.0", "images/el9/vmlinuz"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	chmod("", 0o755)
	if c := state(); c.State != proto.CheckGood {
		t.Errorf("open files = %+v, want good", c)
	}
	for _, tt := range []struct {
		name      string
		shut, was os.FileMode
	}{{"images/el9/vmlinuz", 0o600, 0o644}, {"images/el9", 0o700, 0o755}, {"", 0o750, 0o755}} {
		chmod(tt.name, tt.shut)
		c := state()
		if c.State != proto.CheckWarn || !strings.Contains(c.Detail, filepath.Join(root, tt.name)+" has mode ") || !strings.Contains(c.Fix, "chmod -R o+rX "+root) {
			t.Errorf("%s with mode %o = %+v, want a warning with its name and what to type", tt.name, tt.shut, c)
		}
		chmod(tt.name, tt.was)
	}
	tree.Users = []string{"no-such-user"}
	for _, c := range doctor.Check(t.Context(), doctor.Site{Data: root, Trees: []doctor.Tree{tree}}) {
		if c.Name == "TFTP files" {
			t.Errorf("without such a server = %+v, want nothing said", c)
		}
	}
}
