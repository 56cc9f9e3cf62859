// SPDX-License-Identifier: Apache-2.0

package answer

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// checkPlain refuses what has no business in a value of one line, whatever it is for: control characters, of which a line
// break is one, the separators that some parsers take for one, and bytes that are no text.
func checkPlain(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("it has bytes that are not UTF-8")
	}
	for _, r := range s {
		switch {
		case unicode.IsControl(r), r == '\u2028', r == '\u2029':
			return fmt.Errorf("it has the control character %U", r)
		case r == '\ufeff', r&0xfffe == 0xfffe, r >= 0xfdd0 && r <= 0xfdef:
			return fmt.Errorf("it has %U, which is no character", r)
		}
	}
	return nil
}

// bareRE is what no shell, and no reader of kickstart files, takes for more than a word.
var bareRE = regexp.MustCompile(`^[A-Za-z0-9_/.@^+:=][A-Za-z0-9_/.@^+:=,%-]*$`)

// quoteShell gives one word of a POSIX shell.
func quoteShell(s string) (string, error) {
	if err := checkPlain(s); err != nil {
		return "", err
	}
	if bareRE.MatchString(s) && !strings.ContainsAny(s, "^=") {
		return s, nil
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'", nil
}

// quoteKickstart gives one argument of a kickstart command, which pykickstart splits by Python's shlex: within double
// quotes a backslash escapes itself and a double quote, and nothing is expanded.
func quoteKickstart(s string) (string, error) {
	if err := checkPlain(s); err != nil {
		return "", err
	}
	if strings.HasPrefix(s, "-") {
		return "", errors.New("it begins with a dash, as an option does")
	}
	if bareRE.MatchString(s) {
		return s, nil
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`, nil
}

// quoteXML gives the text of an element or of a quoted attribute (XML 1.0, 2.4).
func quoteXML(s string) (string, error) {
	if err := checkPlain(s); err != nil {
		return "", err
	}
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return "", err
	}
	return b.String(), nil
}

// quoteYAML gives a double-quoted scalar: a string of JSON is one (YAML 1.2, 1.2).
func quoteYAML(s string) (string, error) {
	if err := checkPlain(s); err != nil {
		return "", err
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(s)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// quotePreseed gives the value at the end of a line of debconf-set-selections(1), which knows no quotes: a backslash at
// the end would join the next line, and white space around the value is dropped.
func quotePreseed(s string) (string, error) {
	if err := checkPlain(s); err != nil {
		return "", err
	}
	switch {
	case strings.HasSuffix(s, `\`):
		return "", errors.New("it ends with a backslash, which joins the next line of a preseed file")
	case strings.TrimSpace(s) != s:
		return "", errors.New("it begins or ends with white space, which a preseed file cannot hold")
	}
	return s, nil
}

var cmdRE = regexp.MustCompile(`^[A-Za-z0-9 _.,:;/\\=@+~*#$-]*$`)

// quoteCmd gives text of a line of a batch file, within quotes or without. cmd.exe has no quoting that is safe for all of
// & | < > ^ % ! " ( and ), so that they are refused.
func quoteCmd(s string) (string, error) {
	if !cmdRE.MatchString(s) {
		return "", errors.New(`a batch file holds letters, digits, blanks and _.,:;/\=@+~*#$- only`)
	}
	return s, nil
}
