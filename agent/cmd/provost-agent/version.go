// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker (-X main.version=1.2.3).
var version string

// release is the version, else what the build knows of its source.
func release() string {
	if version != "" {
		return version
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
				_, err := fmt.Fprintf(s.out, "provost-agent %s %s/%s\n", release(), runtime.GOOS, runtime.GOARCH)
				return err
			}
		},
	}
}
