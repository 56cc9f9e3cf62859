// SPDX-License-Identifier: Apache-2.0

package image

import (
	"io/fs"
	"os"
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

const cdNote = "the initrd of a Debian CD looks for the CD: for the network import the unpacked netboot.tar.gz of the same release"

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
			return
		}
	}
}
