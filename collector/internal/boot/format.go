// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"cmp"
	"errors"
	"path"
	"strings"
)

// dialect writes for one boot loader. Text that it is given for the screen is echoText's or screen's.
type dialect interface {
	load(l *load) (string, error)
	disk(lines []string, localBoot string) string
	// block boots nothing. Every 5 minutes, or at a key, it asks again, so that a node goes on by itself when the operator
	// has ordered something else.
	block(title string, reason, hint []string) string
	// again is for a collector that has no decision, such as one whose disk is full: it asks for try number try after some
	// seconds. After the last one, -1, the firmware goes on.
	again(why string, try, seconds int) string
}

// Formats of boot scripts.
const (
	formatIPXE     = "ipxe"
	formatGRUB     = "grub"
	formatPXELINUX = "pxelinux"
)

// newDialect gives the writer of a format; boot is the URL of this machine's boot script, without a query.
func newDialect(format, boot string) dialect {
	switch format {
	case formatGRUB:
		return grub{boot + "?format=grub"}
	case formatPXELINUX:
		return pxelinux{boot + "?format=pxelinux"}
	}
	return ipxe{boot}
}

// formatOf is what a client asks for, or else what it is.
func formatOf(query, userAgent string) (string, error) {
	switch query {
	case formatIPXE, formatGRUB, formatPXELINUX:
		return query, nil
	case "":
	default:
		return "", errors.New("format: use ipxe, grub or pxelinux")
	}
	switch {
	case strings.HasPrefix(userAgent, "GRUB"):
		return formatGRUB, nil
	case strings.Contains(userAgent, "yslinux"): // Syslinux/6.04
		return formatPXELINUX, nil
	}
	return formatIPXE, nil
}

// loaderFile reads the names by which GRUB and PXELINUX look for a machine's own file, wherever they do: grub.cfg-01-MAC,
// grub.cfg-MAC and pxelinux.cfg/01-MAC. Their other names, of UUIDs and addresses, are not ours, and they go on to the
// next one.
func loaderFile(p string) (format, mac string, ok bool) {
	dir, name := path.Split(p)
	if mac, ok := strings.CutPrefix(name, "grub.cfg-"); ok && strings.Count(mac, "-") >= 5 { // a UUID has 4
		return formatGRUB, mac, true
	}
	if path.Base(dir) == "pxelinux.cfg" && strings.Count(name, "-") == 6 {
		return formatPXELINUX, name, true
	}
	return "", "", false
}

// Render gives the script of a decision in every format, by the name boot.FORMAT, for eyes: claim and ticket are rows of
// asterisks, whatever they are. A collector without an overlay is taken for one that has it.
func Render(d Decision, r Request, agentPort int) map[string]string {
	const claim, ticket, mask = "maskedclaim", "maskedticket", "********"
	if d.Claim != "" {
		d.Claim = claim
	}
	if d.Ticket != "" {
		d.Ticket = ticket
	}
	s := &server{opts: Options{Overlay: overlay, AgentPort: agentPort}}
	out := map[string]string{}
	for _, format := range []string{formatIPXE, formatGRUB, formatPXELINUX} {
		to := newDialect(format, "http://"+r.Host+"/boot/"+r.MAC)
		script, err := s.script(to, d, r)
		if err != nil {
			script = unmade(to, cmp.Or(d.Node, r.MAC), err)
		}
		out["boot."+format] = strings.NewReplacer("="+claim, "="+mask, "="+ticket, "="+mask, "/~"+ticket, "/~"+mask, "/"+ticket+"/", "/"+mask+"/").Replace(script)
	}
	return out
}
