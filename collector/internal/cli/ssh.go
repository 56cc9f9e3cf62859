// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"provost/proto"
)

type sshOptions struct {
	address, identity string
}

func (o *sshOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.address, "address", "", "`ADDRESS` of the node, if it is not the one that its agent speaks from")
	f.StringVarP(&o.identity, "identity", "i", "", "`FILE` with your private key, as for ssh -i")
}

func sshCommand(s *session) *cobra.Command {
	var o sshOptions
	cmd := &cobra.Command{
		Use:   "ssh NODE [COMMAND…]",
		Short: "a shell on a node that is being installed",
		Long: `Ssh runs your ssh program for the rescue shell of a node: port 2200, user root,
with the host key that its agent has told the collector, and with your own keys
and agent. The shell is there where the node's profile has rescue-keys, or its
initrd has them baked in, from the start of the installer to its end.

status, log [STEP], retry, skip, release, hold and abort as COMMAND are the
agent's own; anything else is run by the node's shell. Options of provost stand
before NODE.`,
		Args: arguments(1, 1<<10, "say which node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneNode(cmd, args[0]); err != nil {
				return err
			}
			return runSSH(cmd.Context(), s, o, args[0], args[1:])
		},
		ValidArgsFunction: s.completeNodes,
	}
	o.addFlags(cmd.Flags())
	cmd.Flags().SetInterspersed(false)
	help(cmd, "provost ssh n007\nprovost ssh n007 status\nprovost ssh n007 log otherpkgs\nprovost ssh n007 'dmesg | tail'", `0   ssh ended with 0
1   there is no way in: no rescue shell, no address, no ssh program
64  usage: the command line, or a name in it, makes no sense
69  the collector cannot be reached
77  not allowed
78  configuration: --server, --ca or --token-file
otherwise what ssh ended with: the command's own status, 255 if it got no
connection`)
	return cmd
}

func runSSH(ctx context.Context, s *session, o sshOptions, name string, command []string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	n, err := cl.Node(ctx, name)
	cl.Close()
	if err != nil {
		return err
	}
	argv, known, err := sshCommandLine(n, o, s.Now(), command)
	if err != nil {
		return err
	}
	program, err := exec.LookPath("ssh")
	if err != nil {
		return &hintError{errors.New("there is no ssh program here"), "install an OpenSSH client; on Debian: apt install openssh-client"}
	}
	dir, err := os.MkdirTemp("", "provost-ssh-")
	if err != nil {
		return fmt.Errorf("writing the host key for ssh: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(file, []byte(known), 0o600); err != nil {
		return fmt.Errorf("writing the host key for ssh: %w", err)
	}
	// Ctrl-C is ssh's: it goes to the node's command, and this program ends when ssh does.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGQUIT)
	defer signal.Stop(interrupts)
	c := exec.Command(program, append([]string{"-o", "UserKnownHostsFile=" + file}, argv...)...)
	c.Stdin, c.Stdout, c.Stderr = s.Stdin, s.Stdout, s.Stderr
	err = c.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return &exitError{exit.ExitCode()}
	case err != nil:
		return fmt.Errorf("running ssh: %w", err)
	}
	return nil
}

// hostAlias is the name of the host key: addresses change, and a node's name may be in the user's own configuration.
const hostAlias = "provost-rescue"

// sshCommandLine gives ssh's arguments and the known_hosts file for a node's rescue shell. Its errors say why there is
// no way in.
func sshCommandLine(n *proto.Node, o sshOptions, now time.Time, command []string) (argv []string, known string, err error) {
	r := n.Rescue
	if r == nil {
		return nil, "", noRescue(n, now)
	}
	if err := r.Check(); err != nil { // it becomes a file of ours
		return nil, "", fmt.Errorf("the rescue shell of %s: %w", n.Name, err)
	}
	address := o.address
	if address == "" {
		address = r.Address
	}
	if address == "" || address != o.address && isLoopback(address) && n.IP != "" {
		address = n.IP
	}
	if address == "" {
		return nil, "", &hintError{fmt.Errorf("no address of %s is known", n.Name), fmt.Sprintf("provost ssh --address ADDRESS %s, or `provost node set %s --ip ADDRESS`", n.Name, n.Name)}
	}
	if strings.HasPrefix(address, "-") || strings.ContainsAny(address, " \t@/") {
		return nil, "", &usageError{text: fmt.Sprintf("%q is no address", address)}
	}
	argv = []string{"-p", strconv.Itoa(r.Port), "-l", "root", "-o", "HostKeyAlias=" + hostAlias, "-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=/dev/null",
		"-o", "CheckHostIP=no", "-o", "UpdateHostKeys=no", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15"}
	if o.identity != "" {
		argv = append(argv, "-i", o.identity)
	}
	argv = append(append(argv, "--", address), command...)
	key := strings.Join(strings.Fields(r.HostKey)[:2], " ")
	return argv, hostAlias + " " + key + "\n", nil
}

func isLoopback(address string) bool {
	ip := net.ParseIP(address)
	return ip != nil && ip.IsLoopback()
}

// noRescue says why a node has no rescue shell, and what to do about it.
func noRescue(n *proto.Node, now time.Time) error {
	none := fmt.Errorf("%s has no rescue shell now: it is %s", n.Name, n.Summary)
	switch {
	case n.Install == "":
		return &hintError{none, "it is there while an install runs: `provost install " + n.Name + "`"}
	case n.Status == proto.StatusBooted:
		return &hintError{none, "it is there while the installer runs only: use the ssh of the installed system"}
	case n.LastSeen.IsZero():
		return &hintError{none, "its agent was never heard: `provost explain " + n.Name + "` says what is missing"}
	case now.Sub(n.LastSeen) > silentAfter:
		return &hintError{none, "its agent was last heard " + ago(n.LastSeen, now) + ": `provost explain " + n.Name + "`"}
	}
	return &hintError{none, "give rescue-keys in the profile " + n.Profile + " and install again; a shell that has just begun is known after a heartbeat (30 s); in firstboot there is none"}
}
