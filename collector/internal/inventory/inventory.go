// SPDX-License-Identifier: Apache-2.0

// Package inventory reads lists of nodes that people keep in files: YAML as `provost node show -o yaml` prints it, CSV,
// and the stanzas of xCAT's `lsdef -z`.
//
// It says what a file says, and on which line; whether that can be taken is the collector's decision. It must never
// stop at the first problem, nor pass over anything that it does not understand without a word.
package inventory

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"provost/proto"
)

// The formats.
const (
	YAML = "yaml"
	CSV  = "csv"
	XCAT = "xcat"
)

// Formats lists every format.
var Formats = []string{YAML, CSV, XCAT}

// Guess tells the format by a file's name, "" if that does not say.
func Guess(path string) string {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".yaml", ".yml":
		return YAML
	case ".csv":
		return CSV
	case ".stanza", ".xcat", ".lsdef":
		return XCAT
	}
	return ""
}

// Entry is one node of a file.
type Entry struct {
	Line int // where it begins, from 1
	proto.InventoryNode
}

// Problem is something in a file that cannot be understood.
type Problem struct {
	Line int
	Text string
}

// File is what was read. With Problems the nodes that have none are there all the same, so that more can be said of them.
type File struct {
	Nodes    []Entry
	Problems []Problem // by line
	Notes    []string  // what was left out, and is nothing wrong
}

// Parse reads a file. A byte order mark at its begin is passed over.
func Parse(format string, b []byte) File {
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	var f File
	switch format {
	case YAML:
		f.yaml(b)
	case CSV:
		f.csv(b)
	case XCAT:
		f.xcat(b)
	default:
		f.wrong(1, "format %q: use %s", format, strings.Join(Formats, ", "))
	}
	f.twice()
	slices.SortStableFunc(f.Problems, func(a, b Problem) int { return a.Line - b.Line })
	return f
}

func (f *File) wrong(line int, format string, args ...any) {
	f.Problems = append(f.Problems, Problem{line, fmt.Sprintf(format, args...)})
}

// twice takes out nodes that stand twice: which of the two counts cannot be told.
func (f *File) twice() {
	first := map[string]int{}
	f.Nodes = slices.DeleteFunc(f.Nodes, func(e Entry) bool {
		line, ok := first[e.Name]
		if ok {
			f.wrong(e.Line, "node %q stands twice: it is on line %d too", proto.Clip(e.Name, 64), line)
			return true
		}
		first[e.Name] = e.Line
		return false
	})
}

// list splits a field that holds several words.
func list(s string) []string {
	return slices.Clip(strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t,;|", r) }))
}

func text(s string) *string { return &s }

// flag reads yes and no as people write them.
func flag(s string) (*bool, error) {
	v := false
	switch strings.ToLower(s) {
	case "yes", "true", "1", "y":
		v = true
	case "no", "false", "0", "n", "":
	default:
		return nil, fmt.Errorf("protected %q: write yes or no", proto.Clip(s, 32))
	}
	return &v, nil
}
