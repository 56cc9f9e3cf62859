// SPDX-License-Identifier: Apache-2.0

// Provost-agent runs a node's postscripts, keeps the journal of its install, and reports to the collector. One static
// program serves the initrd, the installer and the installed system.
//
// This package is the command line: it wires the packages below agent/internal together and must never know how they
// work inside.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
