// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// RebootAfter is Reboot with another bound for systemd.
func RebootAfter(ctx context.Context, wait time.Duration) error {
	return power(ctx, unix.LINUX_REBOOT_CMD_RESTART, sigReboot, wait, "restarting the machine")
}
