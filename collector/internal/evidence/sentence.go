// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"provost/collector/internal/servers"
)

// Sentence says in one sentence what went wrong. where is what Look found of the file, or empty.
func (o *Observation) Sentence(where string) string {
	f := &o.Fact
	file, reason := or(f.File, "a file"), ""
	if f.Reason != "" && !strings.Contains(f.Reason, "not found") {
		reason = ": " + f.Reason
	}
	missed := ""
	if o.Stage != "" && o.Stage != o.Problem {
		missed = " (" + string(o.Stage) + " missed)"
	}
	if where != "" {
		where = ": " + where
		reason = ""
	}
	server := serverOf(f)
	switch o.Problem {
	case Rogue:
		if o.Rogue == "unknown" {
			return "the node took the offer of a DHCP server that is not ours: look for a second one on its segment"
		}
		return "the node took the offer of " + o.Rogue + ", a DHCP server that is not ours: find it, or name it in evidence.dhcp-servers"
	case NoLeases:
		return "the DHCP server has no address for " + or(f.MAC, "the node") + missed + reason
	case WrongNetwork:
		return "the DHCP server does not serve the network of " + or(f.MAC, "the node") + missed + reason
	case Nak:
		return "the DHCP server refuses " + or(o.Detail, "the address that it asks for") + missed + reason
	case Decline:
		return "the node found its address " + o.Detail + " in use and declined it" + missed
	case NotFound:
		return file + " is not on the " + server + missed + or(where, reason)
	case Forbidden:
		return file + " may not be read by the " + server + missed + or(where, reason)
	case Aborted:
		return "the transfer of " + file + " from the " + server + " was given up" + missed + reason
	}
	return "the " + server + " answered with an error to " + file + missed + reason + where
}

func serverOf(f *Fact) string {
	switch f.Program {
	case ProgDnsmasqTFT, ProgTFTPDHPA, ProgATFTPD:
		return "TFTP server"
	}
	return "web server"
}

// readers are the servers' users that the log may be of; more than one where an access log does not say whose it is.
func readers(f *Fact) []servers.Reader {
	switch f.Program {
	case ProgTFTPDHPA:
		return []servers.Reader{servers.Of(servers.TFTPD)}
	case ProgATFTPD:
		return []servers.Reader{servers.Of(servers.ATFTPD)}
	case ProgDnsmasqTFT:
		return []servers.Reader{servers.Of(servers.Dnsmasq)}
	case ProgApache:
		return []servers.Reader{servers.Of(servers.Apache)}
	case ProgNginx:
		return []servers.Reader{servers.Of(servers.Nginx)}
	}
	if here := servers.Installed(servers.Web()); len(here) > 0 {
		return here
	}
	return []servers.Reader{{}}
}

// lacks says what every one of the readers lacks on a file or directory, and who it is; empty if one may.
func lacks(who []servers.Reader, fi fs.FileInfo) (what string, reader servers.Reader) {
	for _, reader = range who {
		if what = reader.Lacks(fi); what == "" {
			break
		}
	}
	return what, reader
}

// Look says why the file of a problem cannot be sent, from what stands on this machine's disk: which part of its path is
// missing, or which one the server's user may not pass. It is empty if nothing of it is here. Only names, modes and owners
// are looked at, where the server itself says that the file is, or below the roots that are given.
func (o *Observation) Look(tftp, web []string) string {
	roots := web
	if serverOf(&o.Fact) == "TFTP server" {
		roots = tftp
	}
	asked := strings.ReplaceAll(o.Fact.File, `\`, "/")
	name := path.Clean("/" + asked)
	if asked == "" || name == "/" || slices.Contains(strings.Split(asked, "/"), "..") {
		return ""
	}
	if p := o.Fact.Program; p == ProgDnsmasqTFT || p == ProgApache { // they write down their own path
		roots = append([]string{"/"}, roots...)
	}
	who := readers(&o.Fact)
	best, far := "", -1
	for _, root := range roots {
		text, steps, found := walk(filepath.Join(root, name), who)
		if found {
			return text
		}
		depth := strings.Count(strings.TrimSuffix(filepath.Clean(root), "/"), "/")
		if root == "/" && steps == 0 { // the name does not begin at this machine's root
			continue
		}
		if steps-depth > far { // else that root is not here, or another one has more of the path
			best, far = text, steps-depth
		}
	}
	return best
}

// walk goes down a path. steps is how many directories of it are there; found, that all of it is.
func walk(full string, who []servers.Reader) (text string, steps int, found bool) {
	_, err := os.Stat(full)
	found = err == nil
	at := "/"
	parts := strings.Split(strings.Trim(full, "/"), "/")
	for i, name := range parts {
		next := filepath.Join(at, name)
		fi, err := os.Stat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
			return at + " has no " + name + alike(at, name), steps, false
		case errors.Is(err, fs.ErrPermission):
			return "provostd itself may not look into " + at + ": namei -l " + full, steps, false
		case err != nil:
			return next + ": " + unwrapPath(err).Error(), steps, false
		case i == len(parts)-1:
			return verdictOn(next, fi, who), steps, true
		case found && fi.IsDir():
			if what, reader := lacks(who, fi); what != "" {
				return fmt.Sprintf("x is missing on the directory %s, which has %s, for %s: chmod %s %s", next, servers.Owned(fi), reader, what, next), steps, true
			}
		}
		at, steps = next, steps+1
	}
	return "", steps, false
}

func verdictOn(file string, fi fs.FileInfo, who []servers.Reader) string {
	if fi.IsDir() {
		return file + " is a directory"
	}
	what, reader := lacks(who, fi)
	switch {
	case what != "":
		return fmt.Sprintf("%s has %s: %s needs r on it: chmod %s %s", file, servers.Owned(fi), reader, what, file)
	case fi.Size() == 0:
		return file + " is empty"
	}
	return fmt.Sprintf("%s is there now, with %s: is it another root directory, a label of SELinux (restorecon -v %s), or the server's configuration?", file, servers.Owned(fi), file)
}

// alike finds a name in a directory that differs in case only, or that begins with the wanted one or the other way round.
func alike(dir, name string) string {
	d, err := os.Open(dir)
	if err != nil {
		return ""
	}
	defer d.Close()
	names, _ := d.Readdirnames(1000) // as far as it can be read: this is a help, no more
	for _, n := range names {
		if strings.EqualFold(n, name) || len(n) >= 4 && len(name) >= 4 && (strings.HasPrefix(n, name) || strings.HasPrefix(name, n)) {
			return ", but " + n
		}
	}
	return ""
}
