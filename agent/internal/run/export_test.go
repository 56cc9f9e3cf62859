// SPDX-License-Identifier: Apache-2.0

package run

import (
	"time"

	"provost/proto"
)

// SetDiskWait changes how long a run waits for the disk of a step's files.
func (d *Deps) SetDiskWait(t time.Duration) { d.diskWait = t }

// StateFile is what says what a run does.
type StateFile struct{ f *stateFile }

func NewStateFile(dir string, phase proto.Phase, boot string) StateFile {
	return StateFile{newStateFile(dir, phase, boot)}
}

func (f StateFile) Set(change func(*State)) { f.f.set(change) }
