// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"provost/collector/internal/profile"
)

// grub writes configuration files for GRUB 2 with its modules http, linux, configfile, sleep, echo and minicmd (exit). Every value stands
// between single quotes, where all but the single quote itself stands for itself (GRUB manual, "Quoting").
//
// GRUB 2.06 and older know no port but 80: their device (http,HOST:PORT) does not open. Then the boot server has to be
// reachable at port 80, and what it reads from the Host header is right by itself.
type grub struct{ self self }

// grubQuote gives one word.
func grubQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// grubFile is a URL in GRUB's own words.
func grubFile(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("%q is no URL: %w", s, err)
	}
	if u.Scheme != "http" {
		return "", fmt.Errorf("%q: GRUB has no %s: use a file below images/, or http", s, u.Scheme)
	}
	return grubQuote("(http," + u.Host + ")" + u.RequestURI()), nil
}

func (f grub) load(l *load) (string, error) {
	files, errs := []string{}, []error{}
	for _, u := range append([]string{l.kernel}, l.initrds...) {
		file, err := grubFile(u)
		files, errs = append(files, file), append(errs, err)
	}
	words, err := grubArgs(l.args)
	if err := errors.Join(append(errs, err)...); err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("echo %s", grubQuote("Provost: "+echoText(l.title)))
	line("if linux %s %s; then", files[0], strings.Join(words, " "))
	if len(files) > 1 {
		line("if initrd %s; then", strings.Join(files[1:], " "))
		line("boot")
		line("fi")
	} else {
		line("boot")
	}
	line("fi")
	line("echo 'Provost: loading did not work, asking again in 30 s'")
	b.WriteString(askGRUB("sleep 30", "", f.self.of(l.attempt)))
	return b.String(), nil
}

// askGRUB asks for a script again and again after a wait, until one comes that boots: GRUB goes on behind a configfile that it
// cannot fetch. while is the wait, if it always succeeds.
func askGRUB(while, wait string, s self) string {
	if wait != "" {
		wait += "\n"
	}
	return "while " + while + "; do\n" + wait + "configfile " + me(s) + "\ndone\n"
}

// grubArgs quotes kernel arguments. GRUB puts a word with white space between double quotes, as the kernel wants it, and a
// backslash before each quote and backslash of its own, which the kernel would keep: such words are refused.
func grubArgs(args []string) ([]string, error) {
	var out []string
	for _, w := range kernelWords(strings.Join(args, " ")) {
		if strings.ContainsAny(w, `"'\`) {
			return nil, fmt.Errorf("kernel arguments: GRUB would change the quotes or backslashes of %q", w)
		}
		out = append(out, grubQuote(w))
	}
	return out, nil
}

// kernelWords splits a command line as the kernel does (lib/cmdline.c, next_arg), and drops the quotes around values.
func kernelWords(line string) []string {
	var out []string
	word, quoted := "", false
	for _, c := range line + " " {
		switch {
		case c == '"':
			quoted = !quoted
		case c == ' ' && !quoted:
			if word != "" {
				out = append(out, word)
			}
			word = ""
		default:
			word += string(c)
		}
	}
	if word = strings.TrimSpace(word); word != "" { // a quote that does not end
		out = append(out, word+`"`)
	}
	return out
}

func me(s self) string {
	file, err := grubFile(s.String())
	if err != nil {
		return "''" // not possible: self is made here, and is http
	}
	return file
}

// disk leaves GRUB, and the firmware goes on to its next boot device; or loads what the first disk has.
func (f grub) disk(lines []string, localBoot string) string {
	s := ""
	for _, l := range lines {
		s += "echo " + grubQuote("Provost: "+l) + "\n"
	}
	if localBoot == profile.LocalSanboot {
		s += `if [ "$grub_platform" = 'efi' ]; then
for file in '/EFI/BOOT/BOOTX64.EFI' '/EFI/BOOT/BOOTAA64.EFI'; do
if search --no-floppy --set=root --file "$file"; then
if chainloader "$file"; then
boot
fi
fi
done
else
set root='hd0'
if chainloader '+1'; then
boot
fi
fi
`
	}
	return s + "exit\n"
}

func (f grub) block(title string, reason, hint []string) string {
	var b strings.Builder
	line := func(s string) { b.WriteString("echo " + grubQuote(s) + "\n") }
	line("Provost: " + title)
	for _, l := range reason {
		line("| " + l)
	}
	for _, l := range hint {
		line("> " + l)
	}
	line("Provost: press Escape to ask again, or wait 5 minutes")
	b.WriteString(askGRUB("sleep 1", "sleep --interruptible 300", f.self)) // at Escape, this sleep ends as one that failed
	return b.String()
}

func (f grub) again(why string, p pause) string {
	head := "echo " + grubQuote("Provost: no decision yet: "+why) + "\n"
	wait := fmt.Sprintf("sleep %d", p.seconds)
	if p.left < 0 {
		return head + askGRUB(wait, "", f.self.with("try", p.try))
	}
	for i := range p.left {
		head += wait + "\nconfigfile " + me(f.self.with("try", p.try+i)) + "\n"
	}
	return head + "exit\n"
}

// grubAny is for GRUB's last resort, grub.cfg without an address in its name.
func grubAny(host string) string {
	return "configfile \"(http," + host + ")/boot/${net_default_mac}?format=grub\"\n"
}
