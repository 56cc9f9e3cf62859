// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/agent/internal/journal"
	"provost/proto"
)

const install = "01J00000000000000000000000"

// said collects what the journal says of its own troubles.
type said struct {
	mu   sync.Mutex
	what []string
}

func (s *said) warn(m string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.what = append(s.what, m)
}

func (s *said) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, w := range s.what {
		if strings.Contains(w, text) {
			n++
		}
	}
	return n
}

// sameFiles checks that the mirror is the primary, byte for byte.
func sameFiles(t *testing.T, dir, root string) {
	t.Helper()
	check := func(from, to string) {
		paths, err := filepath.Glob(filepath.Join(from, "*.log"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("nothing in %s: %v", from, err)
		}
		for _, p := range paths {
			a, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(to, filepath.Base(p)))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a, b) {
				t.Errorf("the mirror of %s differs: %d bytes, want %d", p, len(b), len(a))
			}
		}
	}
	check(filepath.Join(dir, "journal"), filepath.Join(root, "var/lib/provost/journal"))
	if logs, _ := os.ReadDir(filepath.Join(dir, "logs")); len(logs) > 0 {
		check(filepath.Join(dir, "logs"), filepath.Join(root, "var/log/provost", install))
	}
}

func TestMirror(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	j := open(t, dir, journal.Options{})
	add(t, j, "before")
	log, err := j.Log("s.log")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(log, "early")
	if err := j.SetMirror(root, install); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(log, "late")
	log.Close()
	add(t, j, "after")
	sameFiles(t, dir, root)
	if info, err := os.Stat(filepath.Join(root, "var/lib/provost")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the state directory on the target = %v, %v", info.Mode(), err)
	}
	// Another handle, as of another process, mirrors too.
	other := open(t, dir, journal.Options{})
	add(t, other, "from another")
	sameFiles(t, dir, root)
	// The end of it.
	if err := j.SetMirror("", ""); err != nil {
		t.Fatal(err)
	}
	add(t, j, "alone")
	if past := scanned(t, filepath.Join(root, "var/lib/provost/journal")); past[len(past)-1] != "from another" {
		t.Errorf("the mirror went on after its end: %q", past)
	}
}

func scanned(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	for r, err := range journal.Scan(dir) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r.Event.Message)
	}
	return out
}

// TestMirrorHeals: whatever happens to the target, steps go on, it is said once, and the mirror is whole again afterwards.
func TestMirrorHeals(t *testing.T) {
	for _, tt := range []struct {
		name string
		// harm breaks the target and gives the function that mends it.
		harm func(t *testing.T, root string) func()
	}{
		{"unmounted", func(t *testing.T, root string) func() {
			os.Rename(filepath.Join(root, "var"), filepath.Join(root, "away"))
			return func() {
				if _, err := os.Stat(filepath.Join(root, "var")); err == nil {
					t.Error("something was written into the empty mount point")
				}
				os.Rename(filepath.Join(root, "away"), filepath.Join(root, "var"))
			}
		}},
		{"torn", func(t *testing.T, root string) func() {
			path := filepath.Join(root, "var/lib/provost/journal", fmt.Sprintf("%020d.log", 1))
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			os.Truncate(path, info.Size()-7)
			return func() {}
		}},
		{"no directory", func(t *testing.T, root string) func() {
			dir := filepath.Join(root, "var/lib/provost/journal")
			os.Rename(dir, dir+".x")
			os.WriteFile(dir, nil, 0o600)
			return func() { os.Remove(dir); os.Rename(dir+".x", dir) }
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, root := t.TempDir(), t.TempDir()
			var s said
			j := open(t, dir, journal.Options{Warn: s.warn})
			if err := j.SetMirror(root, install); err != nil {
				t.Fatal(err)
			}
			add(t, j, "one")
			mend := tt.harm(t, root)
			add(t, j, "two", "three", "four")
			mend()
			add(t, j, "five")
			waitFor(t, func() bool {
				a, _ := os.ReadFile(firstSegment(dir))
				b, _ := os.ReadFile(filepath.Join(root, "var/lib/provost/journal", filepath.Base(firstSegment(dir))))
				return len(a) > 0 && bytes.Equal(a, b)
			})
			if tt.name == "torn" {
				return // healed by the same pass that found it
			}
			waitFor(t, func() bool { return s.count("complete again") == 1 })
			if s.count("cannot be written") != 1 {
				t.Errorf("said %q, want the trouble and its end once each", s.what)
			}
		})
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Error("waited in vain")
}

// mountTmpfs gives a small file system of its own.
func mountTmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("no tmpfs can be mounted here: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("something still holds the file system: %v", err)
			syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	return dir
}

// TestTargetCanBeUnmounted: at no moment after an Append does the agent hold the target.
func TestTargetCanBeUnmounted(t *testing.T) {
	root := mountTmpfs(t, "4m")
	dir := t.TempDir()
	j := open(t, dir, journal.Options{})
	if err := j.SetMirror(root, install); err != nil {
		t.Fatal(err)
	}
	log, err := j.Log("s.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for i := range 5 {
		fmt.Fprintln(log, i)
		add(t, j, "record")
		if err := syscall.Unmount(root, 0); err != nil {
			t.Fatalf("after record %d: %v", i, err)
		}
		if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=4m"); err != nil {
			t.Fatal(err)
		}
		if err := j.SetMirror(root, install); err != nil {
			t.Fatal(err)
		}
	}
	sameFiles(t, dir, root)
}

func TestTargetFull(t *testing.T) {
	root := mountTmpfs(t, "256k")
	dir := t.TempDir()
	var s said
	j := open(t, dir, journal.Options{Warn: s.warn})
	if err := j.SetMirror(root, install); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(root, "ballast")
	os.WriteFile(ballast, make([]byte, 1<<20), 0o600) // as much as fits
	for i := range 30 {
		add(t, j, fmt.Sprintf("%d %s", i, strings.Repeat("z", 1500)))
	}
	if s.count("cannot be written") != 1 {
		t.Errorf("said %q, want the full target once", s.what)
	}
	os.Remove(ballast)
	add(t, j, "space again")
	waitFor(t, func() bool { return s.count("complete again") == 1 })
	add(t, j, "and on", "and on")
	sameFiles(t, dir, root)
}

func TestTargetReadOnly(t *testing.T) {
	root := mountTmpfs(t, "1m")
	dir := t.TempDir()
	j := open(t, dir, journal.Options{})
	if err := j.SetMirror(root, install); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", root, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skip("cannot remount: ", err)
	}
	add(t, j, "one", "two")
	if err := syscall.Mount("", root, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	add(t, j, "three")
	waitFor(t, func() bool { return len(scanned(t, filepath.Join(root, "var/lib/provost/journal"))) >= 4 })
}

// TestDiskFull: the reserve takes the records of a full disk; then they wait in memory; nothing is lost when there is
// space again.
func TestDiskFull(t *testing.T) {
	dir := mountTmpfs(t, "1m")
	var s said
	j, err := journal.Open(dir, stampOf(boot1), journal.Options{Warn: s.warn})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	add(t, j, "before")
	ballast := filepath.Join(dir, "ballast")
	os.WriteFile(ballast, make([]byte, 2<<20), 0o600)
	long := strings.Repeat("q", 1000)
	taken, refused := 0, 0
	for refused < 50 {
		_, err := j.Append(proto.Event{Kind: proto.KindStepStart, Phase: proto.PhasePost, Step: "s", Try: 1, Message: long})
		switch {
		case err == nil && refused == 0:
			taken++
		case errors.Is(err, syscall.ENOSPC):
			refused++
		default:
			t.Fatalf("Append on a full disk: %v after %d taken and %d refused", err, taken, refused)
		}
	}
	if taken < 150 {
		t.Errorf("the reserve took %d records of 1 KiB, want 150 and more", taken)
	}
	if s.count("is full") != 1 {
		t.Errorf("said %q, want the full disk once", s.what)
	}
	os.Remove(ballast)
	add(t, j, "after")
	got := messages(t, j)
	steps, notes := 0, 0
	for _, m := range got {
		switch {
		case m == long:
			steps++
		case strings.Contains(m, "disk of the journal"):
			notes++
		}
	}
	if steps != taken+refused || got[len(got)-1] == "" {
		t.Errorf("%d records are there, want %d and %d", steps, taken, refused)
	}
	if notes == 0 {
		t.Error("no note says that the disk was full")
	}
}

// TestReplica: on the installed system the mirror is a past journal, and a new one begins.
func TestReplica(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	j := open(t, dir, journal.Options{})
	if err := j.SetMirror(root, install); err != nil {
		t.Fatal(err)
	}
	add(t, j, "one", "two")
	state := filepath.Join(root, "var/lib/provost")
	// An agent in the chroot, in the same boot, must not touch it.
	if _, err := journal.Open(state, stampOf(boot1), journal.Options{}); !errors.Is(err, journal.ErrReplica) {
		t.Fatalf("Open of the mirror in the same boot = %v, want ErrReplica", err)
	}
	j.SetMirror("", "")
	add(t, j, "after the target was unmounted")

	disk := openBoot(t, state, boot2, journal.Options{})
	if disk.ID() == j.ID() {
		t.Fatal("the new journal has the old one's id")
	}
	add(t, disk, "booted")
	past, err := disk.Past()
	if err != nil || len(past) != 1 || past[0].ID() != j.ID() {
		t.Fatalf("Past = %v, %v", past, err)
	}
	if d := cmp.Diff([]string{"one", "two"}, messages(t, past[0])); d != "" {
		t.Errorf("past records (-want +got):\n%s", d)
	}
	if last, _ := past[0].Last(); last != 2 {
		t.Errorf("Last of the past = %d, want 2", last)
	}
	if d := cmp.Diff([]string{"booted"}, messages(t, disk)); d != "" {
		t.Errorf("new records (-want +got):\n%s", d)
	}
	var all []string
	for r, err := range disk.Events() {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r.Event.Message)
	}
	if d := cmp.Diff([]string{"one", "two", "booted"}, all); d != "" {
		t.Errorf("all records (-want +got):\n%s", d)
	}
	again := openBoot(t, state, boot2, journal.Options{})
	if again.ID() != disk.ID() {
		t.Error("the second Open began another journal")
	}
}

// TestReplicaCrash: a power cut between the two renames of taking over.
func TestReplicaCrash(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	j := open(t, dir, journal.Options{})
	if err := j.SetMirror(root, install); err != nil {
		t.Fatal(err)
	}
	add(t, j, "one")
	state := filepath.Join(root, "var/lib/provost")
	disk, err := journal.Open(state, stampOf(boot2), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id := disk.ID()
	disk.Close()
	if err := os.Rename(filepath.Join(state, "journal."+j.ID()), filepath.Join(state, "journal.new")); err != nil {
		t.Fatal(err)
	}
	again := openBoot(t, state, boot2, journal.Options{})
	past, err := again.Past()
	if err != nil || len(past) != 1 || again.ID() != id {
		t.Errorf("after the crash: id %s, want %s; past %v, %v", again.ID(), id, past, err)
	}
}

// TestMirrorOfAnotherAttempt: the disk was not formatted and has the journal of an earlier attempt.
func TestMirrorOfAnotherAttempt(t *testing.T) {
	root := t.TempDir()
	for i := range 2 {
		dir := t.TempDir()
		j := open(t, dir, journal.Options{})
		log, err := j.Log("s.log")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(log, "attempt %d, with a different text\n", i)
		log.Close()
		add(t, j, lines(3+i)...)
		if err := j.SetMirror(root, install); err != nil {
			t.Fatal(err)
		}
		sameFiles(t, dir, root)
	}
	if old, _ := filepath.Glob(filepath.Join(root, "var/lib/provost/journal.old-*", "*.log")); len(old) != 1 {
		t.Errorf("the earlier journal was not kept: %v", old)
	}
}

// TestMirrorHasNoTornLine: what a killed writer left half written is cut off in the primary, so it must not be copied.
func TestMirrorHasNoTornLine(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	j := open(t, dir, journal.Options{})
	add(t, j, "one")
	f, err := os.OpenFile(firstSegment(dir), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "0123abcd {\"kind\":\"note\",\"mess")
	f.Close()
	if err := j.SetMirror(root, install); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "var/lib/provost/journal", filepath.Base(firstSegment(dir)))); err != nil || !bytes.HasSuffix(b, []byte("}\n")) {
		t.Errorf("the mirror ends with %q, %v", b[max(0, len(b)-20):], err)
	}
	add(t, j, "two")
	sameFiles(t, dir, root)
}
