// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// The engine believes every page that it reads, and damage of one ends the process. Therefore all branches and leaves are read
// here when a file is opened, as bytes: nothing of them is believed. Values are not looked at, and of most not even read.
//
// A page (bbolt, internal/common): id 8 bytes, flags 2, count 2, overflow 4, all little endian; then count elements of 16
// bytes. A branch's: position of the key from the element's own begin 4, its length 4, page 8. A leaf's: flags 4, position
// of the key 4, its length 4, the value's length 4, which follows the key. A leaf with flag 1 holds a bucket: root page 8,
// sequence 8, and, if the root is 0, a page of its own behind that. A list of free pages has, behind its header, the ids of 8
// bytes; if the header counts 0xffff of them, their number first.
const (
	pageHeader  = 16
	pageElement = 16
	branchPage  = 1
	leafPage    = 2
	freePage    = 16
	bucketLeaf  = 1
	maxDepth    = 64 // a tree of 2^64 keys is not as deep
	noFreelist  = 1<<64 - 1
)

// meta is what the newest sound meta page of a file says.
type meta struct {
	root, freelist, pages, pageSize, tx uint64
}

// tree walks a file's pages. It is for one walk.
type tree struct {
	ahead ahead
	meta  meta
	size  uint64   // of the file; its last pages may be missing if they are free
	seen  []uint64 // a bit for each page
}

// ahead reads a file in larger and larger steps, up to readMost, while one place that is asked for follows the other.
type ahead struct {
	f    io.ReaderAt
	at   int64
	buf  []byte // what it has read, from at on
	step int
}

const (
	readMost = 1 << 20
	readGap  = 64 << 10 // what lies between two places that follow each other at most: reading on is cheaper than beginning anew
)

// read gives n bytes, which are good until the next call. The file may end after them.
func (a *ahead) read(at int64, n int) ([]byte, error) {
	end := a.at + int64(len(a.buf))
	if at >= a.at && at+int64(n) <= end {
		return a.buf[at-a.at:][:n], nil
	}
	if at >= a.at && at <= end+readGap {
		a.step = min(2*a.step, readMost)
	} else {
		a.step = 0
	}
	a.step = max(a.step, n, 4096)
	if cap(a.buf) < a.step {
		a.buf = make([]byte, a.step)
	}
	got, err := a.f.ReadAt(a.buf[:a.step], at)
	a.at, a.buf = at, a.buf[:got]
	if got < n {
		return nil, err
	}
	return a.buf[:n], nil
}

// treeDamage says what is wrong with the pages that a file's meta page leads to, empty if nothing is.
func treeDamage(f io.ReaderAt, size uint64, m meta) string {
	if m.pageSize < 1024 || m.pageSize > 64<<10 || m.pageSize&(m.pageSize-1) != 0 {
		return fmt.Sprintf("its pages have %d bytes", m.pageSize)
	}
	t := &tree{ahead: ahead{f: f}, meta: m, size: size, seen: make([]uint64, m.pages/64+1)}
	err := t.walk(m.root, nil, nil, 0)
	if err == nil && m.freelist != noFreelist {
		err = t.free(m.freelist)
	}
	if err != nil {
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
	buf   []byte // its begin, good until the next page is opened
	flags uint16
	count uint64
}

func (t *tree) open(id uint64, flags ...uint16) (*page, error) {
	if id < 2 || id >= t.meta.pages {
		return nil, fmt.Errorf("page %d is referred to, and the file has %d", id, t.meta.pages)
	}
	p := &page{t: t, id: id, at: int64(id * t.meta.pageSize)}
	if (id+1)*t.meta.pageSize > t.size {
		return nil, t.cutOff(id)
	}
	var err error
	if p.buf, err = t.ahead.read(p.at, int(t.meta.pageSize)); err != nil {
		return nil, fmt.Errorf("reading page %d: %w", id, err)
	}
	le := binary.LittleEndian
	overflow := uint64(le.Uint32(p.buf[12:]))
	p.flags, p.count = le.Uint16(p.buf[8:]), uint64(le.Uint16(p.buf[10:]))
	p.size = (overflow + 1) * t.meta.pageSize
	switch {
	case le.Uint64(p.buf) != id:
		return nil, fmt.Errorf("page %d says that it is page %d", id, le.Uint64(p.buf))
	case !slices.Contains(flags, p.flags):
		return nil, fmt.Errorf("page %d has the flags %#x", id, p.flags)
	case id+overflow >= t.meta.pages:
		return nil, fmt.Errorf("page %d goes on for %d pages, and the file has %d", id, overflow, t.meta.pages)
	case (id+overflow+1)*t.meta.pageSize > t.size:
		return nil, t.cutOff(id + overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if !t.mark(i) {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
	}
	return p, nil
}

// cutOff says that a page is not there.
func (t *tree) cutOff(id uint64) error {
	return fmt.Errorf("it is cut off: %d bytes, at least %d belong to it", t.size, (id+1)*t.meta.pageSize)
}

// mark reports whether a page was met for the first time.
func (t *tree) mark(id uint64) bool {
	was := t.seen[id/64]
	t.seen[id/64] |= 1 << (id % 64)
	return was != t.seen[id/64]
}

// bytes gives a part of a page, good until the next page is opened.
func (p *page) bytes(at, n uint64) ([]byte, error) {
	if at > p.size || n > p.size-at {
		return nil, fmt.Errorf("page %d of %d bytes refers to %d bytes at %d", p.id, p.size, n, at)
	}
	if at+n <= uint64(len(p.buf)) {
		return p.buf[at : at+n : at+n], nil
	}
	if n > 2*MaxKey {
		return nil, fmt.Errorf("page %d has a key or bucket of %d bytes", p.id, n)
	}
	b := make([]byte, n)
	if _, err := p.t.ahead.f.ReadAt(b, p.at+int64(at)); err != nil {
		return nil, fmt.Errorf("reading page %d: %w", p.id, err)
	}
	return b, nil
}

// child is a page below another, or a bucket.
type child struct {
	id  uint64
	key []byte // the least below it; nil for a bucket
}

// walk reads a page and all below it, whose keys are from least on, which may be nil, and before end.
func (t *tree) walk(id uint64, least, end []byte, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("the tree above page %d is %d pages deep", id, depth)
	}
	p, err := t.open(id, branchPage, leafPage)
	if err != nil {
		return err
	}
	if pageHeader+p.count*pageElement > p.size || p.flags == branchPage && p.count == 0 {
		return fmt.Errorf("page %d of %d bytes has %d elements", id, p.size, p.count)
	}
	var children []child
	if p.flags == branchPage {
		children = make([]child, 0, p.count)
		p.buf = bytes.Clone(p.buf) // its keys are needed until the last child was read
	}
	var before []byte
	le := binary.LittleEndian
	for i := range p.count {
		at := pageHeader + i*pageElement
		e, err := p.bytes(at, pageElement)
		if err != nil {
			return err
		}
		pos, length := uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:]))
		if p.flags == branchPage {
			pos, length = uint64(le.Uint32(e)), uint64(le.Uint32(e[4:]))
		}
		key, err := p.bytes(at+pos, length)
		if err != nil {
			return err
		}
		if i > 0 && bytes.Compare(before, key) >= 0 || i == 0 && least != nil && bytes.Compare(key, least) < 0 || end != nil && bytes.Compare(key, end) >= 0 {
			return fmt.Errorf("page %d: its keys are not in order", id)
		}
		before = key
		if p.flags == branchPage {
			children = append(children, child{le.Uint64(e[8:]), key})
			continue
		}
		root, err := p.value(le.Uint32(e), at+pos+length, uint64(le.Uint32(e[12:])))
		if err != nil {
			return err
		}
		if root != 0 {
			children = append(children, child{id: root})
		}
	}
	for i, c := range children {
		next := end
		if p.flags == leafPage {
			next = nil
		} else if i+1 < len(children) {
			next = children[i+1].key
		}
		if err := t.walk(c.id, c.key, next, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// free reads the list of free pages, after all others: none of them is in use, or there twice.
func (t *tree) free(id uint64) error {
	p, err := t.open(id, freePage)
	if err != nil {
		return err
	}
	at, n := p.at+pageHeader, p.count
	if n == 0xffff {
		n = binary.LittleEndian.Uint64(p.buf[pageHeader:])
		at += 8
	}
	if n > (p.size-uint64(at-p.at))/8 {
		return fmt.Errorf("page %d of %d bytes has a list of %d free pages", id, p.size, n)
	}
	for ; n > 0; n, at = n-1, at+8 {
		b, err := t.ahead.read(at, 8)
		if err != nil {
			return fmt.Errorf("reading page %d: %w", id, err)
		}
		if free := binary.LittleEndian.Uint64(b); free < 2 || free >= t.meta.pages || !t.mark(free) {
			return fmt.Errorf("page %d lists page %d as free, which is used", id, free)
		}
	}
	return nil
}

// value looks whether a value is within its page, and gives the root of the bucket that it may be, 0 for none.
func (p *page) value(flags uint32, at, length uint64) (root uint64, err error) {
	if at > p.size || length > p.size-at {
		return 0, fmt.Errorf("page %d of %d bytes has a value of %d bytes at %d", p.id, p.size, length, at)
	}
	if flags&bucketLeaf == 0 {
		return 0, nil
	}
	if length < 16 {
		return 0, fmt.Errorf("page %d has a bucket of %d bytes", p.id, length)
	}
	b, err := p.bytes(at, 16)
	if err != nil {
		return 0, err
	}
	if root := binary.LittleEndian.Uint64(b); root != 0 {
		return root, nil
	}
	// An inline bucket: a leaf without buckets, within its value.
	inline, err := p.bytes(at+16, length-16)
	if err != nil {
		return 0, err
	}
	in := &page{t: p.t, id: p.id, size: uint64(len(inline)), buf: inline}
	if len(inline) < pageHeader || binary.LittleEndian.Uint16(inline[8:]) != leafPage {
		return 0, fmt.Errorf("page %d has a bucket that is no leaf", p.id)
	}
	in.count = uint64(binary.LittleEndian.Uint16(inline[10:]))
	for i := range in.count {
		e, err := in.bytes(pageHeader+i*pageElement, pageElement)
		if err != nil {
			return 0, err
		}
		le := binary.LittleEndian
		begin := pageHeader + i*pageElement + uint64(le.Uint32(e[4:]))
		if n := uint64(le.Uint32(e[8:])) + uint64(le.Uint32(e[12:])); begin > in.size || n > in.size-begin || le.Uint32(e) != 0 {
			return 0, fmt.Errorf("page %d has a damaged bucket", p.id)
		}
	}
	return 0, nil
}
