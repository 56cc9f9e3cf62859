// SPDX-License-Identifier: Apache-2.0

package sftp_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"provost/agent/internal/rescue/sftp"
)

// u32 and str write what a request is made of.
func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
func str(s string) []byte { return append(u32(uint32(len(s))), s...) }

// packet is a request; its id is 7.
func packet(typ byte, parts ...[]byte) []byte {
	b := append([]byte{typ}, u32(7)...)
	for _, p := range parts {
		b = append(b, p...)
	}
	return append(u32(uint32(len(b))), b...)
}

// serve gives the answers to requests, without their lengths.
func serve(t *testing.T, root string, requests ...[]byte) ([][]byte, error) {
	t.Helper()
	var out bytes.Buffer
	err := sftp.Server{Root: root}.Serve(bytes.NewReader(bytes.Join(requests, nil)), &out)
	var answers [][]byte
	for out.Len() > 0 {
		n := binary.BigEndian.Uint32(out.Next(4))
		if int(n) > out.Len() {
			t.Fatalf("an answer of %d bytes has %d", n, out.Len())
		}
		answers = append(answers, out.Next(int(n)))
	}
	return answers, err
}

// code is that of a status answer, -1 if it is something else.
func code(a []byte) int {
	if len(a) < 9 || a[0] != 101 {
		return -1
	}
	return int(binary.BigEndian.Uint32(a[5:]))
}

var handle1, none = str("\x00\x00\x00\x01"), u32(0)

func TestRequests(t *testing.T) {
	fill := func(t *testing.T) string {
		dir := t.TempDir()
		for name, text := range map[string]string{"a": "hello", "b": "there"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, c := range []struct {
		name     string
		requests [][]byte
		want     []int // the codes
		check    func(dir string, last []byte) bool
	}{
		{"version", [][]byte{append(u32(5), 1, 0, 0, 0, 3)}, []int{-1}, func(_ string, a []byte) bool { return bytes.Equal(a, []byte{2, 0, 0, 0, 3}) }},
		{"read", [][]byte{packet(3, str("/a"), u32(1), none), packet(5, handle1, u64(1), u32(1<<31))}, []int{-1, -1},
			func(_ string, a []byte) bool { return bytes.HasSuffix(a, str("ello")) }},
		{"end of the file", [][]byte{packet(3, str("/a"), u32(1), none), packet(5, handle1, u64(5), u32(9))}, []int{-1, 1}, nil},
		{"a negative offset", [][]byte{packet(3, str("/a"), u32(1), none), packet(5, handle1, u64(1<<63), u32(9))}, []int{-1, 5}, nil},
		{"write", [][]byte{packet(3, str("new"), u32(2|8), u32(4), u32(0o640)), packet(6, handle1, u64(2), str("xy")), packet(4, handle1)}, []int{-1, 0, 0},
			func(dir string, _ []byte) bool {
				b, _ := os.ReadFile(filepath.Join(dir, "new"))
				i, err := os.Stat(filepath.Join(dir, "new"))
				return string(b) == "\x00\x00xy" && err == nil && i.Mode() == 0o640
			}},
		{"append", [][]byte{packet(3, str("a"), u32(2|4), none), packet(6, handle1, u64(0), str("!"))}, []int{-1, 0},
			func(dir string, _ []byte) bool {
				b, _ := os.ReadFile(filepath.Join(dir, "a"))
				return string(b) == "hello!"
			}},
		{"a pipe", [][]byte{packet(3, str("pipe"), u32(1), none)}, []int{4}, nil},
		{"neither read nor write", [][]byte{packet(3, str("a"), u32(0), none)}, []int{5}, nil},
		{"not there", [][]byte{packet(3, str("x"), u32(1), none), packet(17, str("x")), packet(13, str("x"))}, []int{2, 2, 2}, nil},
		{"no handle", [][]byte{packet(4, str("abcd")), packet(5, str(""), u64(0), u32(1)), packet(8, handle1), packet(12, handle1)}, []int{5, 5, 5, 5}, nil},
		{"rename keeps what is there", [][]byte{packet(18, str("a"), str("b")), packet(18, str("a"), str("c"))}, []int{4, 0},
			func(dir string, _ []byte) bool {
				b, _ := os.ReadFile(filepath.Join(dir, "b"))
				c, _ := os.ReadFile(filepath.Join(dir, "c"))
				return string(b) == "there" && string(c) == "hello"
			}},
		{"directories", [][]byte{packet(14, str("d"), none), packet(14, str("d"), none), packet(15, str("d")), packet(13, str("a")), packet(15, str("b"))}, []int{0, 4, 0, 0, 4}, nil},
		{"a list, then its end", [][]byte{packet(11, str("/")), packet(12, handle1), packet(12, handle1)}, []int{-1, -1, 1}, nil},
		{"attributes", [][]byte{packet(9, str("a"), u32(1|4|8), u64(2), u32(0o604), u32(1), u32(1000000000))}, []int{0},
			func(dir string, _ []byte) bool {
				i, err := os.Stat(filepath.Join(dir, "a"))
				return err == nil && i.Size() == 2 && i.Mode() == 0o604 && i.ModTime().Unix() == 1000000000
			}},
		{"extended attributes are passed over", [][]byte{packet(9, str("a"), u32(1<<31), u32(1), str("x"), str("y"))}, []int{0}, nil},
		{"too short", [][]byte{packet(9, str("a")), packet(3, str("a")), packet(18, str("a")), packet(14, str("d")), packet(13), packet(6, handle1)}, []int{5, 5, 5, 5, 5, 5},
			func(dir string, _ []byte) bool { _, err := os.Stat(filepath.Join(dir, "d")); return err != nil }},
		{"what it has not", [][]byte{packet(200, str("statvfs@openssh.com"), str("/")), packet(20, str("a"), str("l")), packet(99)}, []int{8, 8, 5}, nil},
		{"out of the root", [][]byte{packet(17, str("../../../../etc/passwd")), packet(16, str("../.."))}, []int{2, -1}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := fill(t)
			answers, err := serve(t, dir, c.requests...)
			if err != nil || len(answers) != len(c.want) {
				t.Fatalf("%d answers, %v, want %d", len(answers), err, len(c.want))
			}
			for i, a := range answers {
				if got := code(a); got != c.want[i] {
					t.Errorf("answer %d is %q, code %d, want %d", i+1, a, got, c.want[i])
				}
			}
			if c.check != nil && !c.check(dir, answers[len(answers)-1]) {
				t.Errorf("it did something else; the last answer is %q", answers[len(answers)-1])
			}
		})
	}
}

// A client that makes no sense ends the server; one that goes away does, too.
func TestNonsense(t *testing.T) {
	for name, c := range map[string]struct {
		in  []byte
		bad bool
	}{
		"nothing":          {nil, false},
		"length 0":         {u32(0), true},
		"a huge length":    {u32(1 << 30), true},
		"half a packet":    {packet(17, str("/"))[:8], true},
		"half a length":    {[]byte{0, 0}, true},
		"a whole one only": {packet(17, str("/")), false},
	} {
		if _, err := serve(t, t.TempDir(), c.in); (err != nil) != c.bad {
			t.Errorf("%s: Serve = %v, want an error: %v", name, err, c.bad)
		}
	}
}

func TestHandlesAreBounded(t *testing.T) {
	var all [][]byte
	for range 65 {
		all = append(all, packet(11, str("/")))
	}
	before, _ := os.ReadDir("/proc/self/fd")
	answers, err := serve(t, t.TempDir(), all...)
	if err != nil || len(answers) != 65 || code(answers[63]) != -1 || code(answers[64]) != 4 {
		t.Errorf("the 65th open directory: %d answers, %v", len(answers), err)
	}
	if after, _ := os.ReadDir("/proc/self/fd"); len(after) > len(before) {
		t.Errorf("%d files stayed open", len(after)-len(before))
	}
}

// A large directory comes in pieces that a client takes (256 KiB).
func TestLargeDirectory(t *testing.T) {
	dir := t.TempDir()
	for i := range 300 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s%03d", strings.Repeat("n", 200), i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	requests := [][]byte{packet(11, str("/"))}
	for range 8 {
		requests = append(requests, packet(12, handle1))
	}
	answers, err := serve(t, dir, requests...)
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for _, a := range answers[1:] {
		if a[0] == 104 {
			names += int(binary.BigEndian.Uint32(a[5:]))
		}
		if len(a) > 128<<10 {
			t.Errorf("an answer has %d bytes", len(a))
		}
	}
	if names != 300 || code(answers[8]) != 1 {
		t.Errorf("%d names, the last answer %.20q, want 300 and the end", names, answers[8])
	}
}

// Whatever comes: no panic, no answer but whole ones, nothing outside of the root.
func FuzzServe(f *testing.F) {
	f.Add(bytes.Join([][]byte{packet(3, str("/a"), u32(3|8), none), packet(6, handle1, u64(0), str("x")), packet(5, handle1, u64(0), u32(4)), packet(4, handle1)}, nil))
	f.Add(bytes.Join([][]byte{packet(11, str("/")), packet(12, handle1), packet(14, str("d"), none), packet(18, str("d"), str("e")), packet(15, str("e"))}, nil))
	f.Add(packet(9, str("a"), u32(1<<31), u32(1<<31)))
	f.Add(append(u32(5), 1, 0, 0, 0, 3))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 4<<10 {
			return
		}
		outer := t.TempDir()
		root := filepath.Join(outer, "root")
		if err := os.Mkdir(root, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "a"), []byte("hello"), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := (sftp.Server{Root: root}).Serve(bytes.NewReader(in), &out); err == io.EOF {
			t.Errorf("Serve = EOF, want nil or a reason")
		}
		for out.Len() > 0 {
			if out.Len() < 4 {
				t.Fatalf("%d bytes behind the last answer", out.Len())
			}
			if n := binary.BigEndian.Uint32(out.Next(4)); len(out.Next(int(n))) != int(n) {
				t.Fatalf("an answer of %d bytes is cut", n)
			}
		}
		if list, _ := os.ReadDir(outer); len(list) > 1 || len(list) == 1 && list[0].Name() != "root" {
			t.Errorf("it made %v beside its root", list)
		}
	})
}
