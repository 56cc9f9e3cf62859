// SPDX-License-Identifier: Apache-2.0

package run

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"provost/proto"
)

const (
	// maxStatus is how much of a status file is read, maxStages how many stages one try may report: a step that writes
	// them in a loop must not fill the journal.
	maxStatus = 1 << 20
	maxStages = 100
)

// statusFile reads the lines message=…, stage=… and progress=… that a step writes while it runs. The step owns the file
// and may do anything to it.
type statusFile struct {
	path string
	r    *runner
	step string
	try  int

	off      int64
	rest     []byte
	stages   int
	message  string
	progress int
	changed  bool // message or progress, since the state said them
	abort    *proto.Order

	mu   sync.Mutex // of what is told to the runner
	left bool       // nobody waits for it any more
}

// poll takes what is new. It never blocks: a pipe or a link in the file's place is not opened, and not waited for.
func (f *statusFile) poll() {
	f.take()
	f.tell()
}

// tell brings message and progress into the state, once for all lines of a poll.
func (f *statusFile) tell() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed && !f.left {
		f.changed = false
		f.r.state.set(func(s *State) { s.Message, s.Progress = f.message, f.progress })
	}
}

// leave ends all that it tells the runner: the file's disk does not answer, and the steps go on.
func (f *statusFile) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = true
}

func (f *statusFile) take() {
	if info, err := os.Lstat(f.path); err != nil || !info.Mode().IsRegular() || info.Size() == f.off {
		return // mostly a step says nothing
	}
	file, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || f.off >= maxStatus {
		return
	}
	if info.Size() < f.off { // begun anew with a plain >
		f.off, f.rest = 0, nil
	}
	b, err := io.ReadAll(io.NewSectionReader(file, f.off, maxStatus-f.off))
	if err != nil {
		return
	}
	f.off += int64(len(b))
	b = append(f.rest, b...)
	for {
		line, rest, ok := bytes.Cut(b, []byte{'\n'})
		if !ok {
			f.rest = b
			return
		}
		b = rest
		f.line(strings.TrimSpace(strings.ToValidUTF8(string(line), "\uFFFD")))
	}
}

// finish takes the rest, also a last line without its newline.
func (f *statusFile) finish() {
	f.take()
	if len(f.rest) > 0 {
		f.line(strings.TrimSpace(strings.ToValidUTF8(string(f.rest), "\uFFFD")))
	}
	f.tell()
	os.Remove(f.path) // what a step writes there may be secret; a file that stays is removed by the next try
}

func (f *statusFile) line(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left {
		return
	}
	name, value, _ := strings.Cut(line, "=")
	switch name {
	case "message":
		f.message = proto.Clip(f.r.hide.String(value), proto.MaxMessage)
		f.changed = true
	case "progress":
		if n, err := strconv.Atoi(value); err == nil && n >= 0 && n <= 100 {
			f.progress, f.changed = n, true
		}
	case "stage":
		if proto.CheckName("stage", value) != nil || f.r.hide.String(value) != value {
			return
		}
		f.stages++
		switch {
		case f.stages <= maxStages && proto.ReservedStage(value):
			f.r.note(f.step, "step "+f.step+" reports stage "+value+", which is not a step's to say: it is passed over. The agent says it when it is so", true)
		case f.stages <= maxStages:
			f.r.append(proto.Event{Kind: proto.KindStage, Phase: f.r.o.Phase, Step: f.step, Try: f.try, Stage: value})
		case f.stages == maxStages+1:
			f.r.note(f.step, "step "+f.step+" reports more stages than are kept of one try", true)
		}
	}
}
