// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"provost/collector/internal/store"
)

// failAt makes a system call of this process fail for good, as the kernel of a bad disk would: a seccomp filter (seccomp(2)),
// for which no right is needed, and which only the end of the process takes away. With a page, only writes at its place.
func failAt(call uintptr, errno syscall.Errno, page int) error {
	const data = 0 // of struct seccomp_data: nr at 0, args at 16, each 8 bytes, little endian
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: data + at}
	}
	allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	fail := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}
	unless := func(value, skip uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: uint8(skip)}
	}
	program := []unix.SockFilter{load(0), unless(uint32(call), 1), fail, allow}
	if page >= 0 {
		program = []unix.SockFilter{load(0), unless(uint32(call), 3), load(16 + 3*8), unless(uint32(page)*4096, 1), fail, allow}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter)))
	if e != 0 {
		return e
	}
	return nil
}

// faulty writes with a disk that fails somewhere, and prints what was acknowledged, and how it ended. Arguments: system
// call, errno, page, bytes of an event, database.
func faulty(args []string) error {
	var n [4]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(args[i]); err != nil {
			return err
		}
	}
	s, err := store.Open(args[4], store.Options{Retry: time.Hour})
	if err != nil {
		return err
	}
	acked, seen := 0, 0
	s.SetHooks(store.Hooks{Committed: func(e []store.Entry) { seen += len(e) }})
	write := func() error {
		err := s.Update(context.Background(), func(tx *store.Tx) error {
			rev := tx.Append([]byte(strings.Repeat("e", n[3])))
			tx.Put(store.Nodes, fmt.Sprint(rev%7), []byte(strings.Repeat("v", 2000)))
			return nil
		})
		if err == nil {
			acked++
		}
		return err
	}
	for range 5 {
		if err := write(); err != nil {
			return err
		}
	}
	if err := failAt(uintptr(n[0]), syscall.Errno(n[1]), n[2]); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	failed := 0
	for range 10 {
		if err := write(); err != nil {
			if failed++; !errors.Is(err, store.ErrStorage) {
				return fmt.Errorf("a write that the disk refuses = %w, want ErrStorage", err)
			}
			if s.Trouble() == nil {
				return errors.New("the disk refuses, and Trouble says nothing")
			}
		} else if s.Trouble() != nil {
			return fmt.Errorf("a write that was taken leaves the trouble %w", s.Trouble())
		}
	}
	if int(s.Revision()) != acked || seen != acked {
		return fmt.Errorf("revision %d and %d events published, %d were acknowledged", s.Revision(), seen, acked)
	}
	fmt.Println("DONE", acked, failed, s.Err() != nil)
	return nil // without Close: as a crash
}

// TestWriteFaults lets the write of each page of a commit fail in turn, until none that is written is left, with each
// error that a disk has, also behind the end of the file; and the flush. Errors but that of a full disk, which are all one to
// the store, meet every third page; with PROVOST_SOAK=1 each. Whatever fails: no 2xx came of it, everything
// that was acknowledged is there afterwards, and what was refused is not. Only a file that could not grow for want of room is
// called a full disk.
func TestWriteFaults(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	size := 3000 // of an event
	run := func(call int, errno syscall.Errno, page int) (failed int, broken bool) {
		t.Helper()
		name := fmt.Sprintf("system call %d, %v, page %d", call, errno, page)
		p := path(t)
		cmd := exec.Command(self, fmt.Sprint(call), fmt.Sprint(int(errno)), fmt.Sprint(page), fmt.Sprint(size), p)
		cmd.Env = append(os.Environ(), helperEnv+"=faulty")
		out, err := cmd.CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		var acked int
		if _, scanErr := fmt.Sscanf(lines[len(lines)-1], "DONE %d %d %t", &acked, &failed, &broken); err != nil || scanErr != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		check(t, p)
		s, err := store.Open(p, store.Options{})
		if err != nil {
			t.Fatalf("%s: reopening: %v", name, err)
		}
		defer s.Close()
		got := int(s.Revision())
		// what a flush did not confirm may have come to the disk all the same, once: the first refusal is the last try
		if got != acked && !(broken && got == acked+1) {
			t.Errorf("%s: %d were acknowledged, %d are there", name, acked, got)
		}
		if err := s.Update(context.Background(), put("after", "1")); err != nil {
			t.Errorf("%s: writing after it: %v", name, err)
		}
		return failed, broken
	}
	total := 0
	for first, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
		every := 3
		if errno == syscall.ENOSPC || os.Getenv("PROVOST_SOAK") == "1" {
			first, every = 0, 1
		}
		clean := 0
		for page := first; clean < 8 && page < 200; page += every {
			failed, broken := run(unix.SYS_PWRITE64, errno, page)
			if clean += every; failed > 0 {
				clean = 0
				total += every
			}
			if broken && errno == syscall.ENOSPC {
				t.Errorf("page %d: after a full disk nothing is taken until a restart", page)
			}
			if !broken && failed > 0 && errno != syscall.ENOSPC {
				t.Errorf("page %d: after %v the store goes on as if nothing were", page, errno)
			}
		}
		if clean < 8 {
			t.Errorf("%v: no end of pages", errno)
		}
	}
	if total < 20 {
		t.Errorf("only %d faults were met: this proves nothing", total)
	}
	if failed, broken := run(unix.SYS_FDATASYNC, syscall.EIO, -1); failed != 10 || !broken {
		t.Errorf("flushing fails: %d of 10 refused, broken %v, want all, and broken", failed, broken)
	}
	size = 4 << 20 // the file has to grow, by writes that the fault does not look at the place of
	for _, tt := range []struct {
		errno  syscall.Errno
		broken bool
	}{{syscall.ENOSPC, false}, {syscall.EDQUOT, false}, {syscall.EFBIG, false}, {syscall.EIO, true}, {syscall.EROFS, true}} {
		if failed, broken := run(unix.SYS_PWRITE64, tt.errno, -1); failed != 10 || broken != tt.broken {
			t.Errorf("growing fails with %v: %d of 10 refused, broken %v, want all, and %v", tt.errno, failed, broken, tt.broken)
		}
	}
}
