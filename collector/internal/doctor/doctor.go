// SPDX-License-Identifier: Apache-2.0

// Package doctor looks at the frontend: at what the collector needs to work, and at what a node needs of it to be
// installed. It must never change anything, wait without a bound, or say that something is good which it did not look at.
// What is to be typed stands in lines of its own, so that it can be copied from a terminal.
package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"provost/proto"
)

// Profiles is what is asked of the site's profiles.
type Profiles interface {
	Names() []string
	Info(name string) (proto.ProfileInfo, bool)
}

// Site is what is looked at. A nil function is not asked.
type Site struct {
	Data, Images, Overlay string // directory, directory, file
	Profiles              Profiles
	Warnings              func() []string // that every status shows
	Database              func() error    // why it takes nothing
	Logs                  func() (used, quota int64)
	Certificates          []*x509.Certificate // of the server and the CA
	Listeners             []Listener
	Now                   time.Time
	Evidence              []Log
	Syslog                string // where syslog is received by TCP, HOST:PORT; empty if it is not
	Rogues                []Rogue
	Clock                 func() (kept bool, err error) // KernelClock
	Signs                 []Sign                        // that the clock is kept, where the kernel may not be asked
	Addresses             func() ([]net.Addr, error)    // of this machine
	Advertise             []string                      // as the settings have it
	Trees                 []Tree
	Sockets               func() ([]Socket, error) // Sockets
	TFTPOptions           []string                 // files with the options of in.tftpd
	Looks                 *Looks                   // shared by all calls; nil: of this call alone
}

// Listener is a place where the collector answers.
type Listener struct {
	Name string // what for
	Addr net.Addr
}

// The bounds of what is found good enough.
const (
	dialLimit = time.Second // to connect to one of the collector's own listeners
	// lowDisk leaves room for some hours of a cluster's logs, badDisk for the database's next commits.
	lowDisk, badDisk = 10 << 30, 1 << 30
	// soonOver is long enough for somebody to notice; the collector has made its own certificate anew long before.
	soonOver = 14 * 24 * time.Hour
)

// Check looks at everything, at the same time, and returns after lookLimit and a bit at most.
func Check(ctx context.Context, s Site) []proto.Check {
	if s.Looks == nil {
		s.Looks = &Looks{}
	}
	parts := []func(*checks){
		func(c *checks) { c.database(s) },
		func(c *checks) { c.warnings(s) },
		func(c *checks) {
			c.look(ctx, s.Looks, "disk of the data", s.Data, func(c *checks) { c.disk("disk of the data", s.Data, true) })
		},
		func(c *checks) {
			c.look(ctx, s.Looks, "disk of the images", s.Images, func(c *checks) { c.disk("disk of the images", s.Images, s.needsImages()) })
		},
		func(c *checks) { c.logs(s) },
		func(c *checks) { c.certificates(s) },
		func(c *checks) { c.look(ctx, s.Looks, "time", "/run", func(c *checks) { c.clock(s) }) },
		func(c *checks) { c.addresses(s) },
	}
	for _, l := range s.Listeners {
		parts = append(parts, func(c *checks) { c.listener(ctx, l) })
	}
	parts = append(parts,
		func(c *checks) { c.services(s) },
		func(c *checks) { c.look(ctx, s.Looks, "profiles", s.Images, func(c *checks) { c.profiles(s) }) },
	)
	for _, t := range s.Trees {
		name := t.Name + " files"
		parts = append(parts, func(c *checks) {
			c.look(ctx, s.Looks, name, strings.Join(t.Roots, " "), func(c *checks) { c.tree(ctx, t) })
		})
	}
	for _, l := range s.Evidence {
		parts = append(parts, func(c *checks) {
			c.look(ctx, s.Looks, "log "+l.Name, or(l.Path, l.Name), func(c *checks) { c.log(&l, s.Syslog) })
		})
	}
	parts = append(parts,
		func(c *checks) { c.look(ctx, s.Looks, "TFTP log", "/etc", func(c *checks) { c.tftpLog(s) }) },
		func(c *checks) { c.rogues(s) },
	)
	found := make([]checks, len(parts))
	var all sync.WaitGroup
	for i, part := range parts {
		all.Go(func() { part(&found[i]) })
	}
	all.Wait()
	return slices.Concat(found...)
}

type checks []proto.Check

func (c *checks) good(name, format string, args ...any) {
	*c = append(*c, proto.Check{Name: name, State: proto.CheckGood, Detail: fmt.Sprintf(format, args...)})
}

func (c *checks) add(state, name, fix, format string, args ...any) {
	*c = append(*c, proto.Check{Name: name, State: state, Detail: fmt.Sprintf(format, args...), Fix: fix})
}

func (c *checks) database(s Site) {
	if s.Database == nil {
		return
	}
	if err := s.Database(); err != nil {
		c.add(proto.CheckBad, "database", "look at the disk (df -h, dmesg): the collector tries again by itself", "%v", err)
		return
	}
	c.good("database", "it takes what it is given")
}

func (c *checks) warnings(s Site) {
	if s.Warnings == nil {
		return
	}
	for _, w := range s.Warnings() {
		c.add(proto.CheckWarn, "warning", "mend what it names; a profile counts after: provost reload\nprovostd.yaml counts after: systemctl restart provostd", "%s", w)
	}
}

// needsImages reports whether a profile names a file of the images directory.
func (s Site) needsImages() bool {
	if s.Profiles == nil {
		return false
	}
	return slices.ContainsFunc(s.Profiles.Names(), func(name string) bool {
		p, _ := s.Profiles.Info(name)
		return slices.ContainsFunc(append([]string{p.Kernel}, p.Initrds...), func(f string) bool { return strings.HasPrefix(f, "images/") })
	})
}

func (c *checks) disk(name, dir string, needed bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		state := proto.CheckWarn
		if needed {
			state = proto.CheckBad
		}
		c.add(state, name, "mkdir -p "+dir+"\nor name another directory in provostd.yaml, then:\nsystemctl restart provostd", "%s: %v", dir, err)
		return
	}
	free, all := int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
	detail := fmt.Sprintf("%s of %s free at %s", size(free), size(all), dir)
	fix := "make room: du -xh --max-depth=1 " + dir + " | sort -h"
	switch {
	case all > 0 && free < min(badDisk, all/20):
		c.add(proto.CheckBad, name, fix, "%s", detail)
	case all > 0 && free < min(lowDisk, all/10):
		c.add(proto.CheckWarn, name, fix, "%s", detail)
	default:
		c.good(name, "%s", detail)
	}
}

func (c *checks) logs(s Site) {
	if s.Logs == nil {
		return
	}
	used, quota := s.Logs()
	const fix = "remove nodes that are gone, or set a greater retention.log-quota in\nprovostd.yaml, then: systemctl restart provostd"
	switch {
	case quota <= 0:
		c.good("logs", "%s, without a quota", size(used))
	case used >= quota:
		c.add(proto.CheckBad, "logs", fix, "%s of a quota of %s: no more are taken", size(used), size(quota))
	case used > quota/10*9:
		c.add(proto.CheckWarn, "logs", fix, "%s of a quota of %s", size(used), size(quota))
	default:
		c.good("logs", "%s of a quota of %s", size(used), size(quota))
	}
}

func (c *checks) certificates(s Site) {
	for _, cert := range s.Certificates {
		name, fix := "certificate", "provostd makes a new one by itself, and could not; its log says why:\njournalctl -u provostd | grep 'looking at the CA'"
		if cert.IsCA {
			name, fix = "certificate of the CA", "provostd ca rotate makes a new one; the old one counts for 30 days more"
		}
		left := cert.NotAfter.Sub(s.Now)
		detail := fmt.Sprintf("good until %s, in %d days", cert.NotAfter.Format(time.DateOnly), int(left/(24*time.Hour)))
		switch {
		case left <= 0:
			c.add(proto.CheckBad, name, fix, "it ended on %s", cert.NotAfter.Format(time.DateOnly))
		case s.Now.Before(cert.NotBefore):
			c.add(proto.CheckBad, name, "set the clock of the frontend: timedatectl", "it begins on %s, and today is %s", cert.NotBefore.Format(time.DateOnly), s.Now.Format(time.DateOnly))
		case left < soonOver:
			c.add(proto.CheckWarn, name, fix, "%s", detail)
		default:
			c.good(name, "%s", detail)
		}
	}
}

func (c *checks) listener(ctx context.Context, l Listener) {
	network, addr := l.Addr.Network(), l.Addr.String()
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		c.add(proto.CheckBad, l.Name, "systemctl restart provostd", "nobody answers at %s: %v", addr, err)
		return
	}
	conn.Close()
	if t, ok := l.Addr.(*net.TCPAddr); ok && t.IP.IsLoopback() {
		c.add(proto.CheckWarn, l.Name, "set listen and boot-listen in provostd.yaml to :8440 and :8480, then:\nsystemctl restart provostd", "%s answers, and no node can reach it there", addr)
		return
	}
	c.good(l.Name, "%s answers", addr)
}

// profiles looks at the files that the boot server would send.
func (c *checks) profiles(s Site) {
	if s.Profiles == nil {
		return
	}
	names := slices.Sorted(slices.Values(s.Profiles.Names()))
	overlay := false
	for _, name := range names {
		p, ok := s.Profiles.Info(name)
		if !ok {
			continue
		}
		bad, unseen := "", 0
		for _, f := range append([]string{p.Kernel}, p.Initrds...) {
			path, local := strings.CutPrefix(f, "images/")
			switch {
			case f == "":
				continue
			case f == "overlay":
				overlay = true
				continue
			case !local:
				unseen++
				continue
			}
			if err := readable(filepath.Join(s.Images, filepath.FromSlash(path))); err != nil && bad == "" {
				bad = fmt.Sprintf("%s: %v", f, err)
			}
		}
		switch {
		case bad != "":
			c.add(proto.CheckBad, "profile "+name, "put the installer's kernel and initrd below "+s.Images+", readable for provostd", "%s", bad)
		case p.Kernel == "":
			c.good("profile "+name, "the site boots its nodes by itself")
		case unseen > 0:
			c.good("profile "+name, "kernel and initrds are there, but for %d on another server, which was not asked", unseen)
		default:
			c.good("profile "+name, "kernel and initrds are there")
		}
	}
	if len(names) == 0 {
		c.add(proto.CheckWarn, "profiles", "write one into the directory profiles below dirs.config", "there is no profile: nothing can be installed")
	}
	if err := readable(s.Overlay); err == nil {
		c.good("overlay", "%s", s.Overlay)
	} else if overlay {
		c.add(proto.CheckBad, "overlay", "make it: mkinitrd --agent AGENT -o "+s.Overlay+"\nor name another file by overlay in provostd.yaml, then:\nsystemctl restart provostd", "%s: %v", s.Overlay, err)
	} else {
		c.add(proto.CheckWarn, "overlay", "before a profile names it: mkinitrd --agent AGENT -o "+s.Overlay, "%s: %v", s.Overlay, err)
	}
}

// readable says why a file cannot be sent, without its path.
func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return pe.Err
		}
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("it is no file")
	case info.Size() == 0:
		return errors.New("it is empty")
	}
	return nil
}

func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, u := float64(max(n, 0)), 0
	for f >= 1024 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	return fmt.Sprintf("%.4g %s", f, units[u])
}
