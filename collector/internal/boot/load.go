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

// maxCmdline is what the kernel keeps of its command line on x86 and arm64 (COMMAND_LINE_SIZE), less the ending NUL.
const maxCmdline = 2047

// maxTries bounds how often a machine asks again when the collector has no decision: 20 times, 15 to 30 s apart, are 5
// to 10 minutes. Then the firmware goes on to its next boot device. A machine without a disk asks without end.
const maxTries = 20

// maxAsks bounds what PXELINUX's asks are counted to: its longest wait begins long before.
const maxAsks = 1000

// load is a kernel with its initrds and arguments: of each a URL or words that no loader takes for more than they are.
type load struct {
	title   string // what the machine's screen says
	attempt int    // 0: the boot is none
	kernel  string
	initrds []string
	args    []string
}

var (
	secretRE = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
	pinRE    = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// Words that tell the agent that this boot installs nothing: it runs no step and never lets the installer go on.
const (
	rescueWord = "provost.rescue"
	lookWord   = "provost.look" // it looks for the sealed journal of its install, and goes back to the disk if there is one
)

// newLoad takes the actions install, netboot and rescue. A rescue has no install, claim or ticket: it proves nothing and
// counts for nothing.
func newLoad(d Decision, r Request, o Options) (*load, error) {
	var errs []error
	l := &load{}
	words := []string{"provost.node=" + d.Node}
	switch d.Action {
	case proto.BootRescue:
		l.title = "rescue of " + d.Node + ": nothing is installed, no step is run"
		if d.Node == "" {
			l.title, words = "looking at this machine: nothing is installed", nil
		}
		words = append(words, rescueWord)
	default:
		l.title, l.attempt = fmt.Sprintf("installing %s, attempt %d", d.Node, d.Attempt), d.Attempt
		if d.Action == proto.BootNetboot {
			l.title = d.Node + " boots its system over the network"
		}
		words = append(words, "provost.install="+d.Install, "provost.claim="+d.Claim)
		if d.Look {
			l.title = "looking whether the disk of " + d.Node + " has this install, done: nothing is installed"
			words = append(words, lookWord)
		}
		if !proto.ValidID(d.Install) {
			errs = append(errs, fmt.Errorf("install %q is no ULID", d.Install))
		}
		if !secretRE.MatchString(d.Claim) || !secretRE.MatchString(d.Ticket) {
			errs = append(errs, errors.New("the claim or the ticket is not sound"))
		}
	}
	if d.Node != "" || d.Action != proto.BootRescue {
		errs = append(errs, proto.CheckNode(d.Node))
	}
	if !pinRE.MatchString(d.Pin) {
		errs = append(errs, fmt.Errorf("pin %q is not sha256: and 64 hex digits", d.Pin))
	}
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
	urls, err := agentURLs(d.URLs, r)
	errs = append(errs, err)
	own, err := argWords(d.Args)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	l.args = append(append([]string{"provost.url=" + urls}, append(words, "provost.ca="+d.Pin)...), own...)
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
func agentURLs(urls []string, r Request) (string, error) {
	if len(urls) == 0 {
		return r.AgentURL(), nil
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
	u := url.URL{Scheme: "http", Host: r.Host, Path: "/" + p}
	if ticket != "" {
		u.RawQuery = "t=" + url.QueryEscape(ticket)
	}
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
