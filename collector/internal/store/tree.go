// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// The engine reads all branches and leaves of a file when it opens it, in a goroutine of its own, where the damage of one
// page ends the process. Therefore they are read here first, as bytes: nothing of them is believed. It takes about as long
// as the engine does, which finds the pages in memory afterwards: some 10 s for a database of 3 GB on a disk that reads
// 300 MB/s. Values are not looked at.
//
// A page (bbolt, internal/common): id 8 bytes, flags 2, count 2, overflow 4, all little endian; then count elements of 16
// bytes. A branch's: position of the key from the element's own begin 4, its length 4, page 8. A leaf's: flags 4, position
// of the key 4, its length 4, the value's length 4, which follows the key. A leaf with flag 1 holds a bucket: root page 8,
// sequence 8, and, if the root is 0, a page of its own behind that.
const (
	pageHeader  = 16
	pageElement = 16
	branchPage  = 1
	leafPage    = 2
	bucketLeaf  = 1
	maxDepth    = 64        // a tree of 2^64 keys is not as deep
	wholePage   = 256 << 10 // of a longer one, its parts are read as they are needed
)

// meta is what the newest sound meta page of a file says.
type meta struct {
	root, pages, pageSize, tx uint64
}

// tree walks a file's pages. It is for one walk.
type tree struct {
	f    io.ReaderAt
	meta meta
	seen []uint64 // a bit for each page
}

// treeDamage says what is wrong with the pages that a file's meta page leads to, empty if nothing is.
func treeDamage(f io.ReaderAt, m meta) string {
	if m.pageSize < 1024 || m.pageSize > 64<<10 || m.pageSize&(m.pageSize-1) != 0 {
		return fmt.Sprintf("its pages have %d bytes", m.pageSize)
	}
	t := &tree{f: f, meta: m, seen: make([]uint64, m.pages/64+1)}
	if err := t.walk(m.root, nil, nil, 0); err != nil {
		return err.Error()
	}
	return ""
}

// page is one page with its overflow.
type page struct {
	t     *tree
	id    uint64
	at    int64 // in the file
	size  uint64
	buf   []byte // its begin, or all of it
	flags uint16
	count uint64
}

func (t *tree) open(id uint64) (*page, error) {
	if id < 2 || id >= t.meta.pages {
		return nil, fmt.Errorf("page %d is referred to, and the file has %d", id, t.meta.pages)
	}
	p := &page{t: t, id: id, at: int64(id * t.meta.pageSize), buf: make([]byte, t.meta.pageSize)}
	if _, err := t.f.ReadAt(p.buf, p.at); err != nil {
		return nil, fmt.Errorf("reading page %d: %w", id, err)
	}
	le := binary.LittleEndian
	overflow := uint64(le.Uint32(p.buf[12:]))
	p.flags, p.count = le.Uint16(p.buf[8:]), uint64(le.Uint16(p.buf[10:]))
	p.size = (overflow + 1) * t.meta.pageSize
	switch {
	case le.Uint64(p.buf) != id:
		return nil, fmt.Errorf("page %d says that it is page %d", id, le.Uint64(p.buf))
	case p.flags != branchPage && p.flags != leafPage:
		return nil, fmt.Errorf("page %d has the flags %#x", id, p.flags)
	case id+overflow >= t.meta.pages:
		return nil, fmt.Errorf("page %d goes on for %d pages, beyond the end of the file", id, overflow)
	case pageHeader+p.count*pageElement > p.size, p.flags == branchPage && p.count == 0:
		return nil, fmt.Errorf("page %d of %d bytes has %d elements", id, p.size, p.count)
	}
	for i := id; i <= id+overflow; i++ {
		if t.seen[i/64]&(1<<(i%64)) != 0 {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		t.seen[i/64] |= 1 << (i % 64)
	}
	if p.size > t.meta.pageSize {
		p.buf = make([]byte, min(p.size, wholePage))
		if _, err := t.f.ReadAt(p.buf, p.at); err != nil {
			return nil, fmt.Errorf("reading page %d: %w", id, err)
		}
	}
	return p, nil
}

// bytes gives a part of a page.
func (p *page) bytes(at, n uint64) ([]byte, error) {
	if at > p.size || n > p.size-at {
		return nil, fmt.Errorf("page %d of %d bytes refers to %d bytes at %d", p.id, p.size, n, at)
	}
	if at+n <= uint64(len(p.buf)) {
		return p.buf[at : at+n], nil
	}
	if n > MaxKey {
		return nil, fmt.Errorf("page %d has a key of %d bytes", p.id, n)
	}
	b := make([]byte, n)
	if _, err := p.t.f.ReadAt(b, p.at+int64(at)); err != nil {
		return nil, fmt.Errorf("reading page %d: %w", p.id, err)
	}
	return b, nil
}

// walk reads a page and all below it, whose keys are from least on, which may be nil, and before end.
func (t *tree) walk(id uint64, least, end []byte, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("the tree above page %d is %d pages deep", id, depth)
	}
	p, err := t.open(id)
	if err != nil {
		return err
	}
	type child struct {
		id  uint64
		key []byte
	}
	var children []child
	var before []byte
	le := binary.LittleEndian
	for i := range p.count {
		at := pageHeader + i*pageElement
		e, err := p.bytes(at, pageElement)
		if err != nil {
			return err
		}
		e = bytes.Clone(e)
		pos, length := uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:]))
		if p.flags == branchPage {
			pos, length = uint64(le.Uint32(e)), uint64(le.Uint32(e[4:]))
		}
		key, err := p.bytes(at+pos, length)
		if err != nil {
			return err
		}
		key = bytes.Clone(key)
		if i > 0 && bytes.Compare(before, key) >= 0 || i == 0 && least != nil && bytes.Compare(key, least) < 0 || end != nil && bytes.Compare(key, end) >= 0 {
			return fmt.Errorf("page %d: its keys are not in order", id)
		}
		before = key
		if p.flags == branchPage {
			children = append(children, child{le.Uint64(e[8:]), key})
			continue
		}
		if err := t.value(p, le.Uint32(e), at+pos+length, uint64(le.Uint32(e[12:])), depth); err != nil {
			return err
		}
	}
	for i, c := range children {
		next := end
		if i+1 < len(children) {
			next = children[i+1].key
		}
		if err := t.walk(c.id, c.key, next, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// value looks whether a value is within its page, and at the bucket that it may be.
func (t *tree) value(p *page, flags uint32, at, length uint64, depth int) error {
	if at > p.size || length > p.size-at {
		return fmt.Errorf("page %d of %d bytes has a value of %d bytes at %d", p.id, p.size, length, at)
	}
	if flags&bucketLeaf == 0 {
		return nil
	}
	if length < 16 {
		return fmt.Errorf("page %d has a bucket of %d bytes", p.id, length)
	}
	b, err := p.bytes(at, 16)
	if err != nil {
		return err
	}
	if root := binary.LittleEndian.Uint64(b); root != 0 {
		return t.walk(root, nil, nil, depth+1)
	}
	// An inline bucket: a leaf without buckets, within its value.
	inline, err := p.bytes(at+16, length-16)
	if err != nil {
		return err
	}
	in := &page{t: t, id: p.id, size: uint64(len(inline)), buf: inline}
	if len(inline) < pageHeader || binary.LittleEndian.Uint16(inline[8:]) != leafPage {
		return fmt.Errorf("page %d has a bucket that is no leaf", p.id)
	}
	in.count = uint64(binary.LittleEndian.Uint16(inline[10:]))
	for i := range in.count {
		e, err := in.bytes(pageHeader+i*pageElement, pageElement)
		if err != nil {
			return err
		}
		le := binary.LittleEndian
		begin := pageHeader + i*pageElement + uint64(le.Uint32(e[4:]))
		if n := uint64(le.Uint32(e[8:])) + uint64(le.Uint32(e[12:])); begin > in.size || n > in.size-begin || le.Uint32(e) != 0 {
			return fmt.Errorf("page %d has a damaged bucket", p.id)
		}
	}
	return nil
}
