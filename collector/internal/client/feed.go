// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"provost/proto"
)

// maxBlock bounds one event of the feed: a record of 32 KiB, whose text JSON may make six times as long.
const maxBlock = 1 << 20

// Cursor is a place in the feed, as the collector calls it: what follows it comes next. The zero value is the feed's end,
// whatever that is when it is opened.
type Cursor string

// Feed reads the events after a cursor as they are committed, and moves the cursor along. It never returns nil: the end of
// the connection is an *UnreachableError, to be followed by another Feed from the same cursor. visit is called without an
// event once the feed is open; more tells it that the next event is there already; its error ends the feed and is returned.
//
// A cursor whose events the collector does not have, since they are no longer kept or a backup was restored, is refused
// (proto.CodeGone): who follows what the nodes are takes a new list of them, and goes on from its cursor.
//
// A collector that has nothing to say still says something every 15 s; after a minute of silence the feed ends.
func (c *Client) Feed(ctx context.Context, at *Cursor, visit func(e *proto.Event, more bool) error) error {
	v := url.Values{}
	if *at != "" {
		v.Set("from", string(*at))
	}
	b, err := c.stream(ctx, http.MethodGet, "/v1/events", v, nil)
	if err != nil {
		return err
	}
	defer b.Close()
	r := bufio.NewReaderSize(b, 64<<10)
	var id, data []byte
	size := 0
	for {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			err = c.unreachable(ctx, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
		if size += len(line); size > maxBlock {
			return fmt.Errorf("reading the feed: an event of more than %d bytes", maxBlock)
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch {
		case len(line) == 0: // the end of a block
			if err := deliver(at, id, data, r.Buffered() > 0, visit); err != nil {
				return err
			}
			id, data, size = nil, nil, 0
		case string(field) == "id":
			id = append([]byte{}, value...) // an empty one is one
		case string(field) == "data":
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, value...)
		}
	}
}

// readLine reads a line of any length up to maxBlock, without its end.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		piece, err := r.ReadSlice('\n')
		line = append(line, piece...)
		if err == nil {
			return bytes.TrimRight(line, "\r\n"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) || len(line) > maxBlock {
			return nil, err
		}
	}
}

// deliver takes one block: an id alone only says where the feed is.
func deliver(at *Cursor, id, data []byte, more bool, visit func(*proto.Event, bool) error) error {
	var e *proto.Event
	if data != nil {
		e = &proto.Event{}
		if err := json.Unmarshal(data, e); err != nil {
			return fmt.Errorf("reading the feed: %w", err)
		}
	}
	if data != nil || id != nil {
		if err := visit(e, more); err != nil {
			return err
		}
	}
	if id != nil {
		if _, err := proto.ParseCursor(string(id)); err != nil {
			return fmt.Errorf("reading the feed: id %w", err)
		}
		*at = Cursor(id)
	}
	return nil
}
