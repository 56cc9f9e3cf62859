// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"provost/collector/internal/store"
)

// The test binary is its own helper process: what it does instead of testing is in this variable.
const helperEnv = "PROVOST_STORE_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "write":
		writeForever(os.Args[len(os.Args)-1])
	case "full":
		help(fillUp(os.Args[len(os.Args)-1]))
	case "faulty":
		help(faulty(os.Args[1:]))
	case "large":
		help(largeCommits(os.Args[1:]))
	case "logs":
		help(logChunks(os.Args[1:]))
	case "mounts":
		help(mounts(os.Args[len(os.Args)-1]))
	default:
		os.Exit(m.Run())
	}
}

func help(err error) {
	if err != nil {
		fmt.Println("ERROR", err)
		os.Exit(1)
	}
}

func helper(t *testing.T, what, path string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, path)
	cmd.Env = append(os.Environ(), helperEnv+"="+what)
	cmd.Stderr = os.Stderr
	return cmd
}

// writeForever updates from several goroutines and prints what was acknowledged, until it is killed.
func writeForever(path string) {
	s, err := store.Open(path, store.Options{})
	if err != nil {
		fmt.Println("ERROR", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	for g := range 8 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d-%d-%d", os.Getpid(), g, i)
				var rev uint64
				err := s.Update(context.Background(), func(tx *store.Tx) error {
					tx.Put(store.Nodes, key, []byte(strings.Repeat("v", 10+i%3000)))
					rev = tx.Append([]byte(key))
					if old := fmt.Sprintf("%d-%d-%d", os.Getpid(), g, i-5); i%3 == 0 {
						tx.Delete(store.Nodes, old)
					}
					return nil
				})
				if err != nil {
					fmt.Println("ERROR", err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println("ACK", rev, key)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// TestKill kills a writer at a random moment, again and again, and wants every acknowledged event in a sound database.
// PROVOST_SOAK=1 does so more often.
func TestKill(t *testing.T) {
	p := path(t)
	acked := map[uint64]string{}
	rounds := 8
	if os.Getenv("PROVOST_SOAK") == "1" {
		rounds = 100
	}
	for range rounds {
		cmd := helper(t, "write", p)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		giveUp := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		for n, enough := 0, 20+rand.N(100); lines.Scan(); n++ {
			if n == enough { // acknowledgements, however long they take
				giveUp.Stop()
				time.AfterFunc(rand.N(20*time.Millisecond), func() { cmd.Process.Kill() })
			}
			f := strings.Fields(lines.Text())
			if len(f) != 3 || f[0] != "ACK" {
				if len(f) > 0 && f[0] == "ERROR" {
					t.Fatal(lines.Text())
				}
				break // cut off by the kill
			}
			rev, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			acked[rev] = f[2]
		}
		io.Copy(io.Discard, out)
		cmd.Wait() // killed
		check(t, p)
	}
	if len(acked) < 100 {
		t.Fatalf("only %d acknowledgements: this proves nothing", len(acked))
	}
	s := open(t, p, store.Options{})
	found := map[uint64]string{}
	for after := uint64(0); ; {
		entries, err := s.Events(after, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			if e.Revision != after+1 {
				t.Fatalf("revision %d follows %d", e.Revision, after)
			}
			after = e.Revision
			found[e.Revision] = string(e.Value)
		}
	}
	for rev, key := range acked {
		if found[rev] != key {
			t.Fatalf("event %d was acknowledged as %q, the database has %q", rev, key, found[rev])
		}
	}
}

// fillUp writes until the file may not grow, goes on trying, then gets room again. The limit is the process's own, so
// that no right is needed.
func fillUp(path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	s, err := store.Open(path, store.Options{})
	if err != nil {
		return err
	}
	lost := 0
	s.SetHooks(store.Hooks{Lost: func() { lost++ }})
	limit := func(n uint64) error {
		var l unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &l); err != nil {
			return err
		}
		l.Cur = min(n, l.Max)
		return unix.Setrlimit(unix.RLIMIT_FSIZE, &l)
	}
	write := func(i int) error {
		return s.Update(context.Background(), func(tx *store.Tx) error {
			tx.Append([]byte(strings.Repeat("x", 100_000)))
			tx.Put(store.Nodes, strconv.Itoa(i), []byte("v"))
			return nil
		})
	}
	if err := limit(24 << 20); err != nil {
		return err
	}
	good := 0
	for ; err == nil && good < 1000; good++ {
		err = write(good)
	}
	good--
	if !errors.Is(err, store.ErrStorage) {
		return fmt.Errorf("after %d events: %v, want ErrStorage", good, err)
	}
	for range 3 {
		if err := write(5000); !errors.Is(err, store.ErrStorage) {
			return fmt.Errorf("while full: %v, want ErrStorage", err)
		}
	}
	if err := s.Update(context.Background(), func(*store.Tx) error { return nil }); err != nil {
		return fmt.Errorf("a call that writes nothing, while full: %v", err)
	}
	if s.Revision() != uint64(good) || lost != 4 || s.Err() != nil {
		return fmt.Errorf("revision %d, lost %d, %v; want %d, 4, nil", s.Revision(), lost, s.Err(), good)
	}
	if err := limit(unix.RLIM_INFINITY); err != nil {
		return err
	}
	if err := write(good); err != nil {
		return fmt.Errorf("with room again: %v", err)
	}
	fmt.Println("GOOD", good+1)
	return s.Close()
}

// TestFull: a full disk refuses, keeps what it has, and goes on when there is room.
func TestFull(t *testing.T) {
	p := path(t)
	out, err := helper(t, "full", p).Output()
	text := strings.TrimSpace(string(out))
	if err != nil || !strings.HasPrefix(text, "GOOD ") {
		t.Fatalf("helper = %q, %v", text, err)
	}
	good, err := strconv.Atoi(strings.TrimPrefix(text, "GOOD "))
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, p, store.Options{})
	if s.Revision() != uint64(good) || get(t, s, strconv.Itoa(good-1)) != "v" || get(t, s, "5000") != "" {
		t.Errorf("reopened: revision %d, want %d; refused key %q", s.Revision(), good, get(t, s, "5000"))
	}
}
