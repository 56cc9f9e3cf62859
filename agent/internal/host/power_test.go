// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"provost/agent/internal/host"
)

// TestMain lets this program be process 1 of a PID namespace, and what asks it to bring the machine down.
func TestMain(m *testing.M) {
	switch role := os.Getenv("HOST_TEST_ROLE"); role {
	case "":
		os.Exit(m.Run())
	case "init", "deaf init":
		beInit(role == "init")
	default:
		ask(role)
	}
}

// beInit starts what asks, and says which signal came. A deaf one takes none.
func beInit(hears bool) {
	fail := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	fail(syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""))
	fail(syscall.Mount("proc", "/proc", "proc", 0, ""))
	came := make(chan os.Signal, 4)
	if hears {
		signal.Notify(came, syscall.Signal(38), syscall.Signal(39))
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"HOST_TEST_ROLE=" + os.Getenv("HOST_TEST_ASKS")}
	cmd.Stdout = os.Stdout
	in, err := cmd.StdinPipe()
	fail(err)
	fail(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case s := <-came:
		fmt.Printf("signal %d\n", s)
		in.Close() // it is told to end, as by systemd
		fail(<-ended)
	case err := <-ended:
		fail(fmt.Errorf("it ended without a signal: %v", err))
	}
	os.Exit(0)
}

// ask asks for the machine's end, until its stdin ends.
func ask(what string) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var err error
	switch what {
	case "reboot":
		err = host.Reboot(ctx)
	case "poweroff":
		err = host.PowerOff(ctx)
	case "reboot soon":
		err = host.RebootAfter(ctx, 100*time.Millisecond)
	}
	fmt.Printf("%s: %v\n", what, err)
	os.Exit(0)
}

// TestPowerBySystemd: where process 1 is systemd it is asked to bring the machine down, by the signals of systemd(1), and left the
// time to do so; reboot(2), which ends the namespace by a signal to its process 1 (pid_namespaces(7)), comes only where it did not
// in that time, and at once where process 1 is something else.
func TestPowerBySystemd(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a PID namespace needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		comm, role, asks string
		said             string
		signal           syscall.Signal // that process 1 died by
	}{
		{comm: "systemd", role: "init", asks: "reboot", said: "signal 39\nreboot: <nil>\n"},
		{comm: "systemd", role: "init", asks: "poweroff", said: "signal 38\npoweroff: <nil>\n"},
		{comm: "systemd", role: "deaf init", asks: "reboot soon", signal: syscall.SIGHUP},
		{comm: "init", role: "init", asks: "reboot", signal: syscall.SIGHUP},
		{comm: "init", role: "init", asks: "poweroff", signal: syscall.SIGINT},
	} {
		t.Run(tt.comm+" "+tt.asks, func(t *testing.T) {
			t.Parallel()
			one := filepath.Join(t.TempDir(), tt.comm) // its name is its comm
			if err := os.Symlink(self, one); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // reboot comes after a sync of all disks, 30 s at most
			defer cancel()
			cmd := exec.CommandContext(ctx, one)
			cmd.Env = []string{"HOST_TEST_ROLE=" + tt.role, "HOST_TEST_ASKS=" + tt.asks}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
			out, err := cmd.CombinedOutput()
			if errors.Is(err, syscall.EPERM) {
				t.Skip("no PID namespace can be made here: ", err)
			}
			died := syscall.Signal(0)
			if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
				died = ws.Signal()
			} else if err != nil {
				t.Errorf("process 1 = %v", err)
			}
			if string(out) != tt.said || died != tt.signal {
				t.Errorf("process 1 said %q and died by %d, want %q and %d", out, died, tt.said, tt.signal)
			}
		})
	}
}
