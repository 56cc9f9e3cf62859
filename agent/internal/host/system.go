// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// InstallProgram copies the running program to dir/name, where it can be executed: if dir's file system is mounted
// noexec (some initrds mount /run so), a small tmpfs of its own comes over dir: whatever else is to be executed goes below
// dir, too. It returns the copy's path.
//
// The initrd's files vanish at switch_root; what lies in /run stays.
func (h Host) InstallProgram(dir, name string) (string, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("opening the own program: %w", err)
	}
	defer self.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the directory for the program: %w", err)
	}
	path := filepath.Join(dir, name)
	if same(self, path) {
		return path, nil
	}
	if noexec(dir) {
		// 128 MiB at most: the program has 9, twice for the moment of a replacement, and what is executed of a plan lies below dir, too
		if err := unix.Mount("provost", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=128m"); err != nil {
			return "", fmt.Errorf("mounting a tmpfs that allows programs on %s: %w", dir, err)
		}
	}
	tmp, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return "", fmt.Errorf("copying the program: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, self)
	if err == nil {
		err = tmp.Chmod(0o755)
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return "", fmt.Errorf("copying the program to %s: %w", path, err)
	}
	return path, nil
}

// same reports whether the file at path has f's bytes. It leaves f at its start.
func same(f *os.File, path string) bool {
	g, err := os.Open(path)
	if err != nil {
		return false
	}
	defer g.Close()
	defer f.Seek(0, io.SeekStart)
	one, two := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errF := io.ReadFull(f, one)
		m, errG := io.ReadFull(g, two)
		if !bytes.Equal(one[:n], two[:m]) {
			return false
		}
		if errF != nil || errG != nil {
			return errF == errG
		}
	}
}

func noexec(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Flags&unix.ST_NOEXEC != 0
}

// Detach starts a program in a session of its own, without terminal, in "/", its output appended to the file out, and
// does not wait for it. It returns the process's id.
func Detach(program string, args []string, out string) (int, error) {
	p, err := Start(program, args, out)
	if err != nil {
		return 0, err
	}
	pid := p.Pid
	return pid, p.Release()
}

// Start is Detach for a caller that stays: the process has to be waited for, and outlives the caller all the same.
func Start(program string, args []string, out string) (*os.Process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("detaching: %w", err)
	}
	defer null.Close()
	log, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("detaching: %w", err)
	}
	defer log.Close()
	p, err := os.StartProcess(program, append([]string{program}, args...), &os.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("detaching %s: %w", program, err)
	}
	return p, nil
}

// syncLimit bounds the flush before the power goes: a dead NFS server would make it last for ever.
const syncLimit = 30 * time.Second

// systemdWait bounds the wait for systemd to bring the machine down: it gives each unit 90 s.
const systemdWait = 5 * time.Minute

// What systemd as process 1 takes for a wish (systemd(1), SIGRTMIN+4 and +5; its SIGRTMIN is the C library's).
const (
	sigPowerOff = syscall.Signal(34 + 4)
	sigReboot   = syscall.Signal(34 + 5)
)

// PowerOff flushes the disks and switches the machine off, as Reboot restarts it.
func PowerOff(ctx context.Context) error {
	return power(ctx, unix.LINUX_REBOOT_CMD_POWER_OFF, sigPowerOff, systemdWait, "switching the machine off")
}

// Reboot flushes the disks and restarts the machine: by systemd, where that is process 1, so that services end and file systems
// are unmounted; else, and when that has not come about within systemdWait, by reboot(2). It returns only if that cannot be done,
// or when the context ends since systemd is at it.
func Reboot(ctx context.Context) error {
	return power(ctx, unix.LINUX_REBOOT_CMD_RESTART, sigReboot, systemdWait, "restarting the machine")
}

func power(ctx context.Context, cmd int, wish syscall.Signal, wait time.Duration, what string) error {
	if os.Getpid() != 1 && (Host{}).text("/proc/1/comm") == "systemd" && unix.Kill(1, wish) == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
	done := make(chan struct{})
	go func() { unix.Sync(); close(done) }()
	select {
	case <-done:
	case <-time.After(syncLimit):
	}
	if err := unix.Reboot(cmd); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
