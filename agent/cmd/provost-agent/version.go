// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is set by the linker (-X main.release=1.2.3).
var release string

// version is the release, else what the build knows of its source.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "devel-" + s.Value[:12]
			}
		}
	}
	return "devel"
}

func versionCommand() command {
	return command{
		name: "version", summary: "print the version",
		help: `
Examples:
  provost-agent version

Exit status: 0, or 64 for wrong usage.`,
		setup: func(_ *flag.FlagSet, s *streams) func(context.Context, []string) error {
			return func(_ context.Context, args []string) error {
				if len(args) > 0 {
					return usage("version: unexpected argument %q", args[0])
				}
				_, err := fmt.Fprintf(s.out, "provost-agent %s %s/%s\n", version(), runtime.GOOS, runtime.GOARCH)
				return err
			}
		},
	}
}
