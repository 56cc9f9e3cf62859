// SPDX-License-Identifier: Apache-2.0

// Package vm runs real machines for the tests and the demo: QEMU without acceleration by the
// host, booting over the network first and from a raw disk file second, or a kernel that is
// given. It can log what a machine writes to its disk, and make the disk again as it was at
// any moment of that log.
//
// A guest's reboot ends its QEMU, and the next boot is a new Start on the same disk: under
// emulation a warm reset costs 20 s more than that. Nothing here writes to a disk file of
// a stopped machine.
package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Config is one machine. Name, MAC, Disk and Dir are required.
type Config struct {
	Name    string // names the console file, Dir/Name.console, which Start appends to
	MAC     string
	Disk    string // raw file, see NewDisk
	BootURL string // what DHCP hands to the PXE firmware; empty: boots from the disk only
	TFTP    string // directory that QEMU's own TFTP server has; then BootURL is a file's name in it
	Port80  int    // a port on the host's loopback interface that the guest finds at Port80Host, port 80; 0 is none
	Memory  string // QEMU's -m; empty means 1G
	Dir     string // existing directory for the console file

	UEFI bool // OVMF instead of SeaBIOS, with new variables at each start

	Kernel, Initrd, Append string // boots these files at once instead of any firmware's choice

	WriteLog string      // file for a log of everything that is written to the disk, see ReadWriteLog; it is made anew
	Forward  map[int]int // ports on the host's loopback interface, each to one of the guest

	Capture string // file for all that goes over the machine's cable, see ReadCapture; it is made anew

	// Tap is an interface of the network namespace Netns that is the machine's cable, in the place of QEMU's own network:
	// then DHCP, TFTP and all else are what is in that namespace. It needs root.
	Tap, Netns string
}

// Port80Host is an address of QEMU's own network that nothing else has. GRUB up to 2.06 fetches from port 80 alone.
const Port80Host = "10.0.2.100"

// VM is a started machine. Its methods may be called from any goroutine.
type VM struct {
	cmd     *exec.Cmd
	console *console
	stderr  bytes.Buffer
	tmp     string        // holds the monitor's socket, whose path must stay under 108 bytes
	done    chan struct{} // closed when QEMU has ended and been waited for
	err     error         // how QEMU ended; valid after done
}

// Start starts the machine. It is killed when ctx ends, and when this process dies.
func Start(ctx context.Context, c Config) (*VM, error) {
	tmp, err := os.MkdirTemp("", "vm-")
	if err != nil {
		return nil, fmt.Errorf("making the monitor's directory: %w", err)
	}
	if c.WriteLog != "" {
		if err := NewDisk(c.WriteLog, writeLogSize); err != nil {
			os.RemoveAll(tmp)
			return nil, err
		}
	}
	if c.UEFI {
		// 4 MiB of each: they are copied, since the firmware writes there
		if err := copyFile(ovmfVars, filepath.Join(tmp, "vars")); err != nil {
			os.RemoveAll(tmp)
			return nil, fmt.Errorf("making the firmware's variables: %w", err)
		}
	}
	con, err := openConsole(filepath.Join(c.Dir, c.Name+".console"))
	if err != nil {
		os.RemoveAll(tmp)
		return nil, err
	}
	v := &VM{console: con, tmp: tmp, done: make(chan struct{})}
	program := append([]string{"qemu-system-x86_64"}, arguments(c, v.monitor())...)
	if c.Netns != "" {
		program = append([]string{"ip", "netns", "exec", c.Netns}, program...) // which becomes QEMU: the same process
	}
	v.cmd = exec.CommandContext(ctx, program[0], program[1:]...)
	v.cmd.Stdout = con
	v.cmd.Stderr = &v.stderr
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the starting thread ends: keep it until QEMU has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := v.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		if err := v.cmd.Wait(); err != nil {
			v.err = fmt.Errorf("running qemu: %w: %s", err, bytes.TrimSpace(v.stderr.Bytes()))
		}
		con.close()
		os.RemoveAll(tmp)
		close(v.done)
	}()
	if err := <-started; err != nil {
		con.close()
		os.RemoveAll(tmp)
		return nil, fmt.Errorf("starting qemu: %w", err)
	}
	return v, nil
}

// OVMF as Debian's package ovmf has it.
const (
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

func arguments(c Config, monitor string) []string {
	memory := c.Memory
	if memory == "" {
		memory = "1G"
	}
	netdev, nic := "user,id=n0", "virtio-net-pci,netdev=n0,mac="+c.MAC
	for host, guest := range c.Forward {
		netdev += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", host, guest)
	}
	if c.TFTP != "" {
		netdev += ",tftp=" + c.TFTP
	}
	if c.Port80 != 0 {
		// A program for each connection: QEMU forwards only one to a socket. It ends with the connection.
		netdev += fmt.Sprintf(",guestfwd=tcp:%s:80-cmd:busybox nc 127.0.0.1 %d", Port80Host, c.Port80)
	}
	switch {
	case c.Tap != "":
		netdev = "tap,id=n0,ifname=" + c.Tap + ",script=no,downscript=no"
		nic += ",bootindex=1"
	case c.BootURL != "":
		netdev += ",bootfile=" + c.BootURL
		nic += ",bootindex=1"
	default:
		nic += ",romfile="
	}
	drive := []string{"-drive", "file=" + c.Disk + ",if=none,id=d0,format=raw,cache=unsafe,discard=unmap"}
	if c.WriteLog != "" {
		// A flush of the guest need not reach this machine's own disk: only QEMU will be killed.
		drive = []string{"-blockdev", "driver=blklogwrites,node-name=d0,log-sector-size=512" +
			",file.driver=file,file.filename=" + c.Disk + ",file.cache.no-flush=on" +
			",log.driver=file,log.filename=" + c.WriteLog + ",log.cache.no-flush=on"}
	}
	var capture []string
	if c.Capture != "" {
		capture = []string{"-object", "filter-dump,id=capture,netdev=n0,file=" + c.Capture}
	}
	boot := []string{}
	if c.UEFI {
		boot = []string{"-drive", "if=pflash,format=raw,readonly=on,file=" + ovmfCode,
			"-drive", "if=pflash,format=raw,file=" + filepath.Join(filepath.Dir(monitor), "vars")}
	}
	if c.Kernel != "" {
		boot = append(boot, "-kernel", c.Kernel, "-initrd", c.Initrd, "-append", c.Append)
	}
	return slices.Concat([]string{
		"-name", c.Name, "-machine", "q35,smm=off,graphics=off", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", memory,
		"-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot",
		"-serial", "stdio", "-monitor", "unix:" + monitor + ",server=on,wait=off",
		"-device", "virtio-blk-pci,drive=d0,bootindex=2", "-device", "virtio-rng-pci",
		"-netdev", netdev, "-device", nic,
	}, drive, capture, boot)
}

// Kill cuts the power: what the guest had not yet written to its disk is lost.
func (v *VM) Kill() {
	v.cmd.Process.Kill()
	<-v.done // SIGKILL cannot be held up
}

// PowerOff presses the power button and waits for the guest to go down.
func (v *VM) PowerOff(ctx context.Context) error {
	if err := v.command("system_powerdown"); err != nil {
		return err
	}
	return v.Wait(ctx)
}

// Wait waits until the guest has rebooted or powered off, or was killed; the latter is an error.
func (v *VM) Wait(ctx context.Context) error {
	select {
	case <-v.done:
		return v.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the machine to go down: %w; its console ends: %s", ctx.Err(), v.console.tail())
	}
}

// WaitConsole returns the first line of the console that matches, from this start of the machine on.
func (v *VM) WaitConsole(ctx context.Context, re *regexp.Regexp) (string, error) {
	for {
		line, more, ok := v.console.find(re)
		if ok {
			return line, nil
		}
		var cause error
		select {
		case <-more:
			continue
		case <-v.done:
			if line, _, ok := v.console.find(re); ok {
				return line, nil
			}
			cause = errors.Join(errors.New("the machine went down"), v.err)
		case <-ctx.Done():
			cause = ctx.Err()
		}
		return "", fmt.Errorf("waiting for %q: %w; the console ends: %s", re, cause, v.console.tail())
	}
}

// Console returns what the machine has printed so far, a line each, without terminal controls.
func (v *VM) Console() string { return v.console.text() }

// SetLink plugs the network cable in or pulls it out.
func (v *VM) SetLink(up bool) error {
	if up {
		return v.command("set_link n0 on")
	}
	return v.command("set_link n0 off")
}

func (v *VM) monitor() string { return filepath.Join(v.tmp, "monitor") }

// command gives one command to QEMU's monitor and waits, a minute at most, until it is carried out.
func (v *VM) command(line string) error {
	const limit = time.Minute
	c, err := net.DialTimeout("unix", v.monitor(), limit)
	if err != nil {
		return fmt.Errorf("reaching the monitor: %w", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	if _, err := readPrompt(c); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c, line); err != nil {
		return fmt.Errorf("writing to the monitor: %w", err)
	}
	answer, err := readPrompt(c)
	if err != nil {
		return err
	}
	if _, complaint, ok := strings.Cut(answer, "Error: "); ok {
		return fmt.Errorf("monitor command %q: %s", line, strings.TrimSpace(complaint))
	}
	return nil
}

// readPrompt reads up to the next prompt. A greeting or an answer always ends with one.
func readPrompt(c net.Conn) (string, error) {
	var got []byte
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		if bytes.HasSuffix(got, []byte("(qemu) ")) {
			return string(got), nil
		}
		if err != nil {
			return "", fmt.Errorf("reading from the monitor: %w", err)
		}
	}
}
