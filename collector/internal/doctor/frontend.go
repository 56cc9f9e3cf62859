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
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// Tree is what a server of files that is not ours gives to nodes.
type Tree struct {
	Name  string   // "TFTP", "web"
	Roots []string // directories; one that is not there is passed over
	Users []string // under which such servers run; one that is not there is passed over
}

const (
	// treeEntries and treeTime bound the look at a tree: a mirror of a distribution may lie below it.
	treeEntries = 20000
	treeTime    = 2 * time.Second
)

// clock looks whether something keeps this machine's time (adjtimex(2)): deadlines, and the times in every status, rest
// on it.
func (c *checks) clock(s Site) {
	if s.Clock == nil {
		return
	}
	kept, err := s.Clock()
	switch {
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

// tree looks whether the servers' users may read what lies there: a file with mode 0600 is the most common reason why a
// node gets no kernel or answer file.
func (c *checks) tree(ctx context.Context, t Tree) {
	var who []reader
	for _, name := range t.Users {
		if r, err := lookUp(name); err == nil {
			who = append(who, r)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, treeTime)
	defer cancel()
	seen, shut := 0, 0
	first, roots := "", []string{}
	for _, root := range t.Roots {
		if _, err := os.Stat(root); err != nil || len(who) == 0 {
			continue
		}
		roots = append(roots, root)
		for dir := filepath.Dir(root); ; dir = filepath.Dir(dir) {
			if info, err := os.Stat(dir); err == nil && first == "" && cannot(info, who) != "" {
				shut, first = shut+1, dir+" "+cannot(info, who)
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
					why = cannot(info, who)
				}
			}
			if why == "" && err != nil && d != nil && d.IsDir() {
				return fs.SkipDir // provostd itself may not look into it
			}
			if why == "" {
				return nil
			}
			if shut++; first == "" {
				first = path + " " + why
			}
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			shut++
		}
	}
	if len(roots) == 0 {
		return
	}
	name := t.Name + " files"
	if shut > 0 {
		names := make([]string, len(who))
		for i, r := range who {
			names[i] = r.name
		}
		c.add(proto.CheckWarn, name, "chmod -R o+rX "+strings.Join(roots, " ")+", if nothing secret is there",
			"%d of the files below %s cannot be read by %s: %s", shut, strings.Join(roots, " "), strings.Join(names, " or "), first)
		return
	}
	text := fmt.Sprintf("%d files below %s can be read", seen, strings.Join(roots, " "))
	if seen > treeEntries || ctx.Err() != nil {
		text = fmt.Sprintf("the first %d files below %s can be read; the rest was not looked at", seen, strings.Join(roots, " "))
	}
	c.good(name, "%s", text)
}

var errEnough = errors.New("enough was seen")

// reader is a user of this machine with its groups.
type reader struct {
	name string
	uid  uint32
	gids []uint32
}

func lookUp(name string) (reader, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return reader{}, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return reader{}, err
	}
	r := reader{name: name, uid: uint32(uid)}
	ids, err := u.GroupIds()
	if err != nil {
		ids = []string{u.Gid}
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			r.gids = append(r.gids, uint32(n))
		}
	}
	return r, nil
}

// cannot says why none of the users can read a file, or go through a directory; "" if one can. Access lists are not
// looked at.
func cannot(info fs.FileInfo, who []reader) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	want, what := fs.FileMode(4), "r"
	if info.IsDir() {
		want, what = 1, "x"
	}
	mode := info.Mode().Perm()
	for _, r := range who {
		shift := 0
		switch {
		case r.uid == 0:
			return ""
		case r.uid == st.Uid:
			shift = 6
		case slices.Contains(r.gids, st.Gid):
			shift = 3
		}
		if mode>>shift&want != 0 {
			return ""
		}
	}
	return fmt.Sprintf("has mode %04o and lacks %s for them", mode, what)
}
