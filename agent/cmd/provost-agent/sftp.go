// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"os"

	"provost/agent/internal/rescue/sftp"
)

func sftpCommand() command {
	return command{
		name: "sftp", summary: "serve files to an SFTP client; the rescue shell starts it",
		help: `
What scp and sftp talk to: SFTP version 3 on standard input and output.

Examples:
  scp -P 2200 root@NODE:/tmp/anaconda.log .
  sftp -P 2200 root@NODE

Exit status: 0 the client is done, 1 it made no sense or is gone, 64 wrong usage.`,
		setup: func(f *flag.FlagSet, s *streams) func(context.Context, []string) error {
			return func(_ context.Context, args []string) error {
				if len(args) > 0 {
					return usage("sftp: unexpected argument %q", args[0])
				}
				if home := os.Getenv("HOME"); home != "" {
					_ = os.Chdir(home) // relative paths begin there, or where we are
				}
				return sftp.Server{}.Serve(s.in, s.out)
			}
		},
	}
}
