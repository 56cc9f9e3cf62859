// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/auth"
	"provost/collector/internal/doctor"
	"provost/proto"
)

type profiles map[string]proto.ProfileInfo

func (p profiles) Names() (out []string) {
	for n := range p {
		out = append(out, n)
	}
	return out
}
func (p profiles) Info(name string) (proto.ProfileInfo, bool) { v, ok := p[name]; return v, ok }

// find gives the check of a name, which there must be once.
func find(t *testing.T, all []proto.Check, name string) proto.Check {
	t.Helper()
	var found []proto.Check
	for _, c := range all {
		if c.Name == name {
			found = append(found, c)
		}
		if (c.State == proto.CheckGood) != (c.Fix == "") {
			t.Errorf("%+v: what is not good, and only that, says what to do", c)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d checks named %q in %+v", len(found), name, all)
	}
	return found[0]
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	ca, err := auth.OpenCA(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"vmlinuz": "k", "initrd": "i", "empty": "", "overlay.img": "o"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gone, err := net.Listen("tcp", "127.7.7.7:0") // where nobody else takes the port when it is free
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	s, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	site := doctor.Site{Data: dir, Images: dir, Overlay: filepath.Join(dir, "overlay.img"), Certificates: ca.Certificates(), Now: time.Now(),
		Database: func() error { return nil }, Warnings: func() []string { return nil }, Logs: func() (int64, int64) { return 5, 10 },
		Listeners: []doctor.Listener{{"agents", l.Addr()}, {"boot", gone.Addr()}, {"socket", s.Addr()}},
		Profiles: profiles{
			"good":     {Kernel: "images/vmlinuz", Initrds: []string{"images/initrd", "overlay", "http://x/y"}},
			"lacking":  {Kernel: "images/vmlinuz", Initrds: []string{"images/nope"}},
			"empty":    {Kernel: "images/empty"},
			"external": {},
		}}
	all := doctor.Check(t.Context(), site)
	for name, want := range map[string]string{"database": "good", "disk of the data": "", "logs": "good", "certificate": "good", "certificate of the CA": "good",
		"agents": "warn no node can reach it", "boot": "bad nobody answers at", "socket": "good", "profile good": "good but for 1 on another server",
		"profile lacking": "bad images/nope: no such file", "profile empty": "bad images/empty: it is empty", "profile external": "good the site boots", "overlay": "good"} {
		state, text, _ := strings.Cut(want, " ")
		if c := find(t, all, name); want != "" && (c.State != state || !strings.Contains(c.Detail, text)) {
			t.Errorf("check %s = %s: %s, want %s", name, c.State, c.Detail, want)
		}
	}

	site.Database = func() error { return errors.New("disk is gone") }
	site.Warnings = func() []string { return []string{"left out: x.yaml"} }
	site.Logs = func() (int64, int64) { return 10 << 30, 10 << 30 }
	site.Data, site.Images, site.Overlay, site.Profiles = filepath.Join(dir, "none"), filepath.Join(dir, "none"), filepath.Join(dir, "none"), profiles{}
	site.Now = site.Now.AddDate(30, 0, 0)
	all = doctor.Check(t.Context(), site)
	for name, want := range map[string]string{"database": "bad disk is gone", "warning": "warn left out: x.yaml", "disk of the data": "bad no such file", "disk of the images": "warn no such file", "logs": "bad 10 GiB of a quota of 10 GiB",
		"certificate": "bad it ended", "certificate of the CA": "bad it ended", "profiles": "warn there is no profile", "overlay": "warn no such file"} {
		state, text, _ := strings.Cut(want, " ")
		if c := find(t, all, name); c.State != state || !strings.Contains(c.Detail, text) {
			t.Errorf("check %s = %s: %s, want %s", name, c.State, c.Detail, want)
		}
	}
	site.Profiles = profiles{"p": {Kernel: "images/vmlinuz", Initrds: []string{"overlay"}}}
	if c := find(t, doctor.Check(t.Context(), site), "overlay"); c.State != proto.CheckBad {
		t.Errorf("an overlay that a profile needs, missing = %+v, want bad", c)
	}
	if c := find(t, doctor.Check(t.Context(), site), "disk of the images"); c.State != proto.CheckBad {
		t.Errorf("images that a profile needs, missing = %+v, want bad", c)
	}
	site.Now = time.Now().AddDate(-1, 0, 0)
	if c := find(t, doctor.Check(t.Context(), site), "certificate"); c.State != proto.CheckBad || !strings.Contains(c.Detail, "begins on") {
		t.Errorf("a certificate of the future = %+v, want bad", c)
	}
}
