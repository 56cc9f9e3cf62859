// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/doctor"
	"provost/proto"
)

func TestLogs(t *testing.T) {
	dir := t.TempDir()
	grouped := filepath.Join(dir, "syslog")
	if err := os.WriteFile(grouped, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(grouped, 0, 4); err != nil { // adm
			t.Fatal(err)
		}
	}
	no := &fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission}
	for _, tt := range []struct {
		log                 doctor.Log
		state, detail, want string
	}{
		{doctor.Log{Name: "httpd", Path: "/nowhere/httpd/access_log", Trouble: no}, proto.CheckBad, "blind: ", ":rx /nowhere/httpd &&\nsetfacl -dm u:"},
		{doctor.Log{Name: "messages", Path: "/nowhere/messages", Syslog: true, Trouble: no}, proto.CheckBad, "blind: ",
			"in the place of the file, and:\necho '*.info;auth,authpriv.none action(type=\"omfwd\" protocol=\"tcp\"\ntarget=\"127.0.0.1\" port=\"5140\"\n"},
		{doctor.Log{Name: "dhcpd", Path: "/var/log/provost-no-such.log", Trouble: no}, proto.CheckBad, "blind: ", "' > /etc/rsyslog.d/provost.conf && systemctl restart rsyslog"},
		{doctor.Log{Name: "syslog", Path: grouped, Syslog: true, Trouble: no}, proto.CheckBad, "blind: ", "usermod -aG "},
		{doctor.Log{Name: "x", Path: "/nowhere/x", Trouble: fs.ErrNotExist}, proto.CheckBad, "file does not exist", "name the right file"},
		{doctor.Log{Name: "journal", Trouble: no}, proto.CheckBad, "blind: ", "usermod -aG systemd-journal"},
		{doctor.Log{Name: "x", Path: "/a/x", Lost: "it was cut in place", Hint: "no copytruncate"}, proto.CheckWarn, "lines may have been lost: it was cut in place", "no copytruncate"},
		{doctor.Log{Name: "x", Path: "/a/x", Lines: 1000, Known: 1, Unknown: 900}, proto.CheckWarn, "900 not understood", "provost probe --logs /a/x"},
		{doctor.Log{Name: "x", Path: "/a/x", Lines: 1000, Known: 10, Unknown: 9, Broken: 1}, proto.CheckGood, "/a/x: 1000 lines: 10 about boots, 9 not understood, 1 broken", ""},
	} {
		c := find(t, doctor.Check(t.Context(), doctor.Site{Data: dir, Images: dir, Now: time.Now(), Evidence: []doctor.Log{tt.log}}), "log "+tt.log.Name)
		if c.State != tt.state || !strings.Contains(c.Detail, tt.detail) || !strings.Contains(c.Fix, tt.want) {
			t.Errorf("%+v = %+v, want %s, %q, fix %q", tt.log, c, tt.state, tt.detail, tt.want)
		}
	}
	for _, c := range doctor.Check(t.Context(), doctor.Site{Data: dir, Images: dir, Now: time.Now(), Evidence: []doctor.Log{{Name: "dhcpd", Path: "/var/log/provost-no-such.log", Trouble: no}}}) {
		if strings.Contains(c.Fix, "setfacl") {
			t.Errorf("%+v would open all of /var/log", c)
		}
	}
	all := doctor.Check(t.Context(), doctor.Site{Data: dir, Images: dir, Now: time.Now(), Rogues: []doctor.Rogue{{Server: "192.168.1.1", Node: "n7", Count: 3}}})
	if c := find(t, all, "foreign DHCP server"); c.State != proto.CheckWarn || !strings.Contains(c.Detail, "192.168.1.1 is not ours: n7 took its offer, 3 times") {
		t.Errorf("%+v, want the rogue", c)
	}
}
