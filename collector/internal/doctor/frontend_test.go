// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"provost/collector/internal/doctor"
	"provost/collector/internal/servers"
	"provost/proto"
)

func TestClock(t *testing.T) {
	dir := t.TempDir()
	sign := filepath.Join(dir, "synchronized")
	if err := os.WriteFile(sign, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	signs := []doctor.Sign{{Path: filepath.Join(dir, "none"), Program: "chronyd"}, {Path: sign, Program: "systemd-timesyncd"}}
	for _, tt := range []struct {
		kept  bool
		err   error
		signs []doctor.Sign
		want  string
	}{
		{true, nil, nil, "good the clock is kept"},
		{false, nil, signs, "warn nothing keeps"},
		{false, errors.New("no"), signs, "warn does not say"},
		{false, unix.EPERM, signs, "good systemd-timesyncd runs"}, // as under ProtectClock=
		{false, unix.EPERM, signs[:1], "warn not looked at"},
	} {
		state, text, _ := strings.Cut(tt.want, " ")
		site := doctor.Site{Data: dir, Clock: func() (bool, error) { return tt.kept, tt.err }, Signs: tt.signs}
		if c := find(t, doctor.Check(t.Context(), site), "time"); c.State != state || !strings.Contains(c.Detail, text) {
			t.Errorf("time with %v, %v, %v = %+v, want %s", tt.kept, tt.err, tt.signs, c, tt.want)
		}
	}
}

// TestTFTPLog: where in.tftpd does not log refusals, it is said, and in which file to mend it.
func TestTFTPLog(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tftpd-hpa")
	for options, want := range map[string]string{"--secure": "warn runs without -v", "--secure -v": "warn not -vv", "--secure -vv": "good requests and refusals"} {
		if err := os.WriteFile(path, []byte("TFTP_OPTIONS=\""+options+"\"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		site := doctor.Site{Data: dir, TFTPOptions: []string{path}, Evidence: []doctor.Log{{Name: "syslog"}}}
		state, text, _ := strings.Cut(want, " ")
		c := find(t, doctor.Check(t.Context(), site), "TFTP log")
		if c.State != state || !strings.Contains(c.Detail, text) || state == "warn" && !strings.Contains(c.Fix, "TFTP_OPTIONS in "+path+", then:\nsystemctl restart tftpd-hpa") {
			t.Errorf("%s: %+v, want %s", options, c, want)
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
	reader := func(world bool, users ...string) []servers.Reader {
		return servers.Installed([]servers.Server{{Name: "in.tftpd", Programs: []string{os.Args[0]}, Users: users, World: world}})
	}
	tree := doctor.Tree{Name: "TFTP", Roots: []string{root, "/nonexistent/tftp"}, Readers: reader(false, "no-such-user", "nobody")}
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
		if c.State != proto.CheckWarn || !strings.Contains(c.Detail, filepath.Join(root, tt.name)+" has mode ") || !strings.Contains(c.Detail, "for in.tftpd (user nobody)") ||
			!strings.Contains(c.Fix, "\nchmod -R o+rX "+root) {
			t.Errorf("%s with mode %o = %+v, want a warning with its name and what to type", tt.name, tt.shut, c)
		}
		chmod(tt.name, tt.was)
	}
	// What its own group may read is enough for a server, but not for in.tftpd without -p.
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(filepath.Join(root, "pxelinux.0"), 0, gid); err != nil {
			t.Fatal(err)
		}
		chmod("pxelinux.0", 0o640)
		if c := state(); c.State != proto.CheckGood {
			t.Errorf("a file of its group = %+v, want good", c)
		}
		tree.Readers = reader(true, "nobody")
		if c := state(); c.State != proto.CheckWarn || !strings.Contains(c.Detail, "lacks o+r") {
			t.Errorf("the same for in.tftpd without -p = %+v, want a warning", c)
		}
	}
	tree.Readers = nil
	for _, c := range doctor.Check(t.Context(), doctor.Site{Data: root, Trees: []doctor.Tree{tree}}) {
		if c.Name == "TFTP files" {
			t.Errorf("without such a server = %+v, want nothing said", c)
		}
	}
}
