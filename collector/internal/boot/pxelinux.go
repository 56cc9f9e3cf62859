// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"strings"

	"provost/collector/internal/profile"
)

// pxelinux writes configuration files for PXELINUX 5 and newer, which fetch by HTTP (lpxelinux.0, syslinux.efi). A
// directive is a line; its value goes to the line's end, without quotes. So nothing that comes from data may hold a line
// break, and a list of initrds no comma (https://wiki.syslinux.org, Config).
type pxelinux struct {
	self self
	asks int // how often it has asked within itself
}

// pxelinuxLocked lets the machine's keyboard choose nothing but what is named here. NOESCAPE also takes PROMPT 1 away, and
// with it the wait for the timeout: it is only for scripts that go on at once.
const (
	pxelinuxLocked = "ALLOWOPTIONS 0\nIMPLICIT 0\n"
	pxelinuxAtOnce = "PROMPT 0\n" + pxelinuxLocked + "NOESCAPE 1\n"
	pxelinuxWaits  = "PROMPT 1\n" + pxelinuxLocked
)

// wait is a timeout, after which it asks for another file, within the present one. After some 130 of them PXELINUX 6.04
// stays at its prompt, and the machine has to be reset: so the waits grow, and a screen asks for 4 days.
func (f pxelinux) wait(seconds int) (actual int, directives string) {
	switch {
	case f.asks >= 30:
		seconds = 3540 // just below an hour is the most that it knows
	case f.asks >= 12:
		seconds = max(seconds, 300)
	}
	return seconds, fmt.Sprintf("TIMEOUT %d\nTOTALTIMEOUT %d\nONTIMEOUT again\n", seconds*10, seconds*10)
}

// label is what the timeout leads to.
func (f pxelinux) label(s self) string { return "LABEL again\nCONFIG " + s.String() + "\n" }

func (f pxelinux) load(l *load) (string, error) {
	for _, u := range l.initrds {
		if strings.Contains(u, ",") {
			return "", fmt.Errorf("initrd %q has a comma, which separates initrds for PXELINUX", u)
		}
	}
	for _, w := range l.args {
		if strings.HasPrefix(w, "initrd=") {
			return "", errors.New("kernel arguments: initrd= is PXELINUX's own word: name initrds in the profile")
		}
	}
	_, wait := f.wait(30)
	s := "SAY Provost: " + echoText(l.title) + "\nDEFAULT provost\n" + pxelinuxAtOnce + wait +
		"LABEL provost\nLINUX " + l.kernel + "\n"
	if len(l.initrds) > 0 {
		s += "INITRD " + strings.Join(l.initrds, ",") + "\n"
	}
	return s + "APPEND " + strings.Join(l.args, " ") + "\n" + f.label(f.self.of(l.attempt)), nil
}

// disk leaves PXELINUX: -1 tells the firmware to go on to its next boot device, 0 that the boot from the network is done,
// for firmware that stops otherwise.
func (f pxelinux) disk(lines []string, localBoot string) string {
	s := ""
	for _, l := range lines {
		s += "SAY Provost: " + l + "\n"
	}
	how := "-1"
	if localBoot == profile.LocalSanboot {
		how = "0"
	}
	return s + "DEFAULT disk\n" + pxelinuxAtOnce + "LABEL disk\nLOCALBOOT " + how + "\n"
}

func (f pxelinux) block(title string, reason, hint []string) string {
	var b strings.Builder
	b.WriteString("SAY Provost: " + title + "\n")
	for _, l := range reason {
		b.WriteString("SAY | " + l + "\n")
	}
	for _, l := range hint {
		b.WriteString("SAY > " + l + "\n")
	}
	seconds, wait := f.wait(300)
	fmt.Fprintf(&b, "SAY Provost: press Enter to ask again, or wait %d minutes\n", seconds/60)
	b.WriteString("DEFAULT again\n" + pxelinuxWaits + wait + f.label(f.self))
	return b.String()
}

// again asks once: what PXELINUX does with a file that it cannot fetch is its own.
func (f pxelinux) again(why string, p pause) string {
	if p.left == 0 {
		return f.disk([]string{"no decision yet: " + why}, "")
	}
	_, wait := f.wait(p.seconds)
	return "SAY Provost: no decision yet: " + why + "\nDEFAULT again\n" + pxelinuxWaits + wait + f.label(f.self.with("try", p.try))
}
