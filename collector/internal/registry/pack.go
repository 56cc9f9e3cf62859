// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"provost/collector/internal/store"
)

// packed says what of an install's events is in bucket packed: the Count ones up to Revision. Those after it are in the feed.
//
// The value is a byte with its version, 1, and a zstd frame of the events' JSON as it was in the feed, each with a newline,
// in order of revisions.
type packed struct {
	Revision uint64 `json:"revision"`
	Count    int    `json:"count"`
}

const packVersion = 1

// errMoved: events were packed or trimmed while they were read.
var errMoved = errors.New("its events are being moved")

// lines gives an install's events as JSON, by revision, and up to where they are packed when those after it have been packed
// too. It holds no transaction open for longer than a piece takes; what is packed meanwhile is read again, at most three
// times.
func (r *Registry) lines(in *install) (lines [][]byte, to packed, err error) {
	for range 3 {
		in.mu.Lock()
		from, revisions := in.packed, slices.Clone(in.revisions)
		in.mu.Unlock()
		if lines, err = r.linesFrom(in.id, from, revisions); !errors.Is(err, errMoved) {
			to = from
			if n := len(revisions); n > 0 {
				to = packed{revisions[n-1], from.Count + n}
			}
			return lines, to, err
		}
	}
	return nil, packed{}, err
}

func (r *Registry) linesFrom(id string, from packed, revisions []uint64) ([][]byte, error) {
	var lines [][]byte
	if from.Count > 0 {
		var b []byte
		if err := r.st.View(func(s *store.Reader) error { b = s.Get(store.Packed, id); return nil }); err != nil {
			return nil, err
		}
		if b == nil {
			return nil, errMoved
		}
		var err error
		if lines, err = unpack(b); err != nil {
			return nil, err
		}
		if len(lines) > from.Count { // packed again since
			return nil, errMoved
		}
		if len(lines) < from.Count {
			return nil, fmt.Errorf("%d events are packed, %d should be: restore a backup", len(lines), from.Count)
		}
	}
	for piece := range slices.Chunk(revisions, 1024) {
		missing := uint64(0)
		err := r.st.View(func(s *store.Reader) error {
			for _, rev := range piece {
				b := s.Event(rev)
				if b == nil {
					missing = rev
					return nil
				}
				lines = append(lines, b)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if missing > 0 {
			return nil, fmt.Errorf("%w: event %d is not in the feed", errMoved, missing)
		}
	}
	return lines, nil
}

// pack moves an install's events out of the feed, so that this can be trimmed. The pack and the checkpoint that knows of it
// are in one commit: a crash leaves both or neither, and the feed has the events until then in any case.
func (r *Registry) pack(ctx context.Context, in *install) error {
	lines, to, err := r.lines(in)
	if err != nil {
		return fmt.Errorf("packing the events of install %s: %w", in.id, err)
	}
	value, err := packLines(lines)
	if err != nil {
		return fmt.Errorf("packing the events of install %s: %w", in.id, err)
	}
	r.checkpoints.writing.Lock() // no checkpoint of before comes after
	defer r.checkpoints.writing.Unlock()
	gone := false
	err = r.st.Update(ctx, func(tx *store.Tx) error {
		if gone = r.m.installs[in.id] != in; gone {
			return nil
		}
		if err := in.wakeFrom(tx.Get); err != nil {
			return err
		}
		b, err := in.checkpoint(r.st.Revision(), r.opt.Version, to)
		if err != nil {
			return err
		}
		tx.Put(store.Packed, in.id, value)
		tx.Put(store.States, in.id, b)
		return nil
	})
	if err != nil {
		return fmt.Errorf("packing the events of install %s: %w", in.id, err)
	}
	if !gone {
		in.setPacked(to)
	}
	return nil
}

func (in *install) setPacked(to packed) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.packed = to
	in.revisions = after(in.revisions, to.Revision)
}

// after gives a copy of the revisions beyond one, nil if there are none.
func after(revisions []uint64, beyond uint64) []uint64 {
	i, found := slices.BinarySearch(revisions, beyond)
	if found {
		i++
	}
	return append([]uint64(nil), revisions[i:]...)
}

// newest is the revision of an install's last event. in.mu is held.
func (in *install) newest() uint64 {
	if n := len(in.revisions); n > 0 {
		return in.revisions[n-1]
	}
	return in.packed.Revision
}

// What packs and unpacks is made once: each takes a megabyte. Both may be used by several at a time, who wait for each other.
var (
	packer   = sync.OnceValues(func() (*zstd.Encoder, error) { return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1)) })
	unpacker = sync.OnceValues(func() (*zstd.Decoder, error) { return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1)) })
)

func packLines(lines [][]byte) ([]byte, error) {
	enc, err := packer()
	if err != nil {
		return nil, err
	}
	size := 0
	for _, l := range lines {
		size += len(l) + 1
	}
	all := make([]byte, 0, size)
	for _, l := range lines {
		all = append(append(all, l...), '\n')
	}
	return enc.EncodeAll(all, []byte{packVersion}), nil
}

// unpack gives the events of a pack. Newlines are only between them: JSON escapes its own.
func unpack(b []byte) ([][]byte, error) {
	if len(b) == 0 || b[0] != packVersion {
		return nil, errors.New("its packed events have a form that this provostd does not know: upgrade it, or restore a backup")
	}
	dec, err := unpacker()
	if err != nil {
		return nil, err
	}
	all, err := dec.DecodeAll(b[1:], nil)
	if err != nil {
		return nil, fmt.Errorf("reading its packed events: %w: restore a backup", err)
	}
	lines := bytes.Split(bytes.TrimSuffix(all, []byte("\n")), []byte("\n"))
	for i, l := range lines {
		if !json.Valid(l) {
			return nil, fmt.Errorf("reading its packed events: number %d is damaged: restore a backup", i+1)
		}
	}
	return lines, nil
}
