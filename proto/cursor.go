// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"fmt"
	"strconv"
	"strings"
)

// Cursor is a place in the feed: behind a revision of one database. A database that was restored from a backup gives revisions
// again that other events had, and has another ID: with it a cursor of before is seen to be none of its own.
type Cursor struct {
	Database string // its ID; empty is that of the collector that is asked, which then cannot compare
	Revision uint64
}

// String is how clients keep it and give it back, ID:REVISION. They need not know what it is made of.
func (c Cursor) String() string {
	revision := strconv.FormatUint(c.Revision, 10)
	if c.Database == "" {
		return revision
	}
	return c.Database + ":" + revision
}

// MaxCursor is the length of a cursor, in bytes.
const MaxCursor = 128

// ParseCursor reads a cursor, or a revision alone.
func ParseCursor(s string) (Cursor, error) {
	id, revision, found := strings.Cut(s, ":")
	if !found {
		id, revision = "", s
	}
	n, err := strconv.ParseUint(revision, 10, 64)
	odd := strings.ContainsFunc(id, func(r rune) bool { return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') })
	if err != nil || odd || found && id == "" || len(s) > MaxCursor {
		return Cursor{}, fmt.Errorf("%q is no place in the feed: that is a revision (a number), or a cursor as a list of nodes has it", Clip(s, MaxCursor))
	}
	return Cursor{id, n}, nil
}
