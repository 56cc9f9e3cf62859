// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func serveCommand(log *slog.Logger) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run the collector",
		Long: `Runs the collector until SIGINT or SIGTERM. Without any setting it makes what it needs in the data directory: the CA
and the keys, the database, the join key.`,
		Example: `  provostd serve
  provostd serve --data /tmp/provost --listen 127.0.0.1:0 --boot-listen 127.0.0.1:0

Exit status: 0 after a signal, 1 when it could not go on, 64 usage, 78 settings.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := readSettings(cmd.Flags(), os.Environ())
			if err != nil {
				return configError{err}
			}
			tuneMemory(os.Getenv, gcStart)
			srv, err := Open(cmd.Context(), s, log)
			tuneMemory(os.Getenv, gcPercent)
			if err != nil {
				return err
			}
			printReady(cmd.OutOrStdout(), srv)
			err = srv.Run(cmd.Context())
			if closeErr := srv.Close(); err == nil {
				err = closeErr
			}
			return err
		},
	}
	settingsFlags(cmd.Flags())
	cmd.Flags().String("listen", defaults["listen"].(string), "TLS for agents and operators, HOST:PORT")
	cmd.Flags().String("boot-listen", defaults["boot-listen"].(string), "plain HTTP for boot scripts and images, HOST:PORT, or off")
	cmd.Flags().String("overlay", "", "the agent's initrd (default DATA/overlay.img)")
	return cmd
}

// printReady says once where everything is, and what to type next.
func printReady(w io.Writer, s *Server) {
	r := s.Record()
	scripts := "http://" + r.BootListen + "/boot/MAC"
	if r.BootListen == "" {
		scripts = "none: boot-listen is off"
	}
	fmt.Fprintf(w, `provostd %s is ready
  agents, operators     https://%s  (TLS)
  boot scripts, images  %s
  CA pin                %s
  join key              %s
  data                  %s
  profiles              %s

  export PROVOST_SERVER=unix://%s
  provost profile list
  provost node add n1 --mac 52:54:00:12:34:56 --profile PROFILE
  provost install n1 && provost status --watch
`, versionText(), r.Listen, scripts, r.Pin, s.joinKeyPath(), s.set.Dirs.Data, s.set.Dirs.Config, r.Socket)
	for _, text := range s.currentWarnings() {
		fmt.Fprintln(w, "  warning:", text)
	}
}

// How much garbage there may be, in percent of what is in use. Go's default is 100. What a collector holds is mostly
// connections and nodes, which stay, so that less than half of that saves nearly a third of the heap, and
// looking for garbage took 3 % of the time at 50 with 10,000 agents. While it starts, most
// of what it makes stays: looking for garbage meanwhile would take a fifth of the time.
const (
	gcPercent = 40
	gcStart   = 400
)

// tuneMemory sets that, unless the administrator has set GOGC. GOMEMLIMIT is Go's own: package runtime tells of both.
func tuneMemory(getenv func(string) string, percent int) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
