// SPDX-License-Identifier: Apache-2.0

package servers_test

import (
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"provost/collector/internal/servers"
)

// info is a file's mode and owner.
type info struct {
	mode     fs.FileMode
	uid, gid uint32
}

func (i info) Name() string       { return "x" }
func (i info) Size() int64        { return 1 }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return &syscall.Stat_t{Uid: i.uid, Gid: i.gid} }

// TestLacks compares with what the kernel does: the first class that fits decides, alone.
func TestLacks(t *testing.T) {
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	number := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	uid, gid := number(u.Uid), number(u.Gid)
	here := []string{os.Args[0]}
	plain := servers.Installed([]servers.Server{{Name: "web", Programs: here, Users: []string{"no-such-user", "nobody"}}})
	world := servers.Installed([]servers.Server{{Name: "in.tftpd", Programs: here, Users: []string{"nobody"}, World: true}})
	super := servers.Installed([]servers.Server{{Name: "web", Programs: here, Users: []string{"root"}}})
	if len(plain) != 1 || plain[0].String() != "web (user nobody)" {
		t.Fatalf("%v, want one, of user nobody", plain)
	}
	const dir = fs.ModeDir
	for _, tt := range []struct {
		who  servers.Reader
		file info
		want string
	}{
		{plain[0], info{0o644, 0, 0}, ""},
		{plain[0], info{0o640, 0, 0}, "o+r"},
		{plain[0], info{0o640, 0, gid}, ""},
		{plain[0], info{0o604, 0, gid}, "g+r"},
		{plain[0], info{0o400, uid, 0}, ""},
		{plain[0], info{0o044, uid, gid}, "u+r"},
		{plain[0], info{dir | 0o750, 0, gid}, ""},
		{plain[0], info{dir | 0o750, 0, 0}, "o+x"},
		{plain[0], info{dir | 0o744, 0, 0}, "o+x"},
		{world[0], info{0o640, 0, gid}, "o+r"},
		{world[0], info{0o600, uid, gid}, "o+r"},
		{world[0], info{0o604, 0, gid}, ""},
		{world[0], info{dir | 0o750, 0, gid}, ""},
		{super[0], info{0o000, uid, gid}, ""},
		{servers.Reader{}, info{0o640, 0, 0}, "o+r"},
		{servers.Reader{}, info{0o604, 0, 0}, ""},
	} {
		if got := tt.who.Lacks(tt.file); got != tt.want {
			t.Errorf("%v lacks %q of mode %v, owner %d:%d, want %q", tt.who, got, tt.file.mode, tt.file.uid, tt.file.gid, tt.want)
		}
	}
	if none := servers.Installed([]servers.Server{{Name: "x", Programs: []string{"/nonexistent/x"}, Users: []string{"nobody"}}}); len(none) > 0 {
		t.Errorf("%v is not installed", none)
	}
}

func TestOptions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tftpd-hpa")
	for _, tt := range []struct {
		text string
		want servers.Options
		ok   bool
	}{
		{"# /etc/default/tftpd-hpa\n\nTFTP_USERNAME=\"tftp\"\nTFTP_OPTIONS=\"--secure\"\n", servers.Options{}, true},
		{"TFTP_OPTIONS=\"--secure -vv\"\n", servers.Options{Verbose: 2}, true},
		{"TFTP_OPTIONS='-v -svp'\n", servers.Options{Verbose: 2, Permissive: true}, true},
		{"TFTP_OPTIONS=\"--verbose --permissive --verbosity 3\"\n", servers.Options{Verbose: 3, Permissive: true}, true},
		{"TFTP_OPTIONS=\"--verbosity=4 -uvp -Bv\"\n", servers.Options{Verbose: 4}, true}, // values, not letters
		{"TFTP_OPTIONS=-v\nTFTP_OPTIONS=\"\"\n", servers.Options{}, true},
		{"# TFTP_OPTIONS=-v\n", servers.Options{}, false},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if tt.ok {
			tt.want.File = path
		}
		if got, ok := servers.ReadOptions(filepath.Join(t.TempDir(), "none"), path); got != tt.want || ok != tt.ok {
			t.Errorf("ReadOptions of %q = %+v, %v, want %+v, %v", tt.text, got, ok, tt.want, tt.ok)
		}
	}
}
