// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// journald reads one object of `journalctl -o json` (systemd.journal-fields(7), and the Journal Export Formats document
// for its JSON form). A message that is not UTF-8 comes as an array of numbers.
func (p *Parser) journald(s string, f *Fact) Verdict {
	o, ok := journalObject(s)
	if !ok {
		return Broken
	}
	if o.message == "" || o.realtime == 0 && o.identifier == "" {
		return Unknown
	}
	if o.realtime > 0 {
		f.Time = time.UnixMicro(o.realtime).UTC()
	}
	f.Sender = o.host
	tag, _ := splitTag(o.identifier)
	if tag == "" {
		tag = o.comm
	}
	msg := o.message
	if i := strings.IndexByte(msg, '\n'); i >= 0 {
		msg = msg[:i]
	}
	return p.program(tag, o.pid, msg, f)
}

// entry is what is used of one journal entry.
type entry struct {
	cursor, host, identifier, comm, pid, message string
	realtime                                     int64 // microseconds since 1970
}

// journalObject walks over the members of one JSON object. It reads only flat objects of texts, as journald writes
// them; other values are stepped over.
func journalObject(s string) (e entry, ok bool) {
	s = strings.TrimRight(s, " \t")
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		return e, false
	}
	s = strings.TrimLeft(s[1:], " ")
	for s != "}" {
		var key, value string
		if key, s, ok = jsonText(s); !ok {
			return e, false
		}
		s = strings.TrimLeft(s, " ")
		if s == "" || s[0] != ':' {
			return e, false
		}
		s = strings.TrimLeft(s[1:], " ")
		if value, s, ok = jsonValue(s, key == "MESSAGE"); !ok {
			return e, false
		}
		switch key {
		case "__CURSOR":
			e.cursor = value
		case "__REALTIME_TIMESTAMP":
			e.realtime, _ = strconv.ParseInt(value, 10, 64)
		case "_HOSTNAME":
			e.host = value
		case "SYSLOG_IDENTIFIER":
			e.identifier = value
		case "_COMM":
			e.comm = value
		case "_PID", "SYSLOG_PID":
			e.pid = value
		case "MESSAGE":
			e.message = value
		}
		s = strings.TrimLeft(s, " ")
		if strings.HasPrefix(s, ",") {
			s = strings.TrimLeft(s[1:], " ")
			if s == "}" {
				return e, false
			}
			continue
		}
		if s != "}" {
			return e, false
		}
	}
	return e, true
}

// jsonText reads a string literal.
func jsonText(s string) (text, rest string, ok bool) {
	text, rest, ok = quoted(s)
	if !ok || strings.IndexByte(text, '\\') < 0 {
		return text, rest, ok
	}
	var v string
	if json.Unmarshal([]byte(s[:len(text)+2]), &v) != nil {
		return "", s, false
	}
	return v, rest, true
}

// jsonValue reads any value: the text of a string, and with octets an array of bytes as a text; of others only the
// extent.
func jsonValue(s string, octets bool) (text, rest string, ok bool) {
	if s == "" {
		return "", s, false
	}
	if s[0] == '"' {
		return jsonText(s)
	}
	if s[0] != '[' && s[0] != '{' { // number, true, false, null
		i := strings.IndexAny(s, ",}] ")
		if i <= 0 {
			return "", s, false
		}
		return s[:i], s[i:], true
	}
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			_, rest, ok := quoted(s[i:])
			if !ok {
				return "", s, false
			}
			i = len(s) - len(rest) - 1
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth > 0 {
				continue
			}
			if octets && s[0] == '[' {
				text = byteArray(s[1:i])
			}
			return text, s[i+1:], true
		}
	}
	return "", s, false
}

// byteArray reads "68,72,67"; the empty text if it is something else.
func byteArray(s string) string {
	b := make([]byte, 0, len(s)/3+1)
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(part), 10, 8)
		if err != nil {
			return ""
		}
		b = append(b, byte(n))
	}
	return string(b)
}
