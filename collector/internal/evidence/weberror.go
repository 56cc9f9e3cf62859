// SPDX-License-Identifier: Apache-2.0

package evidence

import "strings"

// nginxError reads what follows the stamp in nginx's error log (src/core/ngx_log.c).
func (p *Parser) nginxError(s string, f *Fact) Verdict {
	level, rest := cut(s)
	if !strings.HasPrefix(level, "[") || !strings.HasSuffix(level, "]") {
		return Unknown
	}
	at := strings.Index(rest, ", client: ")
	if at < 0 {
		if strings.IndexByte(rest, '#') < 0 {
			return Unknown
		}
		f.Program = ProgNginx
		return Ignored // about nginx, not about a request
	}
	client, after, _ := strings.Cut(rest[at+len(", client: "):], ", ")
	ip, ok := addr(client)
	_, request, has := strings.Cut(after, `request: `)
	if !has {
		return Ignored
	}
	text, _, closed := quoted(request)
	if !ok || !closed {
		return Broken
	}
	f.Program, f.IP = ProgNginx, ip
	msg := rest[:at]
	if i := strings.IndexByte(msg, '*'); i >= 0 { // 9923#9923: *3 open() …
		_, msg = cut(msg[i:])
	}
	_, path, query := target(unescape(text))
	f.File, f.Stage = path, StageOf(path, true)
	if f.MAC = macIn(path); f.MAC == "" {
		f.MAC = macIn(query)
	}
	switch {
	case strings.Contains(msg, "(2: "), strings.Contains(msg, "is not found"), strings.Contains(msg, "(20: "):
		f.Kind = NotFound
	case strings.Contains(msg, "(13: "), strings.Contains(msg, "forbidden"):
		f.Kind = Forbidden
	case strings.Contains(msg, "prematurely closed"), strings.Contains(msg, "(104: "), strings.Contains(msg, "(32: "), strings.Contains(msg, "timed out"):
		f.Kind = Aborted
	case level == "[info]", level == "[notice]", level == "[debug]", level == "[warn]":
		return Ignored
	default:
		f.Kind = Refused
	}
	if f.Stage == "" {
		return Ignored // the access line tells whether it was a boot loader that asked
	}
	switch f.Reason = msg; {
	case strings.Contains(msg, "(2: "):
		f.Reason = "the file is not there" + pathOf(msg)
	case strings.Contains(msg, "(13: "):
		f.Reason = "the web server's user may not read the file or search its directory" + pathOf(msg)
	}
	return Known
}

// pathOf gives the file of nginx's "open() "PATH" failed".
func pathOf(msg string) string {
	if _, after, ok := strings.Cut(msg, `() "`); ok {
		if i := strings.LastIndex(after, `" failed`); i >= 0 {
			return ": " + after[:i]
		}
	}
	return ""
}

// apacheError reads what follows the stamp in Apache's error log, of 2.4 and of 2.2.
func (p *Parser) apacheError(s string, f *Fact) Verdict {
	f.Program = ProgApache
	client, any := "", false
	for strings.HasPrefix(s, "[") { // [module:level] [pid 1:tid 2] and, maybe behind (13)Permission denied:, [client …]
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return Broken
		}
		if c, is := strings.CutPrefix(s[1:end], "client "); is {
			client = c
		}
		any = true
		s = strings.TrimLeft(s[end+1:], " ")
	}
	if !any {
		return Unknown
	}
	errno := ""
	if client == "" && strings.HasPrefix(s, "(") {
		text, rest, ok := strings.Cut(s, ": [client ")
		if !ok {
			return Ignored
		}
		errno = text
		end := strings.IndexByte(rest, ']')
		if end < 0 {
			return Broken
		}
		client, s = rest[:end], strings.TrimLeft(rest[end+1:], " ")
	}
	if client == "" {
		return Ignored
	}
	ip, ok := addr(client)
	if !ok || strings.Count(client, ":") > 1 { // with a port, which IPv6 has no brackets around
		if i := strings.LastIndexByte(client, ':'); i > 0 {
			if a, with := addr(strings.Trim(client[:i], "[]")); with {
				ip, ok = a, true
			}
		}
	}
	if !ok {
		return Broken
	}
	f.IP = ip
	code, msg := "", s
	if strings.HasPrefix(s, "AH0") {
		if c, rest, has := strings.Cut(s, ": "); has {
			code, msg = c, rest
		}
	}
	if i := strings.LastIndex(msg, ", referer: "); i >= 0 {
		msg = msg[:i]
	}
	msg = unescape(msg)
	f.Reason = msg
	switch {
	case strings.HasPrefix(msg, "File does not exist: "), strings.HasPrefix(msg, "script not found or unable to stat: "):
		f.Kind = NotFound
		_, f.File, _ = strings.Cut(msg, ": ")
		f.Reason = "the file is not there"
	case strings.HasPrefix(msg, "file permissions deny server access: "):
		f.Kind = Forbidden
		_, f.File, _ = strings.Cut(msg, ": ")
		f.Reason = "the web server's user may not read the file"
	case strings.HasPrefix(msg, "client denied by server configuration: "):
		f.Kind = Forbidden
		_, f.File, _ = strings.Cut(msg, ": ")
		f.Reason = "denied by the web server's configuration"
	case strings.HasPrefix(msg, "access to ") && strings.Contains(msg, " denied"):
		f.Kind = Forbidden
		f.File, _, _ = strings.Cut(msg[len("access to "):], " denied")
		f.Reason = "the web server's user may not search the directory"
	case code == "AH00529", strings.Contains(msg, "unable to check htaccess file"):
		f.Kind = Forbidden
		f.File, _, _ = strings.Cut(msg, "/.htaccess ")
		f.File += "/"
		f.Reason = "the web server's user may not search the directory"
		return Known
	default:
		if errno == "" {
			return Ignored
		}
		f.Kind = Refused
		f.Reason = errno + ": " + msg
	}
	if f.Stage = StageOf(f.File, true); f.Stage == "" {
		return Ignored
	}
	f.MAC = macIn(f.File)
	return Known
}

// preseed reads debian-installer's own syslog: that it has loaded an answer file.
func preseed(s string, f *Fact) Verdict {
	url, ok := strings.CutPrefix(s, "successfully loaded preseed file from ")
	if !ok {
		return Ignored
	}
	_, path, query := target("GET " + url)
	f.Program, f.Kind, f.Stage, f.File = ProgInstaller, Answer, Answer, path
	if f.MAC = macIn(path); f.MAC == "" {
		f.MAC = macIn(query)
	}
	return Known
}
