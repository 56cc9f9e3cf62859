// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"

	"provost/initrd/e2e/vm"
)

// TestPowerCut cuts the power of a machine with the collector in it while agents install, PROVOST_CUTS times, twice if
// it is not set. Its disk is made again as it was at several flushes, with some of the writes after them that no flush
// had covered yet. From each of these disks a collector starts, its database is sound, and what the agents outside knew
// to be acknowledged when the flush was done is there.
func TestPowerCut(t *testing.T) {
	const agents = 60
	cuts := count(t, "PROVOST_CUTS", 2)
	ctx := within(t, 5*time.Minute+time.Duration(cuts)*8*time.Minute)
	l := crowdSite(t, ctx)
	if out, err := l.load(ctx, "order", "--server", l.Server(), "--agents", fmt.Sprint(agents)); err != nil {
		t.Fatalf("ordering installs: %v: %s", err, out)
	}
	l.KillCollector()
	f := newFrontend(t, ctx, l)
	for i := range cuts {
		start := time.Now()
		f.cut(i, agents)
		t.Logf("cut %d: %s in all", i+1, time.Since(start).Round(time.Second))
		if t.Failed() {
			return // the disks of this cut are kept
		}
	}
}

// frontend is a machine with the collector in it.
type frontend struct {
	t       *testing.T
	ctx     context.Context
	lab     *crowded
	images  string // the fast installer's
	initrd  string
	base    string // its disk before the first boot
	dataDir string // of the collector on this machine
}

// newFrontend takes the data of the lab's collector, which must not run, for the machine's disk.
func newFrontend(t *testing.T, ctx context.Context, l *crowded) *frontend {
	t.Helper()
	f := &frontend{t: t, ctx: ctx, lab: l, images: filepath.Join(l.Dir, "images", "fast"), initrd: filepath.Join(l.Dir, "frontend.img"),
		base: filepath.Join(l.Dir, "frontend.base"), dataDir: filepath.Join(l.Dir, "data")}
	f.must(os.Remove(filepath.Join(f.dataDir, "provostd.sock")))
	from := filepath.Join(l.Dir, "frontend")
	f.must(os.Mkdir(from, 0o755))
	f.run("cp", "-a", f.dataDir, from)
	f.must(vm.NewExt4(f.base, 256<<20, from))
	f.must(f.makeInitrd())
	return f
}

func (f *frontend) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// makeInitrd puts provostd and an /init of its own on top of the fast installer's initrd: of two archives the kernel
// takes the later one's files.
func (f *frontend) makeInitrd() error {
	var out bytes.Buffer
	w := cpio.NewWriter(&out)
	for name, from := range map[string]string{"init": "fast/collector-init", "usr/bin/provostd": filepath.Join(f.lab.Bin(), "provostd")} {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&cpio.Header{Name: name, Mode: cpio.TypeReg | 0o755, Size: int64(len(b)), Links: 1}); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	installer, err := os.ReadFile(filepath.Join(f.images, "initrd.img"))
	if err != nil {
		return err
	}
	padding := make([]byte, (4-len(installer)%4)%4) // the next archive begins at a multiple of 4
	return os.WriteFile(f.initrd, append(append(installer, padding...), out.Bytes()...), 0o644)
}

// sample is what was acknowledged at some moment, and how many writes the log had afterwards: those that made it lasting
// are among them.
type sample struct {
	acked  acknowledged
	writes int
}

// cut boots the machine, lets the agents loose on it, cuts its power and looks at what is left.
func (f *frontend) cut(number, agents int) {
	f.t.Helper()
	port := freePort(f.t)
	disk, log := filepath.Join(f.lab.Dir, "frontend.disk"), filepath.Join(f.lab.Dir, "frontend.log")
	f.copyBase(disk)
	m, err := vm.Start(f.ctx, vm.Config{
		Name: "frontend", MAC: "52:54:00:00:90:fd", Disk: disk, Dir: f.lab.Dir, WriteLog: log, Forward: map[int]int{port: 8440},
		Kernel: filepath.Join(f.images, "vmlinuz"), Initrd: f.initrd, Append: "console=ttyS0 quiet mitigations=off nokaslr no_timer_check net.ifnames=0 panic=5",
	})
	f.must(err)
	f.t.Cleanup(m.Kill)
	_, err = m.WaitConsole(f.ctx, regexp.MustCompile(`provostd .* is ready`))
	f.must(err)

	c := startCrowd(f.t, f.ctx, f.lab, fmt.Sprintf("https://127.0.0.1:%d", port), "--agents", fmt.Sprint(agents), "--over", "20s", "--ramp", "2s", "--cap", "1s")
	var samples []sample
	look := func() {
		f.t.Helper()
		var s sample
		c.ask("acknowledged", &s.acked)
		s.writes, err = vm.WriteLogLen(log)
		f.must(err)
		samples = append(samples, s)
	}
	// Fewer acknowledgements would prove nothing: on a busy machine they take longer.
	enough := func(a acknowledged) bool { return a.events() >= 300 && len(a.Logs) >= 10 }
	for end := time.Now().Add(4*time.Second + rand.N(8*time.Second)); time.Now().Before(end) || !enough(samples[len(samples)-1].acked); {
		sleep(f.t, f.ctx, 300*time.Millisecond+rand.N(400*time.Millisecond))
		look()
	}
	m.Kill()
	look() // what was on its way when the power went
	c.stop()

	w, err := vm.ReadWriteLog(log)
	f.must(err)
	defer w.Close()
	samples = slices.DeleteFunc(samples, func(s sample) bool { return s.acked.events() == 0 })
	for _, s := range []sample{samples[len(samples)/3], samples[2*len(samples)/3], samples[len(samples)-1]} {
		f.inspect(fmt.Sprintf("cut %d", number+1), w, s, rand.Uint64())
	}
}

// inspect makes the disk as it was at the last flush that a sample counts on, and starts a collector from it.
func (f *frontend) inspect(name string, w *vm.WriteLog, s sample, seed uint64) {
	f.t.Helper()
	n := w.LastFlush(s.writes)
	image := filepath.Join(f.lab.Dir, "frontend.replay")
	f.copyBase(image)
	lucky := rand.New(rand.NewPCG(seed, 0))
	f.must(w.Replay(image, n, func(int) bool { return lucky.IntN(2) == 0 }))
	root, err := vm.OpenExt4(image)
	f.must(err)
	defer root.Close()
	if err := root.Check(); err != nil {
		f.t.Errorf("the file system is not sound: %v", err)
	}
	f.must(os.RemoveAll(f.dataDir))
	f.must(root.CopyDir("/data", f.lab.Dir))
	f.lab.checkDatabase(f.t, f.ctx)

	acked := filepath.Join(f.lab.Dir, "acknowledged.json")
	b, err := json.Marshal(s.acked)
	f.must(err)
	f.must(os.WriteFile(acked, b, 0o644))
	if err := os.Remove(filepath.Join(f.dataDir, "provostd.sock")); err != nil && !os.IsNotExist(err) {
		f.t.Fatal(err)
	}
	f.must(f.lab.StartCollector(f.ctx))
	defer f.lab.KillCollector()
	if out, err := f.lab.load(f.ctx, "verify", "--server", f.lab.Server(), "--acknowledged", acked); err != nil {
		f.t.Errorf("%s, write %d of %d, seed %d: %v: %s", name, n, w.Len(), seed, err, out)
	}
	f.t.Logf("%s: as of write %d of %d with %d events and %d logs acknowledged", name, n, w.Len(), s.acked.events(), len(s.acked.Logs))
}

func (f *frontend) copyBase(to string) {
	f.t.Helper()
	f.run("cp", "--sparse=always", f.base, to)
}

func (f *frontend) run(name string, args ...string) {
	f.t.Helper()
	if out, err := exec.CommandContext(f.ctx, name, args...).CombinedOutput(); err != nil {
		f.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// freePort picks a port that nothing uses just now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
