// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// FileReport says what was read of one file.
type FileReport struct {
	Name string `json:"name"`
	Counts
	From  time.Time `json:"from,omitzero"` // earliest and latest stamp
	Until time.Time `json:"until,omitzero"`
	Bytes int64     `json:"bytes"`           // after unpacking
	Error string    `json:"error,omitempty"` // why reading ended before the file did
}

// replay reads one whole file, one fact at a time.
type replay struct {
	report  FileReport
	parser  *Parser
	joiner  *Joiner
	b       *bufio.Reader
	closers []io.Closer
	last    time.Time // of the latest line with a stamp: lines without one happened then
	seen    func(program string)
	odd     func(program, file string, line []byte) // a line of a known form, or program, that was not understood
	keep    bool                                    // the text of each fact's line

	head Fact
	text string // the line that head is from, if it is kept
	tr   Transaction
	more bool
}

// maxText is the most that is kept of a line's text, in bytes.
const maxText = 1 << 10

func text(line []byte) string {
	line = bytes.TrimRight(line, "\r\n")
	if len(line) > maxText {
		return string(line[:maxText]) + " …"
	}
	return string(line)
}

// openReplay opens a file, plain or compressed, or standard input under the name "-".
func openReplay(name string, stdin io.Reader, now time.Time, location *time.Location) (*replay, error) {
	r := &replay{joiner: NewJoiner(), report: FileReport{Name: name}}
	if name == "-" {
		r.parser = NewParser(now, location)
		r.b = bufio.NewReaderSize(stdin, MaxLine+1)
		return r, nil
	}
	fi, err := os.Stat(name) // before the open, which would wait for the other end of a pipe
	if err == nil && fi.IsDir() {
		err = errors.New("it is a directory: name the files in it")
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, unwrapPath(err))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, unwrapPath(err))
	}
	r.closers = append(r.closers, f)
	reference := now
	var in io.Reader = f
	if fi.Mode().IsRegular() {
		// Stamps without a year are of the year before the last change; a copy that is newer than its last line by
		// less than a year changes nothing.
		if fi.ModTime().Before(now) {
			reference = fi.ModTime()
		}
		packed, closer, err := unpack(f, name)
		if err != nil {
			f.Close()
			return nil, err
		}
		if packed != nil {
			in = packed
			r.closers = append(r.closers, closer)
		}
	}
	r.parser = NewParser(reference, location)
	r.b = bufio.NewReaderSize(in, MaxLine+1)
	return r, nil
}

// maxRotated bounds the rotated files that are read with one log.
const maxRotated = 64

// rotated knows what stands behind a log's name in a rotated one's: .1, .2.gz, -20261129.zst, .old.
func rotated(rest string) bool {
	return len(rest) > 1 && (digit(rest[1]) || strings.HasPrefix(rest[1:], "old"))
}

// WithRotated adds to each log its rotated files, plain or compressed, that were written to after a moment, oldest first.
// One that is named already is not read twice.
func WithRotated(files []string, since time.Time) []string {
	var out []string
	named := func(path string) bool {
		fi, err := os.Stat(path)
		return err != nil || slices.ContainsFunc(slices.Concat(files, out), func(f string) bool {
			other, err := os.Stat(f)
			return err == nil && os.SameFile(fi, other)
		})
	}
	for _, f := range files {
		if f != "-" {
			all := (&follower{path: f}).siblings()
			all = all[max(len(all)-maxRotated, 0):]
			for _, s := range all {
				if !s.changed.Before(since) && rotated(s.path[len(f):]) && !named(s.path) {
					out = append(out, s.path)
				}
			}
		}
		out = append(out, f)
	}
	return out
}

func unwrapPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (r *replay) close() {
	for i := len(r.closers) - 1; i >= 0; i-- {
		r.closers[i].Close()
	}
}

// next moves to the next fact. An error of reading ends the file and stands in the report.
func (r *replay) next() {
	for {
		line, err := r.b.ReadSlice('\n')
		r.report.Bytes += int64(len(line))
		if errors.Is(err, bufio.ErrBufferFull) {
			r.report.Add(Broken)
			for errors.Is(err, bufio.ErrBufferFull) {
				line, err = r.b.ReadSlice('\n')
				r.report.Bytes += int64(len(line))
			}
			line = nil
		}
		if len(line) > 0 && r.line(line, err == nil) {
			r.more = true
			return
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				r.report.Error = err.Error()
			}
			r.more = false
			return
		}
	}
}

// line reads one line. whole: it has its end; what a program is still writing is nothing to wonder at.
func (r *replay) line(b []byte, whole bool) bool {
	f, v := r.parser.Parse(b)
	r.report.Add(v)
	if whole && (v == Broken || v == Unknown && f.Program != "") {
		r.odd(f.Program, r.report.Name, b)
	}
	if f.Program != "" {
		r.seen(f.Program)
	}
	if v != Known {
		return false
	}
	if f.Time.IsZero() {
		f.Time = r.last
	} else {
		r.last = f.Time
		if r.report.From.IsZero() || f.Time.Before(r.report.From) {
			r.report.From = f.Time
		}
		if f.Time.After(r.report.Until) {
			r.report.Until = f.Time
		}
	}
	var ok bool
	if r.head, ok = r.joiner.Add(f); !ok {
		return false
	}
	r.tr, _ = r.joiner.Transaction(r.head)
	if r.keep {
		r.text = text(b)
	}
	return true
}
