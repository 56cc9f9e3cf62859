// SPDX-License-Identifier: Apache-2.0

// Command provost is the operator's program: status, explain, log, install, retry and so on. All of it is in package
// cli; it must never link the database of the collector.
package main

import (
	"context"
	"os"

	"provost/collector/internal/cli"
)

var version = "devel" // set by the linker

func main() {
	os.Exit(cli.Run(context.Background(), version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
