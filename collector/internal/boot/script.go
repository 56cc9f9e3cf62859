// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"

	"provost/proto"
)

// Scripts are for iPXE (https://ipxe.org/scripting). Its language has no quotes: a line is split at white space, "${"
// begins an expansion, a word that begins with '#' a comment, the words "||", "&&" and ";" end a command, and a backslash
// at the end of a line joins the next one. Nothing that comes from data may hold any of these.

// maxCmdline is what the kernel keeps of its command line on x86 and arm64 (COMMAND_LINE_SIZE), less the ending NUL.
const maxCmdline = 2047

// maxTries bounds how often a machine asks again when the collector has no decision: 20 times, 15 to 30 s apart, are 5
// to 10 minutes. Then the firmware goes on to its next boot device.
const maxTries = 20

// load is a kernel with its initrds and arguments, everything of it sound for a script.
type load struct {
	node    string
	attempt int
	kernel  string
	initrds []string
	args    []string
}

var (
	secretRE = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
	pinRE    = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

func newLoad(d Decision, r Request, o Options) (*load, error) {
	var errs []error
	errs = append(errs, proto.CheckNode(d.Node))
	if !proto.ValidID(d.Install) {
		errs = append(errs, fmt.Errorf("install %q is no ULID", d.Install))
	}
	if !secretRE.MatchString(d.Claim) || !secretRE.MatchString(d.Ticket) {
		errs = append(errs, errors.New("the claim or the ticket is not sound"))
	}
	if !pinRE.MatchString(d.Pin) {
		errs = append(errs, fmt.Errorf("pin %q is not sha256: and 64 hex digits", d.Pin))
	}
	l := &load{node: d.Node, attempt: d.Attempt}
	var err error
	l.kernel, err = imageURL(d.Kernel, d.Ticket, r)
	errs = append(errs, err)
	for _, name := range d.Initrds {
		if name == overlay && o.Overlay == "" {
			errs = append(errs, errors.New("the profile has the overlay among its initrds, and the collector has no overlay file"))
		}
		u, err := imageURL(name, d.Ticket, r)
		errs = append(errs, err)
		l.initrds = append(l.initrds, u)
	}
	urls, err := agentURLs(d.URLs, r, o.AgentPort)
	errs = append(errs, err)
	words, err := argWords(d.Args)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	l.args = append([]string{
		"provost.url=" + urls, "provost.node=" + d.Node, "provost.install=" + d.Install, "provost.claim=" + d.Claim, "provost.ca=" + d.Pin,
	}, words...)
	if n := len(strings.Join(append(l.initrdArgs(), l.args...), " ")); n > maxCmdline {
		return nil, fmt.Errorf("the kernel command line has %d bytes: the kernel keeps %d, shorten the profile's args", n, maxCmdline)
	}
	return l, nil
}

// initrdArgs name the initrds to a kernel that is an EFI program: it loads those that its command line names.
func (l *load) initrdArgs() []string {
	var args []string
	for i := range l.initrds {
		args = append(args, "initrd="+initrdName(i))
	}
	return args
}

func initrdName(i int) string { return fmt.Sprintf("initrd%d", i) }

func (l *load) script(self string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("#!ipxe")
	line("echo Provost: installing %s, attempt %d", l.node, l.attempt)
	line("imgfree")
	line("kernel %s %s || goto fail", l.kernel, strings.Join(append(l.initrdArgs(), l.args...), " "))
	for i, u := range l.initrds {
		line("initrd --name %s %s || goto fail", initrdName(i), u)
	}
	line("boot || goto fail")
	line(":fail")
	line("echo Provost: loading did not work, asking again in 30 s")
	line("sleep 30")
	line("chain --replace %s || goto fail", self)
	return b.String()
}

func diskScript(node, localBoot string) (string, error) {
	switch localBoot {
	case "", "exit":
		return "#!ipxe\necho Provost: " + echoText(node) + " boots from disk\nexit 0\n", nil
	case "sanboot":
		return "#!ipxe\necho Provost: " + echoText(node) + " boots from disk\nsanboot --no-describe --drive 0x80 || exit 0\n", nil
	}
	return "", fmt.Errorf("local-boot %q: use exit or sanboot", localBoot)
}

func unknownScript(mac string) string {
	return "#!ipxe\n" +
		"echo Provost: " + mac + " is no node here, booting from disk\n" +
		"echo Provost: to add it type: provost node add NAME --mac " + mac + "\n" +
		"exit 0\n"
}

// blockScript boots nothing. Every 5 minutes, or at a key, it asks again, so that a node goes on by itself when the
// operator has ordered something else.
func blockScript(self, node string, reason, hint []string) string {
	var b strings.Builder
	b.WriteString("#!ipxe\n:again\n")
	b.WriteString("echo Provost: " + echoText(node) + " is blocked and boots nothing\n")
	for _, l := range screen(reason) {
		b.WriteString("echo | " + l + "\n")
	}
	for _, l := range screen(hint) {
		b.WriteString("echo > " + l + "\n")
	}
	b.WriteString("prompt --timeout 300000 Provost: press a key to ask again, or wait 5 minutes ||\n")
	b.WriteString("chain --replace " + self + " || goto again\n")
	return b.String()
}

// againScript is for a collector that has no decision, such as one whose disk is full.
func againScript(self string, tries, seconds int, why string) string {
	head := "#!ipxe\necho Provost: no decision yet: " + echoText(why) + "\n"
	if tries < 0 || tries >= maxTries {
		return head + "exit 1\n"
	}
	return head + fmt.Sprintf("sleep %d\nchain --replace %s?try=%d || exit 1\n", seconds, self, tries+1)
}

// What a screen of 25 lines and 80 columns shows of a text.
const (
	maxLines = 16
	maxLine  = 74
)

// screen folds texts into lines that are sound after "echo" and a word.
func screen(texts []string) []string {
	var lines []string
	for _, text := range texts {
		for part := range strings.SplitSeq(text, "\n") {
			line := ""
			for _, w := range strings.Fields(echoText(part)) {
				for len(w) > maxLine {
					lines = append(lines, strings.TrimSpace(line+" "+w[:maxLine]))
					line, w = "", "."+w[maxLine:]
				}
				if len(line)+1+len(w) > maxLine && line != "" {
					lines = append(lines, line)
					line = ""
				}
				line = strings.TrimSpace(line + " " + w)
			}
			if line != "" {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) > maxLines {
		lines = append(lines[:maxLines-1], "[...]")
	}
	for i, l := range lines {
		lines[i] = echoText(l)
	}
	return lines
}

// echoText makes any text one that iPXE prints as it is, when a word that is no option stands in front: printable ASCII,
// and a quotation mark before each word that means something to iPXE.
func echoText(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		case r == '\\':
			return '/'
		}
		return r
	}, s)
	s = strings.ReplaceAll(s, "${", "$ {")
	words := strings.Fields(s)
	for i, w := range words {
		if w[0] == '#' || separator(w) {
			words[i] = "'" + w
		}
	}
	return strings.Join(words, " ")
}

func separator(w string) bool { return w == "||" || w == "&&" || w == ";" }

// argWords splits a profile's arguments, and refuses those that iPXE would not pass on as they are.
func argWords(args string) ([]string, error) {
	for _, r := range args {
		if r < ' ' || r > '~' {
			return nil, fmt.Errorf("kernel arguments: %q is not printable ASCII", r)
		}
	}
	if strings.Contains(args, "${") {
		return nil, errors.New(`kernel arguments: "${" would be expanded by the boot loader`)
	}
	words := strings.Fields(args)
	for _, w := range words {
		if w[0] == '#' || separator(w) || strings.HasSuffix(w, `\`) {
			return nil, fmt.Errorf("kernel arguments: %q means something else to the boot loader", w)
		}
	}
	return words, nil
}

// agentURLs is the value of provost.url=.
func agentURLs(urls []string, r Request, port int) (string, error) {
	if len(urls) == 0 {
		return fmt.Sprintf("https://%s:%d", hostOnly(r.Host), port), nil
	}
	for _, u := range urls {
		if err := checkURL(u); err != nil {
			return "", fmt.Errorf("advertised address %w", err)
		}
		if strings.Contains(u, ",") {
			return "", fmt.Errorf("advertised address %q has a comma, which separates addresses", u)
		}
	}
	return strings.Join(urls, ","), nil
}

// overlay is the name of the agent's initrd.
const overlay = "overlay"

// imageURL is where a machine fetches a kernel or an initrd of a Decision.
func imageURL(name, ticket string, r Request) (string, error) {
	if strings.Contains(name, "://") {
		return name, checkURL(name)
	}
	p := name
	if name == overlay {
		p = "images/" + overlay
	}
	if !strings.HasPrefix(p, "images/") || path.Clean(p) != p {
		return "", fmt.Errorf("image %q: use images/… for a file below the images directory, or a URL", name)
	}
	u := url.URL{Scheme: "http", Host: r.Host, Path: "/" + p, RawQuery: "t=" + url.QueryEscape(ticket)}
	return u.String(), checkURL(u.String())
}

func checkURL(s string) error {
	for _, r := range s {
		if r <= ' ' || r > '~' || strings.ContainsRune(`\"'{}<>^`+"`", r) {
			return fmt.Errorf("%q: %q cannot stand in a URL", s, r)
		}
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("%q is no URL: %w", s, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || !validHost(u.Host) || u.User != nil {
		return fmt.Errorf("%q: use http or https, a host, and no user", s)
	}
	return nil
}
