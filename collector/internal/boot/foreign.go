// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"

	"provost/collector/internal/profile"
	"provost/proto"
)

// foreign writes the script for a system that is no Linux: iPXE loads its own boot loader. No agent runs there, so the script
// has no claim.
func (s *server) foreign(to dialect, d Decision, r Request) (string, error) {
	if d.Action != proto.BootInstall {
		return "", fmt.Errorf("loader %s: it can be installed, and nothing else: %s is for Linux", d.Loader, d.Action)
	}
	f, ok := to.(ipxe)
	if !ok {
		return "", fmt.Errorf("loader %s: iPXE alone loads it: boot this machine by iPXE", d.Loader)
	}
	if err := errors.Join(proto.CheckNode(d.Node), checkTickets(d)); err != nil {
		return "", err
	}
	args, err := argWords(d.Args)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("#!ipxe")
	line("echo Provost: %s", echoText(fmt.Sprintf("installing %s, attempt %d", d.Node, d.Attempt)))
	line("imgfree")
	switch d.Loader {
	case profile.LoaderESXi:
		err = esxi(line, d, r)
	case profile.LoaderWinPE:
		err = winpe(line, d, r, args)
	default:
		err = fmt.Errorf("there is no loader %q", d.Loader)
	}
	if err != nil {
		return "", err
	}
	f.tail(line, d.Attempt)
	return b.String(), nil
}

func checkTickets(d Decision) error {
	if !proto.ValidID(d.Install) || !secretRE.MatchString(d.Ticket) {
		return errors.New("the install or the ticket is not sound")
	}
	return nil
}

// esxi loads mboot, VMware's boot loader: mboot.c32 needs an iPXE with COMBOOT, and efi/boot/bootx64.efi is the same for
// UEFI. Both take -c and the URL of a boot.cfg, and further words for the kernel; BOOTIF names the card to install by.
func esxi(line func(string, ...any), d Decision, r Request) error {
	dir, err := esxiDir(d.Kernel)
	if err != nil {
		return err
	}
	url := r.TicketImages(d.Ticket) + "/" + dir
	words := "-c http://" + r.Host + "/boot/esxi/" + d.Install + "/" + d.Ticket + "/boot.cfg BOOTIF=01-" + strings.ReplaceAll(r.MAC, ":", "-")
	if err := checkURL(url); err != nil {
		return err
	}
	line("iseq ${platform} efi && goto efi ||")
	line("kernel %s/mboot.c32 %s || goto fail", url, words)
	line("boot || goto fail")
	line(":efi")
	line("kernel %s/efi/boot/bootx64.efi %s || goto fail", url, words)
	line("boot || goto fail")
	return nil
}

// esxiDir is where the files of a boot.cfg are, below the images directory.
func esxiDir(kernel string) (string, error) {
	name, ok := strings.CutPrefix(kernel, "images/")
	dir := path.Dir(name)
	if !ok || path.Clean(kernel) != kernel || dir == "." || !strings.EqualFold(path.Base(name), "boot.cfg") {
		return "", fmt.Errorf("kernel %q: loader esxi wants the boot.cfg of an unpacked ISO, like images/esxi8/boot.cfg", kernel)
	}
	return dir, nil
}

var winpeNameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// winpe loads wimboot with the files of Windows PE. It finds bootmgr, bcd, boot.sdi and boot.wim by name, in any case, and
// puts all others into X:\Windows\System32 (https://ipxe.org/wimboot). The name stands twice: UEFI reads the first, BIOS the
// second.
func winpe(line func(string, ...any), d Decision, r Request, args []string) error {
	kernel, err := imageURL(d.Kernel, d.Ticket, r)
	if err != nil {
		return err
	}
	line("kernel %s || goto fail", strings.Join(append([]string{kernel}, args...), " "))
	seen := map[string]bool{}
	file := func(name, url string) error {
		if !winpeNameRE.MatchString(name) || seen[strings.ToLower(name)] {
			return fmt.Errorf("initrd %q: Windows PE takes files by the last part of their names: each once, of letters, digits and ._-", name)
		}
		seen[strings.ToLower(name)] = true
		line("initrd --name %s %s %s || goto fail", name, url, name)
		return nil
	}
	var errs []error
	for _, name := range d.Initrds {
		u, err := imageURL(name, d.Ticket, r)
		errs = append(errs, err, file(path.Base(name), u))
	}
	for _, name := range d.Injected {
		errs = append(errs, file(name, r.Answer(d.Install, d.Ticket, name)))
	}
	line("boot || goto fail")
	return errors.Join(errs...)
}

// serveBootCfg sends ESXi's boot.cfg for an attempt: the ISO's own with another prefix and the profile's arguments.
func (s *server) serveBootCfg(w *boundedWriter, r *http.Request, rest string) {
	parts := strings.Split(rest, "/")
	if len(parts) != 3 || !proto.ValidID(parts[0]) || !secretRE.MatchString(parts[1]) || parts[2] != "boot.cfg" {
		s.text(w, http.StatusNotFound, "there is no such boot.cfg\n")
		return
	}
	req := s.request(r)
	d, err := s.decider.Loading(r.Context(), req, parts[0], parts[1])
	var text string
	if err == nil {
		text, err = s.bootCfg(d, req)
	}
	if err != nil {
		s.refuse(w, err, "boot.cfg", "install", parts[0], "remote", r.RemoteAddr)
		return
	}
	s.text(w, http.StatusOK, text)
	if r.Method == http.MethodGet {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), sentTimeout)
		defer cancel()
		s.decider.Sent(ctx, d.Ticket, d.Kernel, !w.failed) // mboot runs: the kernel's own files are below it
	}
}

// maxBootCfg bounds a boot.cfg: those of ESXi 8 have 3 KiB.
const maxBootCfg = 64 << 10

// bootCfg makes it. Its format is in VMware's esx-boot, mboot/config.c: lines KEY=VALUE, files separated by " --- ".
func (s *server) bootCfg(d Decision, r Request) (string, error) {
	if d.Loader != profile.LoaderESXi {
		return "", proto.NewProblem(http.StatusNotFound, proto.CodeNotFound, "this machine does not boot ESXi", "")
	}
	dir, err := esxiDir(d.Kernel)
	if err != nil {
		return "", err
	}
	args, err := argWords(d.Args)
	if err != nil {
		return "", err
	}
	f, _, err := s.openImage(strings.TrimPrefix(d.Kernel, "images/"))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", d.Kernel, err)
	}
	defer f.Close()
	own, err := io.ReadAll(io.LimitReader(f, maxBootCfg+1))
	if err != nil || len(own) > maxBootCfg {
		return "", fmt.Errorf("reading %s: %w", d.Kernel, cmp.Or(err, errors.New("it is too large for a boot.cfg")))
	}
	var out []string
	kernelopt := []string{}
	for l := range strings.Lines(string(own)) {
		l = strings.TrimSpace(l)
		key, value, _ := strings.Cut(l, "=")
		switch key {
		case "prefix":
			continue
		case "kernelopt":
			for _, w := range strings.Fields(value) {
				if w != "cdromBoot" && !strings.HasPrefix(w, "ks=") {
					kernelopt = append(kernelopt, w)
				}
			}
			continue
		case "kernel", "modules":
			files := strings.Split(value, "---")
			for i, name := range files {
				if files[i], err = s.esxiFile(dir, strings.TrimLeft(strings.TrimSpace(name), "/")); err != nil {
					return "", fmt.Errorf("reading %s, line %s: %w", d.Kernel, key, err)
				}
			}
			l = key + "=" + strings.Join(files, " --- ")
		}
		out = append(out, l)
	}
	out = append(out, "prefix="+r.TicketImages(d.Ticket)+"/"+dir, "kernelopt="+strings.Join(append(kernelopt, args...), " "))
	return strings.Join(out, "\n") + "\n", nil
}

// esxiFile is a file as it is called on this disk. An ISO has no lower case, and programs that unpack one differ.
func (s *server) esxiFile(dir, name string) (string, error) {
	for _, n := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
		f, _, err := s.openImage(dir + "/" + n)
		if err == nil {
			return n, f.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("there is no file %q in images/%s", name, dir)
}
