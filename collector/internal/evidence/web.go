// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"net/netip"
	"strconv"
	"strings"
)

// access reads an access log of Apache or nginx: common and combined, with and without a virtual host in front. Unknown
// means that it is no such line. The short form ADDRESS "REQUEST" STATUS has neither stamp nor size.
func (p *Parser) access(s string, f *Fact) Verdict {
	quote := strings.IndexByte(s, '"')
	if quote < 2 || s[quote-1] != ' ' {
		return Unknown
	}
	head := s[:quote-1]
	stamped := false
	if open := strings.LastIndexByte(head, '['); open > 0 && strings.HasSuffix(head, "]") && head[open-1] == ' ' {
		t, ok := p.clf(head[open+1 : len(head)-1])
		if !ok {
			return Unknown
		}
		f.Time, head, stamped = t, head[:open-1], true
	}
	client, ok := clientOf(head, stamped, f)
	if !ok {
		return Unknown
	}
	request, rest, ok := quoted(s[quote:])
	if !ok {
		return brokenIf(stamped)
	}
	status, rest := cut(strings.TrimLeft(rest, " "))
	if len(status) != 3 || !allDigits(status) {
		return brokenIf(stamped)
	}
	f.Program = ProgWeb
	f.Status = number(status, 0, 3)
	if stamped {
		var size string
		if size, rest = cut(rest); size != "-" {
			n, err := strconv.ParseInt(size, 10, 64)
			if err != nil || n < 0 {
				return Broken
			}
			f.Bytes = n
		}
	}
	if strings.HasPrefix(rest, `"`) { // referer
		_, after, ok := quoted(rest)
		if !ok {
			return Broken
		}
		rest = strings.TrimLeft(after, " ")
	}
	rest = strings.TrimPrefix(rest, "ua=")
	if strings.HasPrefix(rest, `"`) {
		ua, _, ok := quoted(rest)
		if !ok {
			return Broken
		}
		if ua != "-" {
			f.UserAgent = unescape(ua)
		}
	}
	if client.IsValid() {
		f.IP = client
	}
	return f.request(unescape(request))
}

func brokenIf(b bool) Verdict {
	if b {
		return Broken
	}
	return Unknown
}

// clientOf reads what stands before the stamp: [VHOST ]CLIENT IDENT USER, or only an address if there is no stamp.
func clientOf(head string, stamped bool, f *Fact) (netip.Addr, bool) {
	first, rest := cut(head)
	if !stamped {
		a, ok := addr(first)
		return a, ok && rest == ""
	}
	second, after := cut(rest)
	if after == "" {
		return netip.Addr{}, false
	}
	// VHOST CLIENT - USER has one field more; a user's name may hold blanks, so the addresses decide.
	if third, fourth := cut(after); fourth != "" {
		if a, ok := addr(second); ok {
			return a, true
		}
		if _, ok := addr(first); !ok && third == "-" {
			f.Host = second
			return netip.Addr{}, true
		}
	}
	if a, ok := addr(first); ok {
		return a, true
	}
	if strings.IndexByte(first, '.') >= 0 || second == "-" { // HostnameLookups
		f.Host = first
		return netip.Addr{}, true
	}
	return netip.Addr{}, false
}

// quoted reads a text in double quotes in which a backslash escapes, without taking the escapes out.
func quoted(s string) (text, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", s, false
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[1:i], s[i+1:], true
		}
	}
	return "", s, false
}

// unescape takes out \" \\ \n \xHH as Apache and nginx write them.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b = append(b, s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case 'x':
			if i+2 < len(s) && hexDigit(s[i+1]) && hexDigit(s[i+2]) {
				b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
				i += 2
				continue
			}
			b = append(b, '\\', 'x')
		case 'n':
			b = append(b, '\n')
		case 't':
			b = append(b, '\t')
		case 'r':
			b = append(b, '\r')
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

func unhex(c byte) byte {
	switch {
	case digit(c):
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}

// percent takes out the %HH of a URL.
func percent(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && hexDigit(s[i+1]) && hexDigit(s[i+2]) {
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

// loader reports whether a user agent is firmware or a boot loader. A log without user agents leaves it open: then yes.
func loader(ua string) bool {
	return ua == "" || bootAgent(ua)
}

func bootAgent(ua string) bool {
	for _, p := range [...]string{"iPXE", "gPXE", "UefiHttpBoot", "GRUB", "Syslinux", "U-Boot", "petitboot", "Etherboot"} {
		if strings.Contains(ua, p) {
			return true
		}
	}
	return false
}

// installAgent knows the programs with which installers fetch their files.
func installAgent(ua string) bool {
	for _, p := range [...]string{"anaconda", "debian-installer", "AutoYaST", "linuxrc", "Cloud-Init", "Ignition", "dracut", "agama", "subiquity"} {
		if strings.Contains(ua, p) {
			return true
		}
	}
	return false
}

// target splits "GET /a%20b?mac=… HTTP/1.1" (also without a protocol).
func target(request string) (method, path, query string) {
	method, rest := cut(request)
	if i := strings.LastIndex(rest, " HTTP/"); i >= 0 {
		rest = rest[:i]
	}
	if _, after, ok := strings.Cut(rest, "://"); ok { // the absolute form that proxies are asked in
		_, after, _ = strings.Cut(after, "/")
		rest = "/" + after
	}
	path, query, _ = strings.Cut(rest, "?")
	return method, percent(path), percent(query)
}

// request says what an answered request means.
func (f *Fact) request(request string) Verdict {
	method, path, query := target(request)
	if method != "GET" && method != "HEAD" || path == "" || path[0] != '/' {
		return Ignored
	}
	f.File = path
	f.Stage = StageOf(path, loader(f.UserAgent))
	if f.Stage == "" && query != "" && strings.Contains(path, "boot") && (macIn(query) != "" || uuidOf("", query) != "") {
		f.Stage = BootScript
	}
	if f.MAC = macIn(path); f.MAC == "" {
		f.MAC = macIn(query)
	}
	f.UUID = uuidOf(path, query)
	about := f.Stage != "" || bootAgent(f.UserAgent) || installAgent(f.UserAgent)
	switch st := f.Status; {
	case st >= 200 && st < 300 || st == 304:
		if method == "HEAD" {
			return Ignored
		}
		f.Kind = f.Stage
		return f.verdict()
	case st < 400 || !about:
		return Ignored
	case st == 404 || st == 410:
		f.Kind = NotFound
	case st == 401 || st == 403:
		f.Kind = Forbidden
	case st == 499:
		f.Kind, f.Reason = Aborted, "the client closed the connection"
	default:
		f.Kind = Refused
	}
	if f.Reason == "" {
		f.Reason = "HTTP " + strconv.Itoa(f.Status)
	}
	return Known
}
