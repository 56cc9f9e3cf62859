// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"cmp"
	"errors"
	"maps"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// dialect writes for one boot loader. Text that it is given for the screen is echoText's or screen's.
type dialect interface {
	load(l *load) (string, error)
	disk(lines []string, localBoot string) string
	// block boots nothing. Every 5 minutes, or at a key, it asks again, so that a node goes on by itself when the operator
	// has ordered something else.
	block(title string, reason, hint []string) string
	// again is for a collector that has no decision, such as one whose disk is full.
	again(why string, p pause) string
}

// pause is how a script asks again that got no decision.
type pause struct {
	seconds int // before it asks
	try     int // the number of the next try
	// left is how often it may still ask, whether or not anybody answers; then the firmware goes on. 0: it does at once;
	// -1: without end, for a machine that has nothing else to boot.
	left int
}

// self is the URL of a machine's boot script, by which the script asks again: with what the machine said of itself, so that
// it is recognised again.
type self struct {
	url   string
	query url.Values
}

// with is the URL with one more value. Nothing in it means anything to a boot loader: all but letters, digits and "-_.~" of
// the values is escaped.
func (s self) with(key string, n int) self {
	q := maps.Clone(s.query)
	if q == nil {
		q = url.Values{}
	}
	q.Set(key, strconv.Itoa(n))
	return self{s.url, q}
}

// of is for a script whose attempt could not be loaded: asking for it again is no other attempt. 0: there is none.
func (s self) of(attempt int) self {
	if attempt == 0 {
		return s
	}
	return s.with("again", attempt)
}

func (s self) String() string {
	if len(s.query) == 0 {
		return s.url
	}
	return s.url + "?" + s.query.Encode()
}

// selfOf is for a machine that asked for its script in a format; asks is how often its PXELINUX has asked within itself.
func selfOf(format string, r Request, asks int) self {
	s := self{"http://" + r.Host + "/boot/" + r.MAC, url.Values{}}
	for key, v := range map[string]string{"serial": r.Serial, "uuid": r.UUID} {
		if v != "" {
			s.query.Set(key, v)
		}
	}
	if format != formatIPXE {
		s.query.Set("format", format)
	}
	if format == formatPXELINUX {
		s = s.with("asks", asks+1)
	}
	return s
}

// Formats of boot scripts.
const (
	formatIPXE     = "ipxe"
	formatGRUB     = "grub"
	formatPXELINUX = "pxelinux"
)

// newDialect gives the writer of a format for a machine.
func newDialect(format string, r Request, asks int) dialect {
	me := selfOf(format, r, asks)
	switch format {
	case formatGRUB:
		return grub{me}
	case formatPXELINUX:
		return pxelinux{me, asks}
	}
	return ipxe{me}
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
		to := newDialect(format, r, 0)
		script, err := s.script(to, d, r)
		if err != nil {
			script = unmade(to, cmp.Or(d.Node, r.MAC), err)
		}
		out["boot."+format] = strings.NewReplacer("="+claim, "="+mask, "="+ticket, "="+mask, "/~"+ticket, "/~"+mask, "/"+ticket+"/", "/"+mask+"/").Replace(script)
	}
	return out
}
