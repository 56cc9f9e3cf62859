// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"net/netip"
	"strings"
	"time"
)

// MaxLine is the longest line that is looked into, in bytes. Web servers accept request lines of 8 KiB; anything longer
// than this is Broken.
const MaxLine = 64 << 10

// Parser reads lines. It holds what a line does not say itself, is never changed after it was made, and may be used by
// several goroutines.
type Parser struct {
	reference time.Time
	location  *time.Location
}

// NewParser makes a parser. Stamps without a year are taken for the latest time that is at most MaxSkew after the
// reference: the moment of reading for a log that is followed, the last change of a file that is replayed. Stamps without
// an offset are in location; nil is UTC.
func NewParser(reference time.Time, location *time.Location) *Parser {
	if location == nil {
		location = time.UTC
	}
	return &Parser{reference: reference, location: location}
}

// Parse reads one line, with or without its newline. The Fact counts only with the verdict Known; with Ignored its
// Program says whose line it is, where that is known. Time and memory are linear in the length of the line.
func (p *Parser) Parse(line []byte) (Fact, Verdict) {
	for n := len(line); n > 0 && (line[n-1] == '\n' || line[n-1] == '\r'); n = len(line) {
		line = line[:n-1]
	}
	if len(line) > MaxLine {
		return Fact{}, Broken
	}
	var f Fact
	v := p.line(string(line), &f)
	if v != Known {
		return Fact{Program: f.Program}, v
	}
	if len(line) > 512 { // the fields are parts of the line: a small one must not keep a large line alive
		f.own()
	}
	return f, Known
}

func (f *Fact) own() {
	for _, s := range []*string{&f.Host, &f.ClientID, &f.Interface, &f.Sender, &f.File, &f.UserAgent, &f.Reason, &f.XID, &f.MAC} {
		*s = strings.Clone(*s)
	}
}

func (p *Parser) line(s string, f *Fact) Verdict {
	if strings.IndexByte(s, 0) >= 0 { // what a crashed machine leaves in a file
		return Broken
	}
	s = strings.TrimLeft(s, " \t")
	if s == "" {
		return Ignored
	}
	if s[0] == '{' {
		return p.journald(s, f)
	}
	s = strings.TrimLeft(afterSeconds(s), " ")
	if s != "" && s[0] == '<' {
		rest, ok := priority(s)
		if !ok {
			return Unknown
		}
		if strings.HasPrefix(rest, "1 ") {
			return p.rfc5424(rest[2:], f)
		}
		s = rest
	}
	if s == "" {
		return Unknown
	}
	switch c := s[0]; {
	case digit(c):
		if t, rest, ok := p.iso(s); ok {
			f.Time = t
			return p.header(rest, f)
		}
		if t, rest, ok := p.nginx(s); ok {
			f.Time = t
			return p.nginxError(strings.TrimLeft(rest, " "), f)
		}
	case c == '[':
		if end := strings.IndexByte(s, ']'); end > 0 {
			if t, ok := p.apache(s[1:end]); ok {
				f.Time = t
				return p.apacheError(strings.TrimLeft(s[end+1:], " "), f)
			}
		}
	case 'A' <= c && c <= 'W':
		t, rest, ok := p.traditional(s)
		if !ok {
			t, rest, ok = p.full(s)
		}
		if ok {
			f.Time = t
			return p.header(rest, f)
		}
	}
	if v := p.access(s, f); v != Unknown {
		return v
	}
	return p.bare(s, f)
}

// afterSeconds steps over the seconds since its start that a capturing program wrote in front of a line.
func afterSeconds(s string) string {
	i := 0
	for i < len(s) && i < 12 && digit(s[i]) {
		i++
	}
	if i == 0 || i+1 >= len(s) || s[i] != '.' {
		return s
	}
	j := i + 1
	for j < len(s) && j < i+10 && digit(s[j]) {
		j++
	}
	if j == i+1 || j >= len(s) || s[j] != ' ' {
		return s
	}
	return s[j+1:]
}

// priority reads <PRI> of RFC 3164 and 5424, 0 to 191.
func priority(s string) (rest string, ok bool) {
	end := strings.IndexByte(s[:min(len(s), 5)], '>')
	if end < 2 {
		return s, false
	}
	if n := number(s, 1, end); n < 0 || n > 191 || s[1] == ' ' {
		return s, false
	}
	return s[end+1:], true
}

// header reads what follows the stamp of a syslog line: [HOST ]TAG[PID]: MESSAGE, and Kea's own form.
func (p *Parser) header(s string, f *Fact) Verdict {
	s = strings.TrimLeft(s, " ")
	for range 2 {
		tok, rest, found := strings.Cut(s, " ")
		if tok == "" || !found && tok[len(tok)-1] != ':' {
			return Unknown
		}
		if isSeverity(tok) && keaMessage(strings.TrimLeft(rest, " ")) {
			return kea(s, f)
		}
		if tok[len(tok)-1] == ':' {
			tag, pid := splitTag(tok[:len(tok)-1])
			return p.program(tag, pid, strings.TrimLeft(rest, " "), f)
		}
		if f.Sender != "" {
			break
		}
		f.Sender, s = tok, strings.TrimLeft(rest, " ")
	}
	return Ignored // "last message repeated 2 times", and the like
}

// rfc5424 reads what follows "<PRI>1 ".
func (p *Parser) rfc5424(s string, f *Fact) Verdict {
	var field [5]string // stamp, host, program, process id, message id
	for i := range field {
		tok, rest, found := strings.Cut(s, " ")
		if !found || tok == "" {
			return Broken
		}
		field[i], s = tok, rest
	}
	if field[0] != "-" {
		t, rest, ok := p.iso(field[0])
		if !ok || rest != "" {
			return Broken
		}
		f.Time = t
	}
	if field[1] != "-" {
		f.Sender = field[1]
	}
	msg, ok := afterStructured(s)
	if !ok {
		return Broken
	}
	tag, pid := splitTag(field[2])
	if field[3] != "-" {
		pid = field[3]
	}
	return p.program(tag, pid, msg, f)
}

// afterStructured steps over the structured data of RFC 5424, section 6.3, and the byte order mark of the message.
func afterStructured(s string) (string, bool) {
	if s == "-" {
		return "", true
	}
	if strings.HasPrefix(s, "- ") {
		return strings.TrimPrefix(s[2:], "\ufeff"), true
	}
	if s == "" || s[0] != '[' {
		return s, false
	}
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && c == ']':
			if i+1 == len(s) {
				return "", true
			}
			if s[i+1] == ' ' {
				return strings.TrimPrefix(s[i+2:], "\ufeff"), true
			}
			if s[i+1] != '[' {
				return s, false
			}
		}
	}
	return s, false
}

// splitTag reads TAG[PID], without the directories of a tag that is a path.
func splitTag(s string) (tag, pid string) {
	if i := strings.IndexByte(s, '['); i >= 0 && s[len(s)-1] == ']' {
		s, pid = s[:i], s[i+1:len(s)-1]
	}
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		s = s[i+1:]
	}
	return s, pid
}

// tags are the names under which programs log, and whose words those are. The journal is asked for the same.
var tags = map[string]string{
	"dhcpd": ProgISC, "isc-dhcpd": ProgISC, "isc-dhcp-server": ProgISC, "dhcpd4": ProgISC,
	"kea-dhcp4": ProgKea, "kea-dhcp4-server": ProgKea, "kea": ProgKea,
	"dnsmasq-dhcp": ProgDnsmasq, "dnsmasq-tftp": ProgDnsmasqTFT, "dnsmasq": progDnsmasqAny,
	"in.tftpd": ProgTFTPDHPA, "tftpd": ProgTFTPDHPA, "tftpd-hpa": ProgTFTPDHPA, "tftp": ProgTFTPDHPA, "tftp-hpa": ProgTFTPDHPA,
	"atftpd": ProgATFTPD, "in.atftpd": ProgATFTPD,
	"httpd": ProgWeb, "apache2": ProgWeb, "apache": ProgWeb, "nginx": ProgWeb, "lighttpd": ProgWeb, "caddy": ProgWeb,
	"preseed": ProgInstaller,
}

// progDnsmasqAny is dnsmasq on its standard error, where each message names the part of it that speaks.
const progDnsmasqAny = "dnsmasq"

// program hands a message to the parser of the program that wrote it.
func (p *Parser) program(tag, pid, msg string, f *Fact) Verdict {
	prog := tags[tag]
	if prog == progDnsmasqAny {
		prog, msg = p.dnsmasqAny(msg, f)
	}
	switch prog {
	case ProgISC:
		f.Program = ProgISC
		return isc(msg, f)
	case ProgKea:
		f.Program = ProgKea
		return kea(p.ownStamp(msg, f), f)
	case ProgDnsmasq:
		f.Program = ProgDnsmasq
		return dnsmasq(msg, f)
	case ProgDnsmasqTFT:
		f.Program = ProgDnsmasqTFT
		return dnsmasqTFTP(msg, f)
	case ProgTFTPDHPA:
		f.Program, f.XID = ProgTFTPDHPA, pid
		return tftpdHPA(msg, f)
	case ProgATFTPD:
		f.XID = pid
		return atftpd(msg, f)
	case ProgWeb:
		return p.web(msg, f)
	case ProgInstaller:
		return preseed(msg, f)
	}
	return Ignored
}

// ownStamp steps over a stamp that a program wrote itself, into what syslog or the journal stamped as well. It counts only
// where there is no other.
func (p *Parser) ownStamp(msg string, f *Fact) string {
	t, rest, ok := p.iso(msg)
	if !ok {
		t, rest, ok = p.traditional(msg)
	}
	if !ok {
		return msg
	}
	if f.Time.IsZero() {
		f.Time = t
	}
	return strings.TrimLeft(rest, " ")
}

// dnsmasqAny reads "[STAMP ]dnsmasq-dhcp[PID]: MESSAGE", as dnsmasq writes to its standard error (--log-facility=-).
func (p *Parser) dnsmasqAny(msg string, f *Fact) (prog, rest string) {
	tok, rest := cut(p.ownStamp(msg, f))
	if n := len(tok); n > 1 && tok[n-1] == ':' {
		if tag, _ := splitTag(tok[:n-1]); tags[tag] != progDnsmasqAny && strings.HasPrefix(tag, "dnsmasq-") {
			return tags[tag], rest
		}
	}
	return "", msg
}

// web reads a message that a web server sent through syslog: an access line, or an error of either kind.
func (p *Parser) web(msg string, f *Fact) Verdict {
	stamp := f.Time
	v := p.access(msg, f)
	if v == Unknown && msg != "" {
		switch {
		case msg[0] == '[':
			if end := strings.IndexByte(msg, ']'); end > 0 {
				if _, ok := p.apache(msg[1:end]); ok {
					msg = strings.TrimLeft(msg[end+1:], " ")
				}
			}
			v = p.apacheError(msg, f)
		case digit(msg[0]):
			if _, rest, ok := p.nginx(msg); ok {
				v = p.nginxError(strings.TrimLeft(rest, " "), f)
			}
		}
	}
	if v == Known && f.Time.IsZero() {
		f.Time = stamp
	}
	return v
}

// bare reads a line without a header, as a program writes it that logs to its standard error.
func (p *Parser) bare(s string, f *Fact) Verdict {
	tok, rest, _ := strings.Cut(s, " ")
	if n := len(tok); n > 1 && tok[n-1] == ':' {
		if tag, pid := splitTag(tok[:n-1]); tag != "" {
			if v := p.program(tag, pid, strings.TrimLeft(rest, " "), f); v != Ignored {
				return v
			}
		}
	}
	switch {
	case strings.HasPrefix(s, "DHCP4_"), isSeverity(tok) && keaMessage(strings.TrimLeft(rest, " ")):
		return kea(s, f)
	case strings.HasPrefix(s, "DHCP") || strings.HasPrefix(s, "BOOT"):
		if i := strings.IndexByte(tok, '('); i > 0 {
			return dnsmasq(s, f)
		}
		return isc(s, f)
	case strings.HasPrefix(s, "RRQ from "), strings.HasPrefix(s, "sending NAK ("), hpaClient(s):
		return tftpdHPA(s, f)
	case strings.HasPrefix(s, "Serving ") && strings.Contains(s, " to "):
		return atftpd(s, f)
	case iscChatter(s):
		return Ignored
	}
	return Unknown
}

func isSeverity(s string) bool {
	switch s {
	case "DEBUG", "INFO", "WARN", "ERROR", "FATAL":
		return true
	}
	return false
}

// addr reads an IP address; IPv4 in IPv6 becomes IPv4, so that one client has one address.
func addr(s string) (netip.Addr, bool) {
	if s == "" || s[0] != ':' && !hexDigit(s[0]) {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
}

func hexDigit(c byte) bool {
	return digit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// macAt reads six pairs of hex digits at the start of s, with one separator (colon or dash) throughout, and gives the
// normal form.
func macAt(s string) (mac string, ok bool) {
	if len(s) < 17 || s[2] != ':' && s[2] != '-' {
		return "", false
	}
	normal := true
	for i := range 17 {
		c := s[i]
		if i%3 == 2 {
			if c != s[2] {
				return "", false
			}
			normal = normal && c == ':'
			continue
		}
		if !hexDigit(c) {
			return "", false
		}
		normal = normal && (c < 'A' || c > 'F')
	}
	if normal {
		return s[:17], true
	}
	return strings.ToLower(strings.ReplaceAll(s[:17], "-", ":")), true
}

// mac reads a token that is a MAC address and nothing else.
func mac(s string) (string, bool) {
	if len(s) != 17 {
		return "", false
	}
	return macAt(s)
}

// cut takes the text up to the next blank and steps over all blanks after it.
func cut(s string) (tok, rest string) {
	i := strings.IndexByte(s, ' ')
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " ")
}
