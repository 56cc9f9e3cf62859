// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"strings"
	"time"
)

// MaxSkew is how far a stamp without a year may lie after the reference time before it is taken for one of the year
// before: a day covers every time zone and clocks that are hours off.
const MaxSkew = 24 * time.Hour

// number reads the digits s[from:to]; a blank counts as a leading zero. -1 if there is anything else.
func number(s string, from, to int) int {
	if to > len(s) {
		return -1
	}
	n := 0
	for i := from; i < to; i++ {
		c := s[i]
		switch {
		case '0' <= c && c <= '9':
			n = n*10 + int(c-'0')
		case c == ' ' && n == 0:
		default:
			return -1
		}
	}
	return n
}

// month reads an English month's first three letters.
func month(s string) time.Month {
	if len(s) < 3 {
		return 0
	}
	switch s[:3] {
	case "Jan":
		return 1
	case "Feb":
		return 2
	case "Mar":
		return 3
	case "Apr":
		return 4
	case "May":
		return 5
	case "Jun":
		return 6
	case "Jul":
		return 7
	case "Aug":
		return 8
	case "Sep":
		return 9
	case "Oct":
		return 10
	case "Nov":
		return 11
	case "Dec":
		return 12
	}
	return 0
}

// clock reads HH:MM:SS and an optional fraction after a dot or a comma. rest is what follows; ok says that it was one.
// A leap second is the second before it.
func clock(s string) (sec, nsec int, rest string, ok bool) {
	if len(s) < 8 || s[2] != ':' || s[5] != ':' {
		return 0, 0, s, false
	}
	h, m, se := number(s, 0, 2), number(s, 3, 5), number(s, 6, 8)
	if h < 0 || h > 23 || m < 0 || m > 59 || se < 0 || se > 60 {
		return 0, 0, s, false
	}
	se = min(se, 59)
	rest = s[8:]
	if len(rest) > 1 && (rest[0] == '.' || rest[0] == ',') && digit(rest[1]) {
		i, scale := 1, 100_000_000
		for ; i < len(rest) && digit(rest[i]); i++ {
			nsec += int(rest[i]-'0') * scale
			scale /= 10
		}
		rest = rest[i:]
	}
	return h*3600 + m*60 + se, nsec, rest, true
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// offset reads Z, ±HH:MM, ±HHMM or ±HH: seconds east of Greenwich.
func offset(s string) (sec int, rest string, ok bool) {
	if s == "" {
		return 0, s, false
	}
	if s[0] == 'Z' || s[0] == 'z' {
		return 0, s[1:], true
	}
	if s[0] != '+' && s[0] != '-' || len(s) < 3 || !digit(s[1]) || !digit(s[2]) {
		return 0, s, false
	}
	h, m, n := number(s, 1, 3), 0, 3
	switch {
	case len(s) >= 6 && s[3] == ':' && digit(s[4]) && digit(s[5]):
		m, n = number(s, 4, 6), 6
	case len(s) >= 5 && digit(s[3]) && digit(s[4]):
		m, n = number(s, 3, 5), 5
	}
	if h > 23 || m > 59 {
		return 0, s, false
	}
	sec = h*3600 + m*60
	if s[0] == '-' {
		sec = -sec
	}
	return sec, s[n:], true
}

func date(y int, mon time.Month, d, sec, nsec int, loc *time.Location) time.Time {
	return time.Date(y, mon, d, sec/3600, sec/60%60, sec%60, nsec, loc)
}

func daysIn(mon time.Month, y int) int {
	switch mon {
	case 2:
		if y%4 == 0 && (y%100 != 0 || y%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

func validDay(y, mon, d int) bool {
	return mon >= 1 && mon <= 12 && d >= 1 && d <= daysIn(time.Month(mon), y)
}

// iso reads YYYY-MM-DD, then T or a blank, the time, and an offset if there is one (RFC 3339 and what Kea and others
// write). Without an offset it is the parser's location. A comma may stand in the place of the dot.
func (p *Parser) iso(s string) (t time.Time, rest string, ok bool) {
	if len(s) < 19 || s[4] != '-' || s[7] != '-' || s[10] != 'T' && s[10] != 't' && s[10] != ' ' {
		return t, s, false
	}
	y, mon, d := number(s, 0, 4), number(s, 5, 7), number(s, 8, 10)
	if y < 1970 || !validDay(y, mon, d) {
		return t, s, false
	}
	sec, nsec, rest, ok := clock(s[11:])
	if !ok {
		return t, s, false
	}
	if east, after, has := offset(rest); has {
		return date(y, time.Month(mon), d, sec-east, nsec, time.UTC), after, true
	}
	return date(y, time.Month(mon), d, sec, nsec, p.location), rest, true
}

// traditional reads "Mon DD HH:MM:SS" of RFC 3164, with the year that some write before or after the time.
func (p *Parser) traditional(s string) (t time.Time, rest string, ok bool) {
	mon := month(s)
	if mon == 0 || len(s) < 14 || s[3] != ' ' {
		return t, s, false
	}
	i := 4
	if s[i] == ' ' {
		i++
	}
	j := i
	for j < len(s) && digit(s[j]) && j < i+2 {
		j++
	}
	d := number(s, i, j)
	if j == i || d < 1 || d > daysIn(mon, 2024) || j >= len(s) || s[j] != ' ' {
		return t, s, false
	}
	rest = s[j+1:]
	y := 0
	if len(rest) > 5 && rest[4] == ' ' {
		if y = number(rest, 0, 4); y >= 1970 {
			rest = rest[5:]
		} else {
			y = 0
		}
	}
	sec, nsec, rest, ok := clock(rest)
	if !ok {
		return t, s, false
	}
	if y == 0 && len(rest) > 5 && rest[0] == ' ' && rest[5] == ' ' && digit(rest[1]) {
		if n := number(rest, 1, 5); n >= 1970 && n < 2100 {
			y, rest = n, rest[5:]
		}
	}
	if y != 0 {
		if !validDay(y, int(mon), d) {
			return t, s, false
		}
		return date(y, mon, d, sec, nsec, p.location), rest, true
	}
	return p.withYear(mon, d, sec, nsec), rest, true
}

// withYear gives a stamp the latest year in which it exists and lies at most MaxSkew after the reference. Of an hour that comes
// twice, when clocks are set back, it is the later one, unless that has yet to come.
func (p *Parser) withYear(mon time.Month, d, sec, nsec int) time.Time {
	limit := p.reference.Add(MaxSkew)
	for y := limit.In(p.location).Year(); ; y-- {
		if d > daysIn(mon, y) { // 29 February: at most eight years between two
			continue
		}
		t := date(y, mon, d, sec, nsec, p.location)
		if t.After(limit) {
			continue
		}
		if p.location == time.UTC {
			return t
		}
		for _, later := range [...]time.Duration{time.Hour, 0, -time.Hour} { // time.Date may give either
			u := t.Add(later)
			if u.Hour() == t.Hour() && !u.After(p.reference.Add(soon)) {
				return u
			}
		}
		return t
	}
}

// soon is how far ahead of the reader's clock another machine's may be. A stamp that is further ahead is of another hour.
const soon = 5 * time.Minute

// The shift of stamps that another machine wrote without an offset: it may be in another zone.
const (
	zoneStep  = 15 * time.Minute // every zone's distance from every other is a multiple of it
	zoneMost  = 26 * time.Hour
	zoneSlack = time.Minute // by how much its clock and the way of the line may differ from a whole step
)

// zoned gives the time of a line that has just come over the network. A stamp without an offset that lies as far from now as
// zones do is of another zone.
func (p *Parser) zoned(line []byte, t time.Time) time.Time {
	away := p.reference.Sub(t)
	shift := away.Round(zoneStep)
	if t.IsZero() || shift == 0 || shift.Abs() > zoneMost || (away-shift).Abs() > zoneSlack {
		return t
	}
	_, east := p.reference.In(p.location).Zone()
	elsewhere := NewParser(p.reference, time.FixedZone("", east+int(zoneStep.Seconds())))
	if f, _ := elsewhere.Parse(line); f.Time.Equal(t) { // it had an offset, and says what it means
		return t
	}
	return t.Add(shift)
}

// full reads "Fri 2026-11-20 17:46:51 UTC", as journalctl -o short-full writes. A zone that is neither UTC nor a number is
// taken for the parser's location.
func (p *Parser) full(s string) (t time.Time, rest string, ok bool) {
	if len(s) < 25 || s[3] != ' ' || !digit(s[4]) || !weekday(s[:3]) {
		return t, s, false
	}
	utc := Parser{reference: p.reference, location: time.UTC}
	if t, rest, ok = utc.iso(s[4:]); !ok || !strings.HasPrefix(rest, " ") {
		return t, s, false
	}
	zone, rest := cut(rest[1:])
	if east, left, has := offset(zone); has && left == "" {
		return t.Add(-time.Duration(east) * time.Second), rest, true
	}
	if zone != "UTC" && zone != "GMT" {
		t, _, _ = p.iso(s[4:])
	}
	return t, rest, true
}

func weekday(s string) bool {
	switch s {
	case "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun":
		return true
	}
	return false
}

// clf reads the inside of the brackets of an access log, DD/Mon/YYYY:HH:MM:SS ±ZZZZ.
func (p *Parser) clf(s string) (t time.Time, ok bool) {
	if len(s) < 20 || s[2] != '/' || s[6] != '/' || s[11] != ':' {
		return t, false
	}
	d, mon, y := number(s, 0, 2), month(s[3:]), number(s, 7, 11)
	sec, nsec, rest, ok := clock(s[12:])
	if !ok || y < 1970 || !validDay(y, int(mon), d) {
		return t, false
	}
	if len(rest) > 1 && rest[0] == ' ' {
		if east, _, has := offset(rest[1:]); has {
			return date(y, mon, d, sec-east, nsec, time.UTC), true
		}
	}
	return date(y, mon, d, sec, nsec, p.location), true
}

// apache reads the inside of the first brackets of its error log, "Fri Nov 20 17:48:37.073924 2026".
func (p *Parser) apache(s string) (t time.Time, ok bool) {
	if len(s) < 24 || s[3] != ' ' {
		return t, false
	}
	mon, d := month(s[4:]), number(s, 8, 10)
	sec, nsec, rest, ok := clock(s[11:])
	if !ok || len(rest) < 5 {
		return t, false
	}
	y := number(rest, 1, 5)
	if y < 1970 || !validDay(y, int(mon), d) {
		return t, false
	}
	return date(y, mon, d, sec, nsec, p.location), true
}

// nginx reads "2026/11/20 17:46:47" of its error log.
func (p *Parser) nginx(s string) (t time.Time, rest string, ok bool) {
	if len(s) < 19 || s[4] != '/' || s[7] != '/' || s[10] != ' ' {
		return t, s, false
	}
	y, mon, d := number(s, 0, 4), number(s, 5, 7), number(s, 8, 10)
	sec, nsec, rest, ok := clock(s[11:])
	if !ok || y < 1970 || !validDay(y, mon, d) {
		return t, s, false
	}
	return date(y, time.Month(mon), d, sec, nsec, p.location), rest, true
}
