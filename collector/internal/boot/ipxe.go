// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"fmt"
	"strings"

	"provost/collector/internal/profile"
)

// ipxe writes scripts for iPXE (https://ipxe.org/scripting). Its language has no quotes: a line is split at white space,
// "${" begins an expansion, a word that begins with '#' a comment, the words "||", "&&" and ";" end a command, and a
// backslash at the end of a line joins the next one. Nothing that comes from data may hold any of these.
type ipxe struct{ self self }

func (f ipxe) load(l *load) (string, error) {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("#!ipxe")
	line("echo Provost: %s", echoText(l.title))
	line("imgfree")
	line("kernel %s %s || goto fail", l.kernel, strings.Join(append(l.initrdArgs(), l.args...), " "))
	for i, u := range l.initrds {
		line("initrd --name %s %s || goto fail", initrdName(i), u)
	}
	line("boot || goto fail")
	f.tail(line, l.attempt)
	return b.String(), nil
}

// tail is where a script goes on when something of an attempt could not be loaded.
func (f ipxe) tail(line func(string, ...any), attempt int) {
	line(":fail")
	line("echo Provost: loading did not work, asking again in 30 s")
	line("sleep 30")
	line("chain --replace %s || goto fail", f.self.of(attempt))
}

func (f ipxe) disk(lines []string, localBoot string) string {
	s := "#!ipxe\n"
	for _, l := range lines {
		s += "echo Provost: " + l + "\n"
	}
	if localBoot == profile.LocalSanboot {
		return s + "sanboot --no-describe --drive 0x80 || exit 0\n"
	}
	return s + "exit 0\n"
}

func (f ipxe) block(title string, reason, hint []string) string {
	var b strings.Builder
	b.WriteString("#!ipxe\n:again\n")
	b.WriteString("echo Provost: " + title + "\n")
	for _, l := range reason {
		b.WriteString("echo | " + l + "\n")
	}
	for _, l := range hint {
		b.WriteString("echo > " + l + "\n")
	}
	b.WriteString("prompt --timeout 300000 Provost: press a key to ask again, or wait 5 minutes ||\n")
	b.WriteString("chain --replace " + f.self.String() + " || goto again\n")
	return b.String()
}

func (f ipxe) again(why string, p pause) string {
	head := "#!ipxe\necho Provost: no decision yet: " + why + "\n"
	ask := func(try int) string {
		return fmt.Sprintf("sleep %d\nchain --replace %s || ", p.seconds, f.self.with("try", try))
	}
	if p.left < 0 {
		return head + ":again\n" + ask(p.try) + "goto again\n"
	}
	for i := range p.left { // a connection that is refused is one try of many
		head += ask(p.try+i) + "echo Provost: no answer\n"
	}
	return head + "exit 1\n"
}
