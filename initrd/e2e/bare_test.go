// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"provost/initrd/e2e/lab"
	"provost/initrd/e2e/vm"
)

// TestBare installs without any of our programs: it proves the laboratory, so that another
// test's failure is the programs'. The second boot finds nobody at PXE, as when a collector is
// down, and the firmware goes on to the disk.
func TestBare(t *testing.T) {
	ctx := within(t, patience)
	images, err := lab.Installer(ctx, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("http://%s:%d", lab.Host, l.Addr().(*net.TCPAddr).Port)
	mux := http.NewServeMux()
	mux.Handle("/images/", http.StripPrefix("/images/", http.FileServer(http.Dir(images))))
	mux.HandleFunc("/boot/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.ReplaceAll(`#!ipxe
kernel BASE/images/vmlinuz initrd=initrd.img fast.root=BASE/images/rootfs.tar.zst fast.bare console=ttyS0 quiet mitigations=off nokaslr no_timer_check net.ifnames=0 panic=5
initrd BASE/images/initrd.img
boot
`, "BASE", base))
	})
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	dir := t.TempDir()
	c := vm.Config{Name: "bare", MAC: "52:54:00:00:90:fe", Disk: filepath.Join(dir, "disk"), Dir: dir, BootURL: base + "/boot/bare"}
	if err := vm.NewDisk(c.Disk, 1<<30); err != nil {
		t.Fatal(err)
	}
	m, err := vm.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if console := m.Console(); !strings.Contains(console, "fast: installed") {
		t.Fatalf("the installer did not reach its end:\n%s", console)
	}

	server.Close()
	if m, err = vm.Start(ctx, c); err != nil {
		t.Fatal(err)
	}
	if _, err := m.WaitConsole(ctx, regexp.MustCompile(`login:`)); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	root, err := vm.OpenRoot(c.Disk, filepath.Join(dir, "root"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if name, err := root.ReadFile("/etc/hostname"); string(name) != "fast\n" {
		t.Errorf("ReadFile(/etc/hostname) = %q, %v, want fast", name, err)
	}
	if id, err := root.ReadFile("/etc/machine-id"); len(id) != 33 {
		t.Errorf("ReadFile(/etc/machine-id) = %q, %v, want the id that the first boot made", id, err)
	}
	if _, err := root.ReadFile("/etc/nothing"); !os.IsNotExist(err) {
		t.Errorf("ReadFile(/etc/nothing) = %v, want an error of a missing file", err)
	}
}
