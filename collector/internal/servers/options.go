// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
)

// Options are those of in.tftpd that matter here.
type Options struct {
	File       string // where they stand
	Permissive bool   // -p: its own user's rights count
	Verbose    int    // -v: it writes down requests; with -vv refusals, too
}

// OptionFiles are the files in which Debian and SUSE keep them. Red Hat's in.tftpd needs none of them to say what becomes
// of a request.
func OptionFiles() []string { return []string{"/etc/default/tftpd-hpa", "/etc/sysconfig/tftp"} }

// maxSettings bounds what is read of such a file, in bytes.
const maxSettings = 64 << 10

// ReadOptions reads the first of the files that is there and sets TFTP_OPTIONS.
func ReadOptions(files ...string) (Options, bool) {
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		o, found := Options{File: path}, false
		for sc := bufio.NewScanner(io.LimitReader(f, maxSettings)); sc.Scan(); {
			if v, ok := strings.CutPrefix(strings.TrimSpace(sc.Text()), "TFTP_OPTIONS="); ok {
				o, found = Options{File: path}, true // the last one counts, as in a shell
				o.parse(strings.Fields(strings.Trim(v, `"'`)))
			}
		}
		f.Close()
		if found {
			return o, true
		}
	}
	return Options{}, false
}

// parse reads a command line (tftpd(8)). Behind a letter that takes a value, what is left of the word is that value.
func (o *Options) parse(words []string) {
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "--verbose":
			o.Verbose++
		case w == "--permissive":
			o.Permissive = true
		case w == "--verbosity" && i+1 < len(words):
			i++
			o.Verbose, _ = strconv.Atoi(words[i])
		case strings.HasPrefix(w, "--verbosity="):
			o.Verbose, _ = strconv.Atoi(w[len("--verbosity="):])
		case strings.HasPrefix(w, "--"):
		case strings.HasPrefix(w, "-"):
			for j := 1; j < len(w); j++ {
				if strings.IndexByte("auUmtTrBRP", w[j]) >= 0 {
					break
				}
				switch w[j] {
				case 'v':
					o.Verbose++
				case 'p':
					o.Permissive = true
				}
			}
		}
	}
}
