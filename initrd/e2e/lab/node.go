// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"provost/initrd/e2e/vm"
	"provost/proto"
)

// Node is one machine of the site: known to the collector, with a disk that outlives its boots.
type Node struct {
	Name   string
	Memory string // of the next PowerOn, as vm.Config has it
	UEFI   bool   // of the next PowerOn
	// Capture is a file for what goes over the cable from the next PowerOn on, as vm.Config has it.
	Capture string
	// Loader of the next PowerOn: empty is iPXE, with the boot script as its file; else pxelinux or grub, which come by TFTP.
	Loader string
	lab    *Lab
	mac    string
}

// Disk is the node's raw disk file.
func (n *Node) Disk() string { return n.lab.path(n.Name + ".disk") }

// MAC is the node's address.
func (n *Node) MAC() string { return n.mac }

// PowerOn starts the machine, which boots by PXE first and from its disk second. Its console
// goes to Dir/NAME.console, one boot after the other. It is killed when ctx ends.
func (n *Node) PowerOn(ctx context.Context) (*vm.VM, error) {
	c := vm.Config{
		Name: n.Name, MAC: n.mac, Disk: n.Disk(), Dir: n.lab.Dir, Memory: n.Memory, UEFI: n.UEFI, Capture: n.Capture,
		BootURL: fmt.Sprintf("http://%s:%d/boot/%s", Host, n.lab.boot, n.mac),
	}
	if n.Loader != "" {
		c.TFTP = n.lab.path("tftp-" + n.Loader)
		if err := os.MkdirAll(c.TFTP, 0o755); err != nil {
			return nil, fmt.Errorf("laying out the TFTP directory: %w", err)
		}
		var err error
		switch n.Loader {
		case "pxelinux":
			c.BootURL, err = "lpxelinux.0", n.pxelinux(ctx, c.TFTP)
		case "grub":
			c.BootURL, c.Port80 = "grub.0", n.lab.boot
			err = n.grub(ctx, c.TFTP)
		}
		if err != nil {
			return nil, fmt.Errorf("laying out %s: %w", n.Loader, err)
		}
	}
	return vm.Start(ctx, c)
}

// pxelinux lays out PXELINUX as Debian's packages pxelinux and syslinux-common have it. Its own configuration sends it to
// the node's at the collector: QEMU's DHCP has no option 210, which would do the same.
func (n *Node) pxelinux(ctx context.Context, dir string) error {
	err := command(ctx, io.Discard, copyLimit, "cp", "/usr/lib/PXELINUX/lpxelinux.0", "/usr/lib/syslinux/modules/bios/ldlinux.c32", dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "pxelinux.cfg"), 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("SERIAL 0 115200\nDEFAULT collector\nLABEL collector\nCONFIG http://%s:%d/boot/pxelinux.cfg/01-%s\n", Host, n.lab.boot, strings.ReplaceAll(n.mac, ":", "-"))
	return os.WriteFile(filepath.Join(dir, "pxelinux.cfg", "default"), []byte(text), 0o644)
}

// grub makes a GRUB for PXE, of Debian's package grub-pc-bin.
func (n *Node) grub(ctx context.Context, dir string) error {
	early := filepath.Join(dir, "early.cfg")
	text := fmt.Sprintf("serial --unit=0 --speed=115200\nterminal_output console serial\nconfigfile (http,%s)/boot/grub/grub.cfg-01-%s\n", vm.Port80Host, strings.ReplaceAll(n.mac, ":", "-"))
	if err := os.WriteFile(early, []byte(text), 0o644); err != nil {
		return err
	}
	return command(ctx, io.Discard, copyLimit, "grub-mkimage", "-O", "i386-pc-pxe", "-o", filepath.Join(dir, "grub.0"), "-p", "/", "-c", early,
		"pxe", "net", "http", "tftp", "normal", "configfile", "linux", "echo", "sleep", "test", "minicmd", "reboot", "chain", "search", "serial", "terminal")
}

// Now asks the collector for the node's state.
func (n *Node) Now(ctx context.Context) (proto.Node, error) {
	nodes, err := n.lab.Status(ctx, n.Name)
	if err != nil {
		return proto.Node{}, err
	}
	if len(nodes) != 1 || nodes[0].Name != n.Name {
		return proto.Node{}, fmt.Errorf("asking for %s: got %d nodes", n.Name, len(nodes))
	}
	return nodes[0], nil
}

// Await asks twice a second until ok holds; ctx bounds it. what names the condition in the
// error. A collector that is down does not answer and is waited for.
func (n *Node) Await(ctx context.Context, what string, ok func(proto.Node) bool) (proto.Node, error) {
	var last proto.Node
	for {
		now, err := n.Now(ctx)
		if err == nil {
			if last = now; ok(now) {
				return now, nil
			}
		}
		select {
		case <-ctx.Done():
			return last, fmt.Errorf("waiting for %s to be %s: %w; last: %s", n.Name, what, ctx.Err(), Line(last))
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// Events returns every event of the node's newest install, by time.
func (n *Node) Events(ctx context.Context) (proto.EventList, error) { return n.lab.Events(ctx, n.Name) }

// Line says a node's state in one line, for progress and for errors.
func Line(n proto.Node) string {
	line := []string{string(n.Status)}
	if n.Summary != "" && n.Summary != string(n.Status) {
		line = []string{n.Summary}
	}
	if n.Stage != "" {
		line = append(line, "stage "+n.Stage)
	}
	if n.Step != "" {
		line = append(line, "step "+n.Step)
	}
	if n.BootAction != "" {
		line = append(line, "boots "+string(n.BootAction))
	}
	return strings.Join(line, ", ")
}
