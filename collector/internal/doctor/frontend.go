// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"provost/collector/internal/servers"
	"provost/proto"
)

// Tree is what a server of files that is not ours gives to nodes.
type Tree struct {
	Name  string   // "TFTP", "web"
	Roots []string // directories; one that is not there is passed over
	// Readers are those of the servers that are installed here, which give it. Each of them must be able to read it; none: it
	// is not looked at.
	Readers []servers.Reader
}

// Sign is a file that shows that a program keeps the clock.
type Sign struct{ Path, Program string }

// ClockSigns are those of the NTP clients that distributions ship. That of timesyncd says that the clock was set.
func ClockSigns() []Sign {
	return []Sign{{"/run/systemd/timesync/synchronized", "systemd-timesyncd"}, {"/run/chrony/chronyd.sock", "chronyd"}, {"/run/ntpd.pid", "ntpd"}}
}

const (
	// treeEntries and treeTime bound the look at a tree: a mirror of a distribution may lie below it.
	treeEntries = 20000
	treeTime    = lookLimit - 500*time.Millisecond
)

// clock looks whether something keeps this machine's time (adjtimex(2)): deadlines, and the times in every status, rest
// on it.
func (c *checks) clock(s Site) {
	if s.Clock == nil {
		return
	}
	kept, err := s.Clock()
	switch {
	case errors.Is(err, unix.EPERM): // ProtectClock=yes keeps even reading from the service (systemd.exec(5))
		for _, sign := range s.Signs {
			if _, err := os.Stat(sign.Path); err == nil || errors.Is(err, fs.ErrPermission) { // it is there, and for its own user only
				c.good("time", "%s runs; the kernel itself may not be asked by this service", sign.Program)
				return
			}
		}
		c.add(proto.CheckWarn, "time", "timedatectl status", "not looked at: the kernel may not be asked by this service, and there is no sign of systemd-timesyncd, chronyd or ntpd")
	case err != nil:
		c.add(proto.CheckWarn, "time", "timedatectl status", "the kernel does not say whether the clock is kept: %v", err)
	case !kept:
		c.add(proto.CheckWarn, "time", "systemctl enable --now chronyd, or systemd-timesyncd", "nothing keeps this machine's clock: nodes may be told another time than theirs")
	default:
		c.good("time", "the clock is kept")
	}
}

// KernelClock tells whether the kernel's clock is kept by something, an NTP client as a rule.
func KernelClock() (kept bool, err error) {
	state, err := unix.Adjtimex(&unix.Timex{})
	return state != unix.TIME_ERROR, err
}

// addresses looks whether nodes can reach the addresses that boot scripts carry.
func (c *checks) addresses(s Site) {
	if s.Addresses == nil {
		return
	}
	all, err := s.Addresses()
	if err != nil {
		c.add(proto.CheckWarn, "addresses", "ip address", "this machine's addresses cannot be read: %v", err)
		return
	}
	var own []string
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			own = append(own, p.Addr().Unmap().String())
		}
	}
	if len(s.Advertise) == 0 && len(own) == 0 {
		c.add(proto.CheckBad, "addresses", "ip address; then name the one that nodes reach by advertise in provostd.yaml", "this machine has no address that a node could reach")
		return
	}
	for _, a := range s.Advertise {
		host := a
		if h, _, err := net.SplitHostPort(a); err == nil {
			host = h
		}
		addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if err == nil && !slices.Contains(own, addr.Unmap().String()) {
			c.add(proto.CheckWarn, "addresses", "mend advertise in provostd.yaml, unless something forwards that address here",
				"boot scripts name %s, which is none of this machine's: %s", a, strings.Join(own, ", "))
			return
		}
	}
	if len(s.Advertise) > 0 {
		c.good("addresses", "boot scripts name %s", strings.Join(s.Advertise, ", "))
		return
	}
	c.good("addresses", "nodes are told the one that they reached, of %s", strings.Join(own, ", "))
}

// tree looks whether the servers may read what lies there: a file with mode 0600 is the most common reason why a node gets
// no kernel or answer file.
func (c *checks) tree(ctx context.Context, t Tree) {
	ctx, cancel := context.WithTimeout(ctx, treeTime)
	defer cancel()
	seen, shut := 0, 0
	first, roots := "", []string{}
	note := func(path, why string) {
		if shut++; first == "" {
			first = path + " " + why
		}
	}
	for _, root := range t.Roots {
		if _, err := os.Stat(root); err != nil || len(t.Readers) == 0 {
			continue
		}
		roots = append(roots, root)
		for dir := filepath.Dir(root); ; dir = filepath.Dir(dir) {
			if info, err := os.Stat(dir); err == nil {
				if why := cannot(info, t.Readers); why != "" {
					note(dir, why)
				}
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if seen++; seen > treeEntries || ctx.Err() != nil {
				return errEnough
			}
			why := ""
			if d != nil && d.Type()&fs.ModeSymlink == 0 {
				if info, err := d.Info(); err == nil {
					why = cannot(info, t.Readers)
				}
			}
			if why != "" {
				note(path, why)
			}
			if d != nil && d.IsDir() && (why != "" || err != nil) { // err: provostd itself may not look into it
				return fs.SkipDir
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			note(root, "cannot be looked at: "+err.Error())
		}
	}
	if len(roots) == 0 {
		return
	}
	name, below := t.Name+" files", strings.Join(roots, " ")
	if shut > 0 {
		c.add(proto.CheckWarn, name, "if nothing secret is there:\nchmod -R o+rX "+below, "%s below %s cannot be read: %s", count(shut, "file or directory", "files or directories"), below, first)
		return
	}
	text := fmt.Sprintf("%d files below %s can be read", seen, below)
	if seen > treeEntries || ctx.Err() != nil {
		text = fmt.Sprintf("the first %d files below %s can be read; the rest was not looked at", seen, below)
	}
	c.good(name, "%s", text)
}

var errEnough = errors.New("enough was seen")

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// cannot says who may not read a file, or go through a directory, and why; "" if every reader may.
func cannot(info fs.FileInfo, who []servers.Reader) string {
	for _, r := range who {
		if what := r.Lacks(info); what != "" {
			return "has " + servers.Owned(info) + " and lacks " + what + " for " + r.String()
		}
	}
	return ""
}

// tftpLog looks whether in.tftpd, where Debian or SUSE start it, writes down what a missing file looks like.
func (c *checks) tftpLog(s Site) {
	o, ok := servers.ReadOptions(s.TFTPOptions...)
	if !ok || len(s.Evidence) == 0 {
		return
	}
	fix := "add -vv to TFTP_OPTIONS in " + o.File + ", then:\nsystemctl restart " + tftpUnit(o.File)
	switch {
	case o.Verbose == 0:
		c.add(proto.CheckWarn, "TFTP log", fix, "in.tftpd runs without -v: it logs neither requests nor refusals")
	case o.Verbose == 1:
		c.add(proto.CheckWarn, "TFTP log", fix, "in.tftpd runs with -v, not -vv: it does not log refusals, and a file that is missing looks sent")
	default:
		c.good("TFTP log", "in.tftpd logs requests and refusals")
	}
}

func tftpUnit(settings string) string {
	if strings.HasSuffix(settings, "tftpd-hpa") { // Debian
		return "tftpd-hpa"
	}
	return "tftp"
}
