// SPDX-License-Identifier: Apache-2.0

package evidence

import "strings"

// match says which part of a path a pattern is compared with. Paths are compared in lower case and with slashes.
type match uint8

const (
	is       match = iota // the last element is the pattern
	begins                // the last element begins with it
	ends                  // the path ends with it
	contains              // the path, with a slash in front, contains it
)

// rule is one row of the table that says which file is which stage.
type rule struct {
	stage    Kind
	how      match
	patterns []string
	loader   bool // only if a boot loader asked for it: installers and people fetch such files for other ends
}

// rules are tried from the top; the first that fits decides. An empty stage: not about booting.
var rules = [...]rule{
	{SLESConfig, ends, below("config"), false},
	{SLESCommon, ends, below("common"), false},
	{SLESRoot, ends, below("root"), false},
	{SLESCracklib, is, []string{"cracklib-dict-full.rpm"}, false},
	{SLESBind, ends, below("bind"), false},
	{SLESImage, is, []string{"sles-stacki.img", "sles.img", "sles11.img", "sles12.img", "sles15.img"}, false},
	{"", ends, []string{".rpm", ".drpm", ".deb", ".udeb", ".html", ".css", ".js", ".png", ".ico", ".lst", ".sig", ".msg", ".hlp", "/updates.img", "/product.img", ".sha256", ".asc", ".gpg"}, false},

	{Answer, contains, []string{"/boot/answer/", "/autoinst/", "/svc/op/ks/", "/svc/op/autoinstall/", "/unattended/provision", "/preseed/", "/kickstart/", "/kickstarts/", "/ks/", "/autoyast/"}, false},
	{Answer, is, []string{"ks.cfg", "ks", "ks.php", "kickstart", "preseed", "preseed.cfg", "preseed.txt", "autoinst.xml", "autoyast.xml", "autoyast", "user-data", "autoinstall.yaml",
		"unattend.xml", "profile.cgi", "agama.json", "config.ign", "config.ign.json"}, false},
	{Answer, ends, []string{".ks", ".ign", ".preseed", ".seed", "-ks.cfg", "_ks.cfg", ".ks.cfg", "preseed.cfg"}, false},
	{Answer, begins, []string{"ks-", "ks_", "autoinst-", "preseed-"}, false},

	{BootScript, contains, []string{"/pxelinux.cfg/", "/svc/op/ipxe/", "/svc/op/gpxe/", "/unattended/ipxe", "/unattended/pxe", "/xcat/xnba/nodes/", "/xcat/xnba/nets/"}, false},
	{BootScript, ends, []string{".ipxe", ".gpxe"}, false},
	{BootScript, begins, []string{"grub.cfg", "boot.cfg", "elilo.conf", "yaboot.conf", "extlinux.conf", "boot.php", "boot.ipxe", "ipxe.php", "grub.conf"}, false},
	{BootScript, is, []string{"ipxe", "boot-script", "bootscript"}, true},

	{Image, contains, []string{"/liveos/"}, false},
	{Image, ends, []string{".squashfs", ".sqfs", ".iso", ".wim", ".qcow2", ".raw", ".raw.gz", ".raw.xz", ".raw.zst", "squashfs.img"}, false},
	{Image, begins, []string{"install.img", "stage2", "minstg2", "netstg2", "rootfs", "rootimg", "filesystem.", "root.squash"}, false},

	{Initrd, begins, []string{"initrd", "initramfs", "ramdisk", "overlay"}, false},
	{Initrd, contains, []string{"initrd", "initramfs"}, false},
	{Kernel, begins, []string{"vmlinuz", "vmlinux", "bzimage", "kernel", "zimage"}, false},
	{Kernel, is, []string{"linux", "linux26", "linux64", "linux.efi", "linux32", "image.gz", "install.arm64"}, false},
	{Kernel, contains, []string{"vmlinuz"}, false},
	{Kernel, begins, []string{"linux-", "linux_"}, true},

	{BootLoader, begins, []string{"pxelinux", "lpxelinux", "gpxelinux", "undionly", "ipxe", "snponly", "snp.", "grub", "shim", "bootx64", "bootaa64", "bootia32", "syslinux", "memdisk", "elilo", "yaboot",
		"xnba", "wdsnbp", "bootmgr", "mboot", "core.", "xen"}, true},
	{BootLoader, ends, []string{".efi", ".kpxe", ".kkpxe", ".kkkpxe", ".pxe", ".c32", ".0", ".lkrn", ".nbp", ".n12"}, false},

	{Initrd, ends, []string{".img", ".img.gz", ".img.xz", ".img.zst", ".cpio", ".cpio.gz", ".cpio.xz", ".cpio.zst", ".cgz"}, true},
	{Image, ends, []string{".img", ".img.gz", ".img.xz", ".img.zst"}, false},
}

// below gives the paths of a file of SLES's installation system, which is in boot/ARCHITECTURE of its medium.
func below(name string) []string {
	var out []string
	for _, arch := range []string{"x86_64", "i386", "aarch64", "ppc64le", "s390x"} {
		out = append(out, "/boot/"+arch+"/"+name)
	}
	return out
}

// optional are the files that clients ask for on the chance that they are there. That one is missing is no fault.
var optional = []rule{
	{"", contains, []string{"/pxelinux.cfg/", "/grub.cfg-", "x86_64-efi/", "i386-pc/", "/media.1/"}, false},
	{"", ends, []string{".sig", ".lst", ".mod", ".treeinfo", "/treeinfo", ".discinfo", "/favicon.ico", "/robots.txt"}, false},
	{"", is, []string{"autoexec.ipxe", "updates.img", "product.img", "revocations.efi", "revocations_sbat.efi", "revocations_sku.efi", "vendor-data", "meta-data", "network-config", "boot.msg", "f1.msg", "splash.png",
		"driverupdate", "control.xml", "y2update.tgz", "images.conf", "info", "content", "ldlinux.e64", "bootx64.efi.sig"}, false},
	{"", begins, []string{"shim_certificate"}, false},
}

func (r *rule) fits(path, base string, loader bool) bool {
	if r.loader && !loader {
		return false
	}
	if base == "" && (r.how == is || r.how == begins) {
		return false
	}
	// One byte decides nearly always, and is compared before the call.
	switch r.how {
	case is:
		for _, p := range r.patterns {
			if len(p) == len(base) && p[0] == base[0] && p == base {
				return true
			}
		}
	case begins:
		for _, p := range r.patterns {
			if p[0] == base[0] && strings.HasPrefix(base, p) {
				return true
			}
		}
	case ends:
		last := path[len(path)-1]
		for _, p := range r.patterns {
			if p[len(p)-1] == last && strings.HasSuffix(path, p) {
				return true
			}
		}
	case contains:
		for _, p := range r.patterns {
			if len(p) <= len(path) && strings.Contains(path, p) {
				return true
			}
		}
	}
	return false
}

// plain brings a path into the form that the rules are written in.
func plain(file string) (path, base string) {
	path = file
	for i := range len(path) {
		if c := path[i]; 'A' <= c && c <= 'Z' || c == '\\' {
			path = strings.ToLower(strings.ReplaceAll(path, `\`, "/"))
			break
		}
	}
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	return path, path[strings.LastIndexByte(path, '/')+1:]
}

// StageOf says which milestone it is that a file is sent: the empty Kind for none. loader says that a boot loader or
// the firmware asks, not the installer.
func StageOf(file string, loader bool) Kind {
	path, base := plain(file)
	if i := strings.LastIndex(path, "/boot/"); i >= 0 {
		if _, ok := mac(strings.TrimPrefix(path[i+len("/boot/"):], "01-")); ok {
			return BootScript
		}
	}
	for i := range rules {
		if rules[i].fits(path, base, loader) {
			return rules[i].stage
		}
	}
	return ""
}

// Optional reports whether a file is one that clients look for and do without.
func Optional(file string) bool {
	path, base := plain(file)
	for i := range optional {
		if optional[i].fits(path, base, true) {
			return true
		}
	}
	return false
}

// macIn finds a MAC address that stands by itself in a path or query, also in PXELINUX's form with the hardware type 01
// in front.
func macIn(s string) string {
	if _, after, ok := strings.Cut(s, "grub.cfg-"); ok { // the dash is none of the address
		s = after
	}
	for i := 0; i+17 <= len(s); i++ {
		if c := s[i+2]; c != ':' && c != '-' || i > 0 && (hexDigit(s[i-1]) || s[i-1] == s[i+2]) {
			continue
		}
		m, ok := macAt(s[i:])
		if !ok {
			continue
		}
		end := i + 17
		if end+3 <= len(s) && s[end] == s[i+2] && hexDigit(s[end+1]) && hexDigit(s[end+2]) {
			if !strings.HasPrefix(m, "01:") && !strings.HasPrefix(m, "20:") {
				continue
			}
			if m, ok = macAt(s[i+3:]); !ok {
				continue
			}
			end += 3
		}
		if end < len(s) && (hexDigit(s[end]) || s[end] == s[i+2] && end+1 < len(s) && hexDigit(s[end+1])) {
			continue
		}
		return m
	}
	return ""
}
