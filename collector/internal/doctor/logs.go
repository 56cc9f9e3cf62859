// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"provost/proto"
)

// Log is one source of evidence.
type Log struct {
	Name    string // short
	Path    string // of a file; else empty
	Syslog  bool   // the file is written by rsyslog
	Trouble error  // why it cannot be read now
	Lost    string // why lines of it may have been lost since the start, and Hint what to do about it
	Hint    string

	Lines, Known, Unknown, Broken int64 // read, ever
}

// Rogue is a DHCP server that is not ours.
type Rogue struct {
	Server, Node string
	Count        int
}

// puzzling is how many lines must have been read before it is a fault that none is understood.
const puzzling = 200

// evidence looks at the logs that are followed.
func (c *checks) evidence(s Site) {
	for _, l := range s.Evidence {
		name := "log " + l.Name
		detail := fmt.Sprintf("%d lines: %d about boots, %d not understood, %d broken", l.Lines, l.Known, l.Unknown, l.Broken)
		if l.Path != "" {
			detail = l.Path + ": " + detail
		}
		switch {
		case l.Trouble != nil:
			c.add(proto.CheckBad, name, l.fix(s.Syslog), "blind: %v", l.Trouble)
		case l.Lost != "":
			c.add(proto.CheckWarn, name, l.Hint, "lines may have been lost: %s", l.Lost)
		case l.Lines >= puzzling && l.Unknown+l.Broken > l.Lines/2:
			c.add(proto.CheckWarn, name, "is it the right file? provost probe --logs "+or(l.Path, "-")+" shows what is read from it", "%s", detail)
		default:
			c.good(name, "%s", detail)
		}
	}
	for _, r := range s.Rogues {
		if r.Server == "unknown" {
			c.add(proto.CheckWarn, "foreign DHCP server", "look for a second DHCP server on the segment of "+r.Node+": on a machine there, nmap --script broadcast-dhcp-discover",
				"%s took the offer of a server that is not ours, %d times", r.Node, r.Count)
			continue
		}
		c.add(proto.CheckWarn, "foreign DHCP server", "find it by its MAC: ping -c1 "+r.Server+"; ip neigh show "+r.Server+"; if it is yours, name it in evidence.dhcp-servers",
			"%s is not ours: %s took its offer, %d times", r.Server, r.Node, r.Count)
	}
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// fix is the command that lets this process read a file, as what stands on the disk asks for.
func (l *Log) fix(syslog string) string {
	me := "provost"
	if u, err := user.Current(); err == nil {
		me = u.Username
	}
	switch {
	case l.Path == "":
		return "journalctl -n1 as " + me + " shows why; usermod -aG systemd-journal " + me + ", then: systemctl restart provostd"
	case errors.Is(l.Trouble, fs.ErrNotExist):
		return "name the right file in evidence.files, or start the service that writes it"
	case !errors.Is(l.Trouble, fs.ErrPermission):
		return "ls -l " + l.Path
	}
	dir := filepath.Dir(l.Path)
	if fi, err := os.Stat(l.Path); err == nil && fi.Mode().Perm()&0o040 != 0 { // only its group may, as on Debian
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Gid != 0 {
			group := strconv.Itoa(int(st.Gid))
			if g, err := user.LookupGroupId(group); err == nil {
				group = g.Name
			}
			return "usermod -aG " + group + " " + me + ", then: systemctl restart provostd"
		}
	}
	if l.Syslog { // rsyslog makes the file anew at each rotation: a right on the file does not last
		to := or(syslog, "127.0.0.1:5140")
		if strings.HasPrefix(to, ":") {
			to = "127.0.0.1" + to
		}
		text := "echo '*.info @@" + to + ";RSYSLOG_SyslogProtocol23Format' > /etc/rsyslog.d/provost.conf && systemctl restart rsyslog"
		if syslog == "" {
			text += ", with evidence.syslog.tcp: \"" + to + "\" in provostd.yaml in the place of the file"
		}
		return text + "; or until the next rotation: setfacl -m u:" + me + ":r " + l.Path
	}
	return "setfacl -m u:" + me + ":rx " + dir + " && setfacl -dm u:" + me + ":r " + dir + " && setfacl -m u:" + me + ":r " + l.Path
}
