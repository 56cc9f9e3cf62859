// SPDX-License-Identifier: Apache-2.0

package image

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// layouts are where the distributions keep the kernel and initrd for the network, by preference.
var layouts = []struct{ family, kernel, initrd, note string }{
	{"redhat", "images/pxeboot/vmlinuz", "images/pxeboot/initrd.img", ""},
	{"suse", "boot/x86_64/loader/linux", "boot/x86_64/loader/initrd", ""},
	{"suse", "boot/aarch64/linux", "boot/aarch64/initrd", ""},
	{"ubuntu", "casper/vmlinuz", "casper/initrd", ""},
	{"ubuntu", "casper/vmlinuz", "casper/initrd.gz", ""},
	{"debian", "install.amd/netboot/vmlinuz", "install.amd/netboot/initrd.gz", ""},
	{"debian", "install.amd/netboot/debian-installer/amd64/linux", "install.amd/netboot/debian-installer/amd64/initrd.gz", ""},
	{"debian", "debian-installer/amd64/linux", "debian-installer/amd64/initrd.gz", ""},
	{"debian", "debian-installer/arm64/linux", "debian-installer/arm64/initrd.gz", ""},
	{"debian", "install.amd/vmlinuz", "install.amd/initrd.gz", cdNote},
	{"debian", "install.a64/vmlinuz", "install.a64/initrd.gz", cdNote},
}

// profiles are what a profile of each family says beside kernel and initrd; args get the name of the image. What casper boots
// from it fetches as one ISO image, and cloud-init must not take the same url= for its own (cloud-config-url).
var profiles = map[string]struct{ answer, args string }{
	"redhat": {"kickstart-el9.tmpl", "inst.repo={{ .Images }}/%s inst.ks={{ .Answer }}"},
	"suse":   {"autoyast-sles15.tmpl", "install={{ .Images }}/%s autoyast={{ .Answer }}"},
	"debian": {"preseed-debian.tmpl", "auto=true priority=critical url={{ .Answer }}"},
	"ubuntu": {"autoinstall-ubuntu.tmpl", "ip=dhcp url={{ .Images }}/%s/" + isoName + " cloud-config-url=/dev/null autoinstall ds=nocloud-net;s={{ .Answer }}"},
}

const (
	isoName   = "install.iso" // of an image that is kept in its tree
	isoFamily = "ubuntu"      // the one that needs it
	isoNote   = "the live system fetches an ISO image, which a directory is not: import the ISO image itself"
)

const cdNote = "the initrd of a Debian CD looks for the CD: for the network import the unpacked netboot.tar.gz of the same release"

// treeinfoRE is the release in .treeinfo, which has it once or twice: "version = 9.6".
var treeinfoRE = regexp.MustCompile(`(?m)^version *= *(7|8|9|10)(\.|$)`)

// kickstart is the template of the release that .treeinfo tells, or another one if it tells none that has one.
func kickstart(treeinfo, otherwise string) string {
	f, err := os.Open(treeinfo)
	if err != nil {
		return otherwise
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10)) // it has some 5 KB
	m := treeinfoRE.FindSubmatch(b)
	if err != nil || m == nil {
		return otherwise
	}
	return "kickstart-el" + string(m[1]) + ".tmpl"
}

// find looks for them, in any case of letters: images without Rock Ridge have capitals.
func (r *Result) find(dir, name string) {
	byLower := map[string]string{}
	fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error { // what cannot be read is not found
		if err == nil && d.Type().IsRegular() {
			byLower[strings.ToLower(path)] = path
		}
		return nil
	})
	for _, l := range layouts {
		kernel, initrd := byLower[l.kernel], byLower[l.initrd]
		if kernel != "" && initrd != "" {
			prefix := "images/" + name + "/"
			r.Family, r.Kernel, r.Initrd, r.Note = l.family, prefix+kernel, prefix+initrd, l.note
			p := profiles[l.family]
			r.Answer, r.Args = p.answer, strings.ReplaceAll(p.args, "%s", name)
			if l.family == "redhat" {
				r.Answer = kickstart(filepath.Join(dir, byLower[".treeinfo"]), p.answer)
			}
			return
		}
	}
}
