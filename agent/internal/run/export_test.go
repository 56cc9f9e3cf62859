// SPDX-License-Identifier: Apache-2.0

package run

import "time"

// SetDiskWait changes how long a run waits for the disk of a step's files.
func (d *Deps) SetDiskWait(t time.Duration) { d.diskWait = t }
