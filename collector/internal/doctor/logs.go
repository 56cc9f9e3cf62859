// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
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

// log looks at a log that is followed.
func (c *checks) log(l *Log, syslog string) {
	name := "log " + l.Name
	detail := fmt.Sprintf("%d lines: %d about boots, %d not understood, %d broken", l.Lines, l.Known, l.Unknown, l.Broken)
	if l.Path != "" {
		detail = l.Path + ": " + detail
	}
	switch {
	case l.Trouble != nil:
		c.add(proto.CheckBad, name, l.fix(syslog), "blind: %v", l.Trouble)
	case l.Lost != "":
		c.add(proto.CheckWarn, name, l.Hint, "lines may have been lost: %s", l.Lost)
	case l.Lines >= puzzling && l.Unknown+l.Broken > l.Lines/2:
		c.add(proto.CheckWarn, name, "is it the right file? What is read from it:\nprovost probe --logs "+or(l.Path, "-"), "%s", detail)
	default:
		c.good(name, "%s", detail)
	}
}

// rogues names the DHCP servers that are not ours.
func (c *checks) rogues(s Site) {
	for _, r := range s.Rogues {
		if r.Server == "unknown" {
			c.add(proto.CheckWarn, "foreign DHCP server", "look for a second DHCP server on the segment of "+r.Node+"; on a machine there:\nprovost probe --dhcp -i IF",
				"%s took the offer of a server that is not ours, %d times", r.Node, r.Count)
			continue
		}
		c.add(proto.CheckWarn, "foreign DHCP server", "if it is yours, name it in evidence.dhcp-servers, then:\nsystemctl restart provostd\nelse find it by its MAC:\nping -c1 "+r.Server+"; ip neigh show "+r.Server,
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
		return "journalctl -n1 as " + me + " shows why; as a rule:\nusermod -aG systemd-journal " + me + " &&\nsystemctl restart provostd"
	case errors.Is(l.Trouble, fs.ErrNotExist):
		return "start the service that writes it, or name the right file in\nevidence.files, then: systemctl restart provostd"
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
			return "usermod -aG " + group + " " + me + " &&\nsystemctl restart provostd"
		}
	}
	// rsyslog makes the file anew at each rotation: a right on the file does not last. One on /var/log itself would open all
	// logs of the machine.
	if l.Syslog || dir == "/var/log" {
		to := or(syslog, "127.0.0.1:5140")
		if strings.HasPrefix(to, ":") {
			to = "127.0.0.1" + to
		}
		text := forward(to)
		if syslog == "" {
			text = "set evidence.syslog.tcp: \"" + to + "\" in provostd.yaml in the place of the file, and:\n" + text
		}
		if l.Syslog {
			text += "\nor, until the next rotation:\nsetfacl -m u:" + me + ":r " + l.Path
		}
		return text
	}
	return "setfacl -m u:" + me + ":rx " + dir + " &&\nsetfacl -dm u:" + me + ":r " + dir + " &&\nsetfacl -m u:" + me + ":r " + l.Path
}

// forwardQueue is how many lines rsyslog keeps while the collector is down: at a few a second, as a cluster that installs
// writes, half an hour's. When it is full lines are dropped; the machine's other logs never wait for it.
const forwardQueue = "10000"

// forward is the command that lets rsyslog send a machine's lines to the collector at HOST:PORT, over its restarts. Who
// logged in is none of its business.
func forward(to string) string {
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		host, port = to, "5140"
	}
	return `echo '*.info;auth,authpriv.none action(type="omfwd" protocol="tcp"
target="` + host + `" port="` + port + `"
template="RSYSLOG_SyslogProtocol23Format"
queue.type="LinkedList" queue.size="` + forwardQueue + `"
queue.timeoutEnqueue="0" action.resumeRetryCount="-1"
action.resumeInterval="5")
' > /etc/rsyslog.d/provost.conf && systemctl restart rsyslog`
}
