// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"

	"provost/proto"
)

const (
	version = 1
	// maxLine is a line's length at most: checksum, space, the greatest event, newline.
	maxLine = 8 + 1 + proto.MaxEventSize + 1
)

// header is the first line of a segment.
type header struct {
	Journal string `json:"journal"`
	First   uint64 `json:"first"`
	Version int    `json:"version"`
}

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// encodeLine frames the JSON of v.
func encodeLine(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding record: %w", err)
	}
	line := make([]byte, 0, len(body)+10)
	line = fmt.Appendf(line, "%08x ", castagnoli(body))
	return append(append(line, body...), '\n'), nil
}

var (
	errFrame    = errors.New("no line of a journal")
	errChecksum = errors.New("checksum does not match")
)

// unframe gives the JSON of a line without its newline.
func unframe(line []byte) ([]byte, error) {
	if len(line) < 10 || line[8] != ' ' {
		return nil, errFrame
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], line[:8]); err != nil || bytes.ContainsAny(line[:8], "ABCDEF") {
		return nil, errFrame
	}
	body := line[9:]
	if uint32(sum[0])<<24|uint32(sum[1])<<16|uint32(sum[2])<<8|uint32(sum[3]) != castagnoli(body) {
		return nil, errChecksum
	}
	return body, nil
}

func decodeHeader(line []byte) (header, error) {
	var h header
	body, err := unframe(line)
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(body, &h); err != nil {
		return h, fmt.Errorf("decoding header: %w", err)
	}
	if h.Version > version {
		return h, fmt.Errorf("version %d is newer than this agent, which knows %d: use the agent that wrote it", h.Version, version)
	}
	if !proto.ValidJournal(h.Journal) || h.First == 0 {
		return h, errFrame
	}
	return h, nil
}

func decodeEvent(line []byte) (json.RawMessage, proto.Event, error) {
	var e proto.Event
	body, err := unframe(line)
	if err != nil {
		return nil, e, err
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, e, fmt.Errorf("decoding record: %w", err)
	}
	return body, e, nil
}

// fit cuts an event's texts to the limits of the protocol, so that the collector takes it. JSON writes some bytes as
// six, so lines of the tail may have to go, the oldest first.
func fit(e proto.Event) proto.Event {
	e.Message = proto.Clip(e.Message, proto.MaxMessage)
	e.Signal = proto.Clip(e.Signal, 16)
	e.Actor = proto.Clip(e.Actor, 128)
	if len(e.Tail) > proto.MaxTail {
		e.Tail = e.Tail[len(e.Tail)-proto.MaxTail:]
	}
	tail := make([]string, len(e.Tail))
	for i, l := range e.Tail {
		tail[i] = proto.Clip(l, proto.MaxTailLine)
	}
	e.Tail = tail
	for len(e.Tail) > 0 {
		if b, err := json.Marshal(&e); err != nil || len(b) <= proto.MaxEventSize {
			break
		}
		e.Tail = e.Tail[1:]
	}
	return e
}
