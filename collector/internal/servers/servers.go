// SPDX-License-Identifier: Apache-2.0

// Package servers is what is known of the TFTP and web servers of other makers that a frontend may run: as which users
// they read files, and so which of them they may send. It looks at names, modes and owners only. It must never change
// anything, nor say that a server may read a file which it did not look at. Access lists and SELinux are not looked at.
package servers

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
)

// Server is one maker's.
type Server struct {
	Name     string
	Programs []string // it is installed where one of these is there
	Users    []string // as which it runs: the first that is there
	// World: it sends only what everybody may read, whatever its own user may.
	World bool
}

// The servers' names.
const (
	TFTPD   = "in.tftpd"
	ATFTPD  = "atftpd"
	Dnsmasq = "dnsmasq"
	Apache  = "apache"
	Nginx   = "nginx"
)

// TFTP are the TFTP servers. in.tftpd without -p wants o+r on every file (tftpd/tftpd.c, validate_access).
func TFTP() []Server {
	options, _ := ReadOptions(OptionFiles()...)
	return []Server{
		{TFTPD, []string{"/usr/sbin/in.tftpd"}, []string{"tftp", "nobody"}, !options.Permissive},
		{ATFTPD, []string{"/usr/sbin/atftpd", "/usr/sbin/in.atftpd"}, []string{"nobody"}, false},
		{Dnsmasq, []string{"/usr/sbin/dnsmasq"}, []string{"dnsmasq", "nobody"}, false},
	}
}

// Web are the web servers.
func Web() []Server {
	return []Server{
		{Apache, []string{"/usr/sbin/httpd", "/usr/sbin/apache2", "/usr/sbin/httpd-prefork"}, []string{"apache", "www-data", "wwwrun", "http"}, false},
		{Nginx, []string{"/usr/sbin/nginx"}, []string{"nginx", "www-data", "http"}, false},
		{"lighttpd", []string{"/usr/sbin/lighttpd"}, []string{"lighttpd", "www-data"}, false},
		{"caddy", []string{"/usr/bin/caddy"}, []string{"caddy"}, false},
	}
}

// Reader is a server's user on this machine. The zero Reader is a user who owns nothing and is in no group.
type Reader struct {
	server string
	name   string
	uid    uint32
	gids   []uint32
	known  bool
	world  bool
}

// String names a reader for people.
func (r Reader) String() string {
	switch {
	case r.server == "":
		return "the server's user"
	case !r.known:
		return r.server
	}
	return r.server + " (user " + r.name + ")"
}

// Installed gives the readers of the servers that are installed here.
func Installed(all []Server) []Reader {
	var out []Reader
	for _, s := range all {
		if slices.ContainsFunc(s.Programs, there) {
			out = append(out, s.reader())
		}
	}
	return out
}

// Of gives the reader of a server by its name, also of one that is not installed here: its log is.
func Of(name string) Reader {
	for _, s := range append(TFTP(), Web()...) {
		if s.Name == name {
			return s.reader()
		}
	}
	return Reader{}
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (s Server) reader() Reader {
	r := Reader{server: s.Name, world: s.World}
	for _, name := range s.Users {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			continue
		}
		r.name, r.uid, r.known = name, uint32(uid), true
		ids, err := u.GroupIds()
		if err != nil {
			ids = []string{u.Gid}
		}
		for _, id := range ids {
			if n, err := strconv.ParseUint(id, 10, 32); err == nil {
				r.gids = append(r.gids, uint32(n))
			}
		}
		break
	}
	return r
}

// Lacks says what a reader lacks to read a file, or to go through a directory, in chmod's words: "o+r", "g+x"; empty if
// it may. The kernel asks the first class alone that fits: owner, group, others (path_resolution(7)).
func (r Reader) Lacks(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	want, what := fs.FileMode(4), "r"
	if info.IsDir() {
		want, what = 1, "x"
	}
	mode, class, shift := info.Mode().Perm(), "o", 0
	switch {
	case r.world && !info.IsDir():
	case r.known && r.uid == 0:
		return ""
	case r.known && r.uid == st.Uid:
		class, shift = "u", 6
	case r.known && slices.Contains(r.gids, st.Gid):
		class, shift = "g", 3
	}
	if mode>>shift&want != 0 {
		return ""
	}
	return class + "+" + what
}

// Owned writes a file's mode and owner.
func Owned(info fs.FileInfo) string {
	owner := ""
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		uid, gid := strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
		if u, err := user.LookupId(uid); err == nil {
			uid = u.Username
		}
		if g, err := user.LookupGroupId(gid); err == nil {
			gid = g.Name
		}
		owner = " and the owner " + uid + ":" + gid
	}
	return fmt.Sprintf("mode %04o%s", info.Mode().Perm(), owner)
}
