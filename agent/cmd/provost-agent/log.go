// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"provost/agent/internal/host"
	"provost/agent/internal/report"
	"provost/proto"
)

func logCommand() command {
	return command{
		name: "log", args: "[STEP] [-f]", summary: "show a step's output, or the agent's own log",
		help: `
On a terminal, control characters of the output are replaced.

Examples:
  provost-agent log
  provost-agent log packages -f

Exit status: 0, or 1 there is no such log, 64 wrong usage.`,
		setup: func(f *flag.FlagSet, s *streams) func(context.Context, []string) error {
			var c common
			c.stateFlag(f)
			follow := f.Bool("f", false, "go on as the log grows, until interrupted")
			return func(ctx context.Context, args []string) error {
				name := "agent"
				switch {
				case len(args) > 1:
					return usage("log: give one step")
				case len(args) == 1:
					name = strings.TrimSuffix(args[0], ".log")
				}
				if err := proto.CheckName("step", name); err != nil {
					return usage("log: %w", err)
				}
				var f *os.File
				if err := c.onState(askWait, func() (err error) { f, err = openLog(c.dir(), name+".log"); return err }); err != nil {
					return err
				}
				defer f.Close()
				return showLog(ctx, f, *follow, s)
			}
		},
	}
}

// logDir is where the logs of a state directory are: beside the journal, or on an installed system where the installer's
// agent mirrored them to, /var/log/provost/INSTALL for /var/lib/provost.
func logDir(dir report.Dir) string {
	id, err := dir.Identity()
	if err != nil || !proto.ValidID(id.Logs) {
		return dir.Path("logs")
	}
	return dir.Path("../../log/provost", id.Logs)
}

// openLog opens the log of this name, of the last boot that has one.
func openLog(dir report.Dir, name string) (*os.File, error) {
	path := filepath.Join(logDir(dir), name)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		var files []string
		for _, n := range logNames(filepath.Dir(path)) {
			files = append(files, n+".log")
		}
		if last := proto.LastBootLog(files, strings.TrimSuffix(name, ".log")); last != "" {
			path = filepath.Join(filepath.Dir(path), last)
		}
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no log %s; there are: %s", path, strings.Join(logNames(filepath.Dir(path)), ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("showing a log: %w", err)
	}
	return f, nil
}

func showLog(ctx context.Context, f io.Reader, follow bool, s *streams) error {
	var w io.Writer = s.out
	if terminal(s.out) {
		w = cleaner{s.out}
	}
	for {
		if _, err := io.Copy(w, f); err != nil {
			return fmt.Errorf("showing a log: %w", err)
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func logNames(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return []string{"none"}
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".log"))
	}
	return out
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// cleaner makes text printable. A rune cut in two at the end of a chunk of 32 KiB is replaced, too.
type cleaner struct{ w io.Writer }

func (c cleaner) Write(p []byte) (int, error) {
	if _, err := io.WriteString(c.w, host.Printable(strings.ToValidUTF8(string(p), "\uFFFD"))); err != nil {
		return 0, err
	}
	return len(p), nil
}
