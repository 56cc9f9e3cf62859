// SPDX-License-Identifier: Apache-2.0

package sftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// maxPacket is the length of a request: OpenSSH's clients write at most 255 KiB at once.
const maxPacket = 256 << 10

// Types of packets, section 3 of the draft.
const (
	typeInit     = 1
	typeVersion  = 2
	typeOpen     = 3
	typeClose    = 4
	typeRead     = 5
	typeWrite    = 6
	typeLstat    = 7
	typeFstat    = 8
	typeSetstat  = 9
	typeFsetstat = 10
	typeOpendir  = 11
	typeReaddir  = 12
	typeRemove   = 13
	typeMkdir    = 14
	typeRmdir    = 15
	typeRealpath = 16
	typeStat     = 17
	typeRename   = 18
	typeReadlink = 19

	typeStatus = 101
	typeHandle = 102
	typeData   = 103
	typeName   = 104
	typeAttrs  = 105
)

// Codes of typeStatus, section 7.
const (
	statusOK          = 0
	statusEOF         = 1
	statusNoSuchFile  = 2
	statusDenied      = 3
	statusFailure     = 4
	statusBadMessage  = 5
	statusUnsupported = 8
)

// Flags of attributes, section 5.
const (
	attrSize     = 1
	attrOwner    = 2
	attrMode     = 4
	attrTimes    = 8
	attrExtended = 1 << 31
)

var (
	errBadMessage  = errors.New("the request makes no sense")
	errUnsupported = errors.New("this server cannot do that")
)

// readPacket reads one packet into buf, which it may make longer. io.EOF is an end between two packets.
func readPacket(r io.Reader, buf []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return buf, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxPacket {
		return buf, fmt.Errorf("reading a request: its length is %d, at most %d are taken", n, maxPacket)
	}
	if uint32(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return buf, fmt.Errorf("reading a request: %w", io.ErrUnexpectedEOF)
	}
	return buf, nil
}

// request is what is left of a packet. Once it was too short it gives zero values only.
type request struct {
	b   []byte
	bad bool
}

func (r *request) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return make([]byte, min(max(n, 0), 8))
	}
	var out []byte
	out, r.b = r.b[:n], r.b[n:]
	return out
}

func (r *request) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *request) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

func (r *request) bytes() []byte {
	n := r.uint32()
	if r.bad || uint64(n) > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	return r.take(int(n))
}

func (r *request) string() string { return string(r.bytes()) }

// attributes are what a client wants of a file; what flags leaves out is not wanted.
type attributes struct {
	flags         uint32
	size          uint64
	uid, gid      uint32
	mode          uint32
	access, write time.Time
}

func (r *request) attributes() attributes {
	a := attributes{flags: r.uint32()}
	if a.flags&attrSize != 0 {
		a.size = r.uint64()
	}
	if a.flags&attrOwner != 0 {
		a.uid, a.gid = r.uint32(), r.uint32()
	}
	if a.flags&attrMode != 0 {
		a.mode = r.uint32()
	}
	if a.flags&attrTimes != 0 {
		a.access, a.write = time.Unix(int64(r.uint32()), 0), time.Unix(int64(r.uint32()), 0)
	}
	if a.flags&attrExtended != 0 {
		for n := r.uint32(); n > 0 && !r.bad; n-- {
			r.bytes()
			r.bytes()
		}
	}
	return a
}

// answer is a packet in the making, its length yet unknown.
type answer []byte

func newAnswer(typ byte, id uint32) answer {
	return binary.BigEndian.AppendUint32(answer{0, 0, 0, 0, typ}, id)
}

func (a *answer) uint32(v uint32) { *a = binary.BigEndian.AppendUint32(*a, v) }
func (a *answer) uint64(v uint64) { *a = binary.BigEndian.AppendUint64(*a, v) }
func (a *answer) string(s string) {
	a.uint32(uint32(len(s)))
	*a = append(*a, s...)
}

func (a *answer) attributes(info fs.FileInfo) {
	a.uint32(attrSize | attrOwner | attrMode | attrTimes)
	a.uint64(uint64(info.Size()))
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		st = &syscall.Stat_t{}
	}
	a.uint32(st.Uid)
	a.uint32(st.Gid)
	a.uint32(st.Mode)
	a.uint32(uint32(st.Atim.Sec))
	a.uint32(uint32(st.Mtim.Sec))
}

// name is one file of a list, with the line of it that a person reads.
func (a *answer) name(name string, info fs.FileInfo) {
	a.string(name)
	if info == nil {
		a.string(name)
		a.uint32(0)
		return
	}
	links, uid, gid := uint64(1), uint32(0), uint32(0)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		links, uid, gid = uint64(st.Nlink), st.Uid, st.Gid
	}
	mode := strings.ToLower(info.Mode().String())
	if len(mode) > 10 { // Go's has two letters for a device
		mode = mode[len(mode)-10:]
	}
	a.string(fmt.Sprintf("%-10s %4d %-8d %-8d %12d %s %s", mode, links, uid, gid, info.Size(), info.ModTime().UTC().Format("2006-01-02 15:04"), name))
	a.attributes(info)
}

// status is the answer that says how it went.
func status(id uint32, err error) answer {
	code := uint32(statusFailure)
	text := "good"
	switch {
	case err == nil:
		code = statusOK
	case errors.Is(err, io.EOF):
		code = statusEOF
	case errors.Is(err, errBadMessage):
		code = statusBadMessage
	case errors.Is(err, errUnsupported):
		code = statusUnsupported
	case errors.Is(err, os.ErrNotExist):
		code = statusNoSuchFile
	case errors.Is(err, os.ErrPermission):
		code = statusDenied
	}
	if err != nil {
		text = err.Error()
	}
	a := newAnswer(typeStatus, id)
	a.uint32(code)
	a.string(text)
	a.string("") // language
	return a
}
