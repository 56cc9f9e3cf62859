// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = ""

// Exit statuses, after sysexits.h.
const (
	exitUsage  = 64
	exitConfig = 78
)

// usageError is a command line that makes no sense.
type usageError struct{ error }

// configError is a setting that makes no sense.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

// run is the program. Results go to stdout, the log and errors to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "provostd",
		Short:         "the collector of Provost, the flight recorder of bare-metal installs",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("there is no command %q", args[0])}
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("say what to do: serve, db, ca, token, dhcp-config, image, version")}
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	log := slog.New(slog.NewTextHandler(stderr, nil))
	root.AddCommand(serveCommand(log), dbCommand(log), caCommand(), tokenCommand(log), dhcpConfigCommand(log), imageCommand(), &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.OutOrStdout(), "provostd", versionText())
			return nil
		},
	})
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "provostd: error: %v\n", err)
	var usage usageError
	var config configError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintln(stderr, "hint: provostd --help")
		return exitUsage
	case errors.As(err, &config):
		return exitConfig
	}
	return 1
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument %q", cmd.CommandPath(), args[0])}
	}
	return nil
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
