// SPDX-License-Identifier: Apache-2.0

// Provostd is the collector: it hands out boot scripts and plans, takes events and logs, watches deadlines, and answers
// operators. README and manual page say how to run it; this package only puts its parts together.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
