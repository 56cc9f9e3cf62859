// SPDX-License-Identifier: Apache-2.0

// Package lab is a whole site on one machine, for the VM tests and the demo: a real provostd
// that serves the fast installer, the provost command, and nodes that are virtual machines.
//
// It knows of the collector only what an administrator does: its settings file, its command
// line and its HTTP interface. It needs no root once the fast installer is built.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"provost/initrd/e2e/vm"
)

// Lab is one site. Dir holds everything that happened: consoles, the collector's log and data.
type Lab struct {
	Dir       string
	source    string // the checkout
	listen    int    // ports on the loopback interface
	boot      int
	around    []string // a command that runs provostd, where it is not run as it is
	collector *process
}

// New makes a site in a new directory with the profiles, postscripts and sequences of files,
// laid out as in /etc/provost. Building the fast installer, where that is needed, takes 1 to
// 4 minutes and prints its progress to w. The caller closes the Lab.
func New(ctx context.Context, files fs.FS, w io.Writer) (*Lab, error) {
	source, err := checkout()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"provost-agent", "provostd", "provost", "mkinitrd"} {
		if _, err := os.Stat(filepath.Join(source, "bin", name)); err != nil {
			return nil, fmt.Errorf("looking for the programs: %w; make build makes them", err)
		}
	}
	installer, err := Installer(ctx, w)
	if err != nil {
		return nil, err
	}
	// Not below the checkout: the path of a Unix socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "provost-lab-")
	if err != nil {
		return nil, fmt.Errorf("making the site's directory: %w", err)
	}
	l := &Lab{Dir: dir, source: source}
	if err := l.lay(ctx, files, installer); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return l, nil
}

// buildLimit is for a script that builds images, whose own limits add up to less.
const buildLimit = 4 * time.Hour

// Installer returns the directory with the fast installer, built when it is not there or its
// sources have changed.
func Installer(ctx context.Context, w io.Writer) (string, error) {
	source, err := checkout()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(source, ".cache", "fast")
	if err := command(ctx, w, buildLimit, filepath.Join(source, "initrd/e2e/fast/build.sh"), dir); err != nil {
		return "", fmt.Errorf("building the fast installer: %w", err)
	}
	return dir, nil
}

// AddDracut puts the kernel, the initrds and the root that dracut/build.sh makes into the directory "dracut" of the site's images. Building them takes up to 3 minutes where that is needed and prints its progress to w.
func (l *Lab) AddDracut(ctx context.Context, w io.Writer) error {
	fast, err := Installer(ctx, w)
	if err != nil {
		return err
	}
	dir := filepath.Join(l.source, ".cache", "dracut")
	if err := command(ctx, w, buildLimit, "env", "AGENT="+l.bin("provost-agent"), filepath.Join(l.source, "initrd/e2e/dracut/build.sh"), fast, dir); err != nil {
		return fmt.Errorf("building the initrds of dracut: %w", err)
	}
	return l.copyImages(ctx, dir, "dracut", "vmlinuz", "systemd.img", "plain.img", "nm.img", "initramfs.img", "root.squashfs")
}

// copyImages copies files into a directory of the site's images.
func (l *Lab) copyImages(ctx context.Context, from, to string, names ...string) error {
	images := l.path("images", to)
	if err := os.MkdirAll(images, 0o755); err != nil {
		return fmt.Errorf("laying out the images: %w", err)
	}
	for _, name := range names {
		if err := command(ctx, io.Discard, copyLimit, "cp", "--reflink=auto", filepath.Join(from, name), images); err != nil {
			return fmt.Errorf("laying out the images: %w", err)
		}
	}
	return nil
}

// copyLimit bounds what lays out a site's files: up to 300 MB, in seconds.
const copyLimit = 5 * time.Minute

// Host is this machine's address as QEMU's user network shows it to a guest.
const Host = "10.0.2.2"

// Close stops the collector. Dir stays; whoever made the Lab knows whether it is still wanted.
func (l *Lab) Close() {
	if l.collector != nil {
		l.collector.kill()
	}
}

// lay fills the site's directory.
func (l *Lab) lay(ctx context.Context, files fs.FS, installer string) error {
	var err error
	if l.listen, l.boot, err = freePorts(); err != nil {
		return err
	}
	if err := os.CopyFS(l.path("config"), files); err != nil {
		return fmt.Errorf("laying out the site's files: %w", err)
	}
	if err := l.copyImages(ctx, installer, "fast", "vmlinuz", "initrd.img", "rootfs.tar.zst"); err != nil {
		return err
	}
	if err := command(ctx, io.Discard, copyLimit, l.bin("mkinitrd"), "--agent", l.bin("provost-agent"),
		"-o", l.path("images", "overlay.img")); err != nil {
		return fmt.Errorf("making the overlay: %w", err)
	}
	settings := fmt.Sprintf(`listen: "127.0.0.1:%d"
boot-listen: "127.0.0.1:%d"
advertise: [%q]
overlay: %q
dirs: {data: %q, config: %q, images: %q}
`, l.listen, l.boot, Host, l.path("images", "overlay.img"), l.path("data"), l.path("config"), l.path("images"))
	if err := os.WriteFile(l.path("provostd.yaml"), []byte(settings), 0o644); err != nil {
		return fmt.Errorf("writing the settings: %w", err)
	}
	return nil
}

// AddSettings adds lines to the collector's settings file. They count from the next start on.
func (l *Lab) AddSettings(yaml string) error {
	f, err := os.OpenFile(l.path("provostd.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(yaml)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("adding settings: %w", err)
	}
	return nil
}

// AddNode makes a node with a blank disk known to the collector. MAC is the node's only
// identity; ordinal, from 1 to 255, makes it.
func (l *Lab) AddNode(ctx context.Context, name, profile string, ordinal byte) (*Node, error) {
	n, err := l.Stranger(name, ordinal)
	if err != nil {
		return nil, err
	}
	_, err = l.Provost(ctx, "node", "add", name, "--mac", n.mac, "--profile", profile)
	return n, err
}

// Stranger makes a machine with a blank disk that the collector knows nothing of.
func (l *Lab) Stranger(name string, ordinal byte) (*Node, error) {
	n := &Node{Name: name, lab: l, mac: fmt.Sprintf("52:54:00:00:90:%02x", ordinal)}
	return n, vm.NewDisk(n.Disk(), 1<<30)
}

func (l *Lab) path(elem ...string) string { return filepath.Join(append([]string{l.Dir}, elem...)...) }

func (l *Lab) bin(name string) string { return filepath.Join(l.source, "bin", name) }

// checkout finds the directory with go.mod at or above the working directory.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("looking for go.mod: run this inside the checkout")
		}
	}
}

// freePorts picks two ports. Nothing holds them until the collector listens there, and again
// while it is down: on a loopback interface with few users that has to be good enough.
func freePorts() (a, b int, err error) {
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, 0, fmt.Errorf("looking for a free port: %w", err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports[0], ports[1], nil
}

// command runs a program to its end, limit at most.
func command(ctx context.Context, w io.Writer, limit time.Duration, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var stderr tailBuffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = w, &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second // to clean up
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s: %w: %s", filepath.Base(name), err, stderr.String())
	}
	return nil
}
