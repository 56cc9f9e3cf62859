// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"provost/agent/internal/host"
	"provost/proto"
)

// root makes a machine of files. A name that ends in / is a directory.
func root(t *testing.T, files map[string]string) host.Host {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return host.Host{Root: dir}
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
	}{
		{"", nil},
		{"  a  b=c\n", []string{"a", "b=c"}},
		{`a="b c" d`, []string{"a=b c", "d"}},
		{`"a=b c" d`, []string{"a=b c", "d"}},
		{`a="" ""`, []string{"a=", ""}},
		{`a="b c`, []string{"a=b c"}},
		{"a\tb\x00c", []string{"a", "b", "c"}},
		{`a=\"b`, []string{`a=\b`}},
	} {
		if got := host.Words(c.line); !slices.Equal(got, c.want) {
			t.Errorf("Words(%q) = %q, want %q", c.line, got, c.want)
		}
	}
}

func TestSettings(t *testing.T) {
	const cmdline = `BOOT_IMAGE=/vmlinuz provost.url=https://10.0.0.1:8440,https://[fd00::1]:8440 provost.node=n1 ` +
		`provost.install=01J provost.claim=secret provost.ca=sha256:aa quiet -- provost.hold provost.node=n2` + "\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  host.Settings
		err   string
	}{
		{"nothing", map[string]string{"/proc/cmdline": "quiet\n"}, host.Settings{}, ""},
		{"no /proc", nil, host.Settings{}, "reading the kernel command line"},
		{"command line", map[string]string{"/proc/cmdline": cmdline}, host.Settings{
			URLs: []string{"https://10.0.0.1:8440", "https://[fd00::1]:8440"}, Node: "n2", Install: "01J", Claim: "secret", CA: "sha256:aa", Hold: true,
		}, ""},
		{"file", map[string]string{"/proc/cmdline": "", host.ConfigFile: "# ours\nurl = https://a:1 , https://b:2\nnode=n3\n\nca=/ca\njoin-key-file=/key\n"},
			host.Settings{URLs: []string{"https://a:1", "https://b:2"}, Node: "n3", CA: "/ca", JoinKeyFile: "/key"}, ""},
		{"the command line wins", map[string]string{"/proc/cmdline": "provost.node=n1 provost.debug", host.ConfigFile: "url=https://a:1\nnode=n3\n"},
			host.Settings{URLs: []string{"https://a:1"}, Node: "n1", Debug: true}, ""},
		{"a wrong file", map[string]string{"/proc/cmdline": "", host.ConfigFile: "node=n3\nnod=n4\nurl\n"},
			host.Settings{Node: "n3"}, "agent.conf: line 2: unknown key \"nod\""},
		{"rescue", map[string]string{"/proc/cmdline": "provost.node=n1 provost.rescue"}, host.Settings{Node: "n1", Rescue: true}, ""},
		{"held no more", map[string]string{"/proc/cmdline": "provost.hold provost.hold=0"}, host.Settings{}, ""},
	} {
		got, err := root(t, c.files).Settings()
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error = %v, want %q", c.name, err, c.err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: Settings (-want +got):\n%s", c.name, diff)
		}
	}
	h := root(t, map[string]string{"/proc/cmdline": "", host.CAFile: "PEM"})
	if s, err := h.Settings(); err != nil || s.CA != filepath.Join(h.Root, host.CAFile) {
		t.Errorf("CA = %q, %v, want the file that is there", s.CA, err)
	}
}

func TestMachine(t *testing.T) {
	h := root(t, map[string]string{
		"/proc/sys/kernel/random/boot_id": "11111111-1111-4111-8111-111111111111\n",
		"/proc/meminfo":                   "MemTotal:        2048000 kB\nMemFree: 1 kB\n",
		"/sys/class/dmi/id/product_uuid":  "4C4C4544-0042-3510-8050\n", "/sys/class/dmi/id/product_serial": "To Be Filled By O.E.M.\n",
		"/sys/class/dmi/id/sys_vendor": "QEMU\n", "/proc/device-tree/serial-number": "pi-17\x00",
		"/sys/class/net/lo/address": "00:00:00:00:00:00\n", "/sys/class/net/lo/type": "772\n",
		"/sys/class/net/eth1/address": "52:54:00:00:00:02\n", "/sys/class/net/eth1/type": "1\n", "/sys/class/net/eth1/device/": "", "/sys/class/net/eth1/operstate": "up\n",
		"/sys/class/net/eth0/address": "52:54:00:00:00:01\n", "/sys/class/net/eth0/type": "1\n", "/sys/class/net/eth0/device/": "", "/sys/class/net/eth0/operstate": "down\n",
		"/sys/class/net/br0/address": "52:54:00:00:00:03\n", "/sys/class/net/br0/type": "1\n", "/sys/class/net/br0/operstate": "up\n",
		"/sys/class/net/ib0/address": "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:31:78:f1\n", "/sys/class/net/ib0/type": "32\n", "/sys/class/net/ib0/device/": "",
		"/sys/block/vda/size": "4194304\n", "/sys/block/vda/device/vendor": "0x1af4\n", "/sys/block/loop0/size": "8\n",
		"/sys/block/sda/size": "2048\n", "/sys/block/sda/device/model": "DISK 1  \n", "/sys/block/sr0/size": "1\n", "/sys/block/sr0/device/model": "CD\n",
	})
	if got, err := h.Boot(); err != nil || got != "11111111-1111-4111-8111-111111111111" {
		t.Errorf("Boot() = %q, %v", got, err)
	}
	if _, err := root(t, map[string]string{"/proc/sys/kernel/random/boot_id": "x"}).Boot(); err == nil {
		t.Errorf("Boot() of a malformed id gave no error")
	}
	if got, want := h.MACs(), []string{"52:54:00:00:00:02", "52:54:00:00:00:01", "00:02:c9:31:78:f1"}; !slices.Equal(got, want) {
		t.Errorf("MACs() = %v, want %v: real ones, with a link first", got, want)
	}
	virtual := root(t, map[string]string{"/sys/class/net/veth0/address": "52:54:00:00:00:03\n", "/sys/class/net/veth0/type": "1\n"})
	if got, want := virtual.MACs(), []string{"52:54:00:00:00:03"}; !slices.Equal(got, want) {
		t.Errorf("MACs() of a container = %v, want %v", got, want)
	}
	if got, want := h.UUID(), "4c4c4544-0042-3510-8050"; got != want {
		t.Errorf("UUID() = %q, want %q", got, want)
	}
	if got := h.Serial(); got != "" {
		t.Errorf("Serial() = %q, want none: nobody filled it in", got)
	}
	if got, want := root(t, map[string]string{"/proc/device-tree/serial-number": "pi-17\x00"}).Serial(), "pi-17"; got != want {
		t.Errorf("Serial() = %q, want %q", got, want)
	}
	hw := h.Hardware()
	if hw.Vendor != "QEMU" || hw.MemoryMB != 2000 || hw.CPUs < 1 {
		t.Errorf("Hardware() = %+v, want QEMU, 2000 MB", hw)
	}
	if want := []string{"sda 1048576 DISK 1", "vda 2147483648 0x1af4"}; !slices.Equal(hw.Disks, want) {
		t.Errorf("disks = %q, want %q", hw.Disks, want)
	}
	empty := host.Host{Root: t.TempDir()}
	if diff := cmp.Diff(proto.Hardware{Arch: hw.Arch, CPUs: hw.CPUs}, empty.Hardware()); diff != "" || empty.MACs() != nil {
		t.Errorf("of a machine without /sys (-want +got):\n%s", diff)
	}
}

func TestSinceBoot(t *testing.T) {
	a := host.SinceBoot()
	time.Sleep(2 * time.Millisecond)
	if b := host.SinceBoot(); a <= 0 || b <= a {
		t.Errorf("SinceBoot() = %s, then %s, want it to grow", a, b)
	}
}

func TestConsoles(t *testing.T) {
	h := root(t, map[string]string{
		"/proc/consoles": "ttyS0                -W- (EC  p a)    4:64\ntty0                 -WU (E  p  )    4:1\nnetcon0              --- (E     )\n",
		"/dev/ttyS0":     "", "/dev/netcon0": "",
	})
	h.Consoles().Say("one\ntwo\n")
	for name, want := range map[string]string{"ttyS0": "one\r\ntwo\r\n", "netcon0": ""} {
		if b, err := os.ReadFile(filepath.Join(h.Root, "dev", name)); err != nil || string(b) != want {
			t.Errorf("%s got %q, %v, want %q", name, b, err, want)
		}
	}
}

// A console that takes nothing, like a serial line whose flow control says stop, delays its writer for a bounded time,
// and the next one not at all.
func TestStuckConsole(t *testing.T) {
	h := root(t, map[string]string{"/proc/consoles": "ttyS0 -W- (EC p a) 4:64\n", "/dev/": ""})
	path := filepath.Join(h.Root, "dev/ttyS0")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := h.Consoles()
	began := time.Now()
	c.Say(strings.Repeat("x", 1<<20)) // a pipe takes 64 KiB
	if d := time.Since(began); d > 30*time.Second {
		t.Errorf("Say took %s at a console that is stuck, want at most 3 s", d)
	}
}

func TestProcesses(t *testing.T) {
	h := root(t, map[string]string{
		"/proc/1/stat":     "1 (init) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 17 1 2 3\n",
		"/proc/1/cmdline":  "/sbin/init\x00--x\x00",
		"/proc/42/stat":    "42 (a) b) (c) R 1 42 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99 1 2 3\n",
		"/proc/42/cmdline": "",
		"/proc/43/stat":    "43 (gone",
		"/proc/meminfo":    "",
	})
	got, err := h.Processes()
	if err != nil {
		t.Fatal(err)
	}
	want := []host.Process{
		{PID: 1, PPID: 0, Session: 1, Start: 17, State: 'S', Name: "init"},
		{PID: 42, PPID: 1, Session: 7, Start: 99, State: 'R', Name: "a) b) (c"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Processes (-want +got):\n%s", diff)
	}
	if got := h.Args(1); got != "/sbin/init --x" {
		t.Errorf("Args(1) = %q", got)
	}
	real, err := host.Host{}.Processes()
	if err != nil || !slices.ContainsFunc(real, func(p host.Process) bool { return p.PID == os.Getpid() && p.PPID == os.Getppid() }) {
		t.Errorf("Processes() of this machine lack this process: %v", err)
	}
}

func TestCgroup(t *testing.T) {
	files := map[string]string{
		"/proc/self/cgroup":    "1:name=systemd:/x\n0::/system.slice/a.service\n",
		"/proc/self/mountinfo": "30 29 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n31 29 0:27 / /my\\040disk rw - ext4 /dev/vda rw\n",
		"/sys/fs/cgroup/system.slice/a.service/cgroup.procs": "",
	}
	h := root(t, files)
	if got, want := h.Cgroup(), filepath.Join(h.Root, "/sys/fs/cgroup/system.slice/a.service"); got != want {
		t.Errorf("Cgroup() = %q, want %q", got, want)
	}
	delete(files, "/proc/self/mountinfo")
	if got := root(t, files).Cgroup(); got != "" {
		t.Errorf("Cgroup() without cgroup v2 = %q, want none", got)
	}
}

func TestInstallProgram(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin")
	path, err := host.Host{}.InstallProgram(dir, "prog")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "-test.run", "^TestWords$").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("the copy does not run: %v, %s", err, out)
	}
	// a copy that runs already is not replaced under itself: "text file busy" would be no reason to fail
	if again, err := (host.Host{}).InstallProgram(dir, "prog"); err != nil || again != path {
		t.Errorf("InstallProgram again = %q, %v, want %q", again, err, path)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestInstallProgramOnNoexec(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("t", dir, "tmpfs", unix.MS_NOEXEC, "size=1m"); err != nil {
		t.Skipf("mounting needs root: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	bin := filepath.Join(dir, "bin")
	defer unix.Unmount(bin, unix.MNT_DETACH)
	path, err := host.Host{}.InstallProgram(bin, "prog")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, "-test.run", "^TestWords$").CombinedOutput(); err != nil {
		t.Errorf("the copy does not run: %v, %s", err, out)
	}
}

func TestDetach(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	pid, err := host.Detach("/bin/sh", []string{"-c", "echo in $(pwd); cat; echo end >&2; sleep 60"}, out)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGKILL)
	want := "in /\nend\n"
	var got []byte
	for range 6000 { // 60 s
		if got, _ = os.ReadFile(out); string(got) == want {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if string(got) != want {
		t.Errorf("output = %q, want %q: stdin is empty, the directory /", got, want)
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session of %d = %d, %v, want its own", pid, sid, err)
	}
}

func FuzzSettings(f *testing.F) {
	f.Add(`provost.url="https://a,b" provost.hold`, "url=x\n#\nnode = y\n")
	f.Add("\"\"\" = \x00", "=\n==\n")
	f.Fuzz(func(t *testing.T, cmdline, file string) {
		for _, w := range host.Words(cmdline) {
			if strings.ContainsRune(w, '"') {
				t.Errorf("Words(%q) left a quote in %q", cmdline, w)
			}
		}
		s, _ := root(t, map[string]string{"/proc/cmdline": cmdline, host.ConfigFile: file}).Settings()
		for _, u := range s.URLs {
			if u == "" || strings.ContainsAny(u, ",") {
				t.Errorf("Settings of %q, %q have the URL %q", cmdline, file, u)
			}
		}
	})
}

// The card that the boot loader names comes first; a port of InfiniBand is known by what its firmware shows.
func TestCards(t *testing.T) {
	nic := func(name, typ, address, state string) map[string]string {
		dir := "/sys/class/net/" + name + "/"
		return map[string]string{dir + "type": typ + "\n", dir + "address": address + "\n", dir + "operstate": state + "\n", dir + "device/": ""}
	}
	const port = "a0:00:00:27:fe:80:00:00:00:00:00:00:7c:fe:90:03:00:29:26:52"
	all := func(more ...map[string]string) map[string]string {
		out := map[string]string{}
		for _, m := range append(more, nic("eth0", "1", "52:54:00:00:00:01", "up"), nic("eth1", "1", "52:54:00:00:00:02", "down"), nic("ib0", "32", port, "up"), nic("ib1", "32", "a0:00", "up")) {
			for k, v := range m {
				out[k] = v
			}
		}
		return out
	}
	h := root(t, all())
	if got, want := h.MACs(), []string{"52:54:00:00:00:01", "52:54:00:00:00:02", "7c:fe:90:29:26:52"}; !slices.Equal(got, want) {
		t.Errorf("MACs() = %q, want %q", got, want)
	}
	want := []string{"eth0 52:54:00:00:00:01 up", "eth1 52:54:00:00:00:02 down",
		"ib0 7c:fe:90:29:26:52 up guid 7c:fe:90:03:00:29:26:52 client-id ff:00:00:00:00:00:02:00:00:02:c9:00:7c:fe:90:03:00:29:26:52"}
	if got := h.Hardware().NICs; !slices.Equal(got, want) {
		t.Errorf("NICs = %q, want %q", got, want)
	}
	for cmdline, first := range map[string]string{
		"quiet BOOTIF=01-52-54-00-00-00-02": "52:54:00:00:00:02",
		"BOOTIF=52:54:00:00:00:02":          "52:54:00:00:00:02",
		"BOOTIF=01-7C-FE-90-29-26-52":       "7c:fe:90:29:26:52",
		"BOOTIF=01-00-00-00-00-00-99":       "52:54:00:00:00:01",
		"BOOTIF=":                           "52:54:00:00:00:01",
		"BOOTIF=nonsense-nonsense-xx":       "52:54:00:00:00:01",
	} {
		if got := root(t, all(map[string]string{"/proc/cmdline": cmdline})).MACs(); len(got) != 3 || got[0] != first {
			t.Errorf("MACs() with %q = %q, want %s first", cmdline, got, first)
		}
	}
}
