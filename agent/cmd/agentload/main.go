// SPDX-License-Identifier: Apache-2.0

// Agentload is a load generator for tests of the collector: thousands of simulated agents over real TLS, and the check
// that nothing of what was acknowledged to them is lost. It is shipped to nobody.
//
// This package is its command line and must know nothing of how an agent or a collector works.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
