// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"provost/collector/internal/evidence"
)

// realLogs are logs of real servers, as the tests of the parser have them.
const realLogs = "collector/internal/evidence/testdata/logs/*.log"

// parserFigures is P16: a large log is parsed, and searched by grep.
func parserFigures(ctx context.Context, o *options, t *table) error {
	files, err := filepath.Glob(realLogs)
	if err != nil {
		return err
	}
	grep, err := exec.LookPath("grep")
	if len(files) == 0 || err != nil {
		t.skip("P16", "log parser / grep -c DHCPACK", "it needs grep, and "+realLogs+" below the working directory")
		return nil
	}
	path, lines, err := o.largeLog(files)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	return t.measure(ctx, figure{id: "P16", name: "log parser / grep -c DHCPACK", unit: "lines/s", target: 0.05,
		ours: func(context.Context) (float64, error) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			f, err := os.Open(path)
			if err != nil {
				return 0, err
			}
			defer f.Close()
			p := evidence.NewParser(time.Now(), nil)
			known, n := 0, 0
			begin := time.Now()
			for sc := bufio.NewScanner(f); sc.Scan(); n++ {
				if _, verdict := p.Parse(sc.Bytes()); verdict == evidence.Known {
					known++
				}
			}
			took := time.Since(begin)
			if n != lines || known < n/8 {
				return 0, fmt.Errorf("%d of %d lines were read, %d of them were known", n, lines, known)
			}
			return float64(n) / took.Seconds(), nil
		},
		theirs: func(ctx context.Context) (float64, error) {
			begin := time.Now()
			_, err := exec.CommandContext(ctx, grep, "-a", "-c", "DHCPACK", path).Output() // into /dev/null it would stop at once
			return float64(lines) / time.Since(begin).Seconds(), err
		}})
}

// largeLog repeats the real logs, with lines of another program between them.
func (o *options) largeLog(files []string) (path string, lines int, err error) {
	const size = 32 << 20
	var part bytes.Buffer
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", 0, err
		}
		for l := range strings.Lines(string(b)) {
			part.WriteString(strings.TrimSuffix(l, "\n") + "\nNov 20 17:46:51 front sshd[77]: Accepted publickey for root from 10.0.0.9 port 51234 ssh2\n")
		}
	}
	f, err := os.CreateTemp(o.dir, "log-")
	if err != nil {
		return "", 0, err
	}
	for n := 0; n < size && err == nil; n += part.Len() {
		_, err = f.Write(part.Bytes())
		lines += bytes.Count(part.Bytes(), []byte("\n"))
	}
	return f.Name(), lines, errors.Join(err, f.Close())
}
