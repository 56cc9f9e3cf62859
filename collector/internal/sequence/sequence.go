// SPDX-License-Identifier: Apache-2.0

// Package sequence has the ordered stages that an install goes through, with the time for each. It is pure: it must never
// decide what has become of an install, which is lifecycle's.
package sequence

import (
	"errors"
	"fmt"
	"slices"

	"provost/proto"
)

// FirstSign is what is awaited after the order, whatever the sequence: it is what a machine does first, and any stage behind the
// order stands for it.
const FirstSign = "dhcp-discover"

// Sequence is an OS family's ordered stages.
type Sequence struct {
	Family string  `yaml:"family"` // or another name, which profiles may give as their sequence
	Stages []Stage `yaml:"stages"`
	// Aside are stages out of line: they may come at any time, advance nothing and are never awaited.
	Aside []Stage `yaml:"aside,omitempty"`
}

// Stage is one milestone of a sequence.
type Stage struct {
	Name  string `yaml:"name"`
	Label string `yaml:"label,omitempty"` // for people; the name if empty
	// Within is the time from this stage to the next one that is not optional; 0 is without limit.
	Within  proto.Duration `yaml:"within,omitempty"`
	Sources []string       `yaml:"sources,omitempty"` // agent boot callback log compat; whoever may report it
	Aliases []string       `yaml:"aliases,omitempty"` // other systems' names for it
	// Optional stages are never awaited, but count when they come.
	Optional bool `yaml:"optional,omitempty"`
	// HeartbeatExtends: while the agent is heard, Within starts anew.
	HeartbeatExtends bool `yaml:"heartbeat-extends,omitempty"`
}

// Index is the place of a stage, known by its name or an alias; -1 if it is not in the sequence.
func (q Sequence) Index(name string) int {
	return slices.IndexFunc(q.Stages, func(s Stage) bool { return s.is(name) })
}

func (s Stage) is(name string) bool { return s.Name == name || slices.Contains(s.Aliases, name) }

// Find gives a stage, also one that is out of line, by its name or an alias.
func (q Sequence) Find(name string) (Stage, bool) {
	for _, s := range slices.Concat(q.Stages, q.Aside) {
		if s.is(name) {
			return s, true
		}
	}
	return Stage{}, false
}

// The sorts of logs, as sources of Visible: what is read is not every log. "log" is all of them.
const (
	LogDHCP = "log:dhcp"
	LogTFTP = "log:tftp"
	LogWeb  = "log:web"
)

// LogsOf are the sorts of logs that can show a stage; none of a stage that is no server's.
func LogsOf(stage string) []string {
	switch stage {
	case "dhcp-discover", "dhcp-offer", "dhcp-request", "dhcp-ack":
		return []string{LogDHCP}
	case "bootloader-sent", "bootscript-sent", "kernel-sent", "initrd-sent":
		return []string{LogTFTP, LogWeb}
	case "answer-sent", "image-sent", "config-sent", "common-sent", "root-sent", "cracklib-sent", "bind-sent", "sles-img-sent":
		return []string{LogWeb}
	}
	return nil
}

// seenBy reports whether one of some sources could report the stage.
func (s Stage) seenBy(sources []string) bool {
	return slices.ContainsFunc(s.Sources, func(src string) bool {
		if slices.Contains(sources, src) {
			return true
		}
		logs := LogsOf(s.Name)
		if logs == nil { // the installer's own words, which come by any
			logs = []string{LogDHCP, LogTFTP, LogWeb}
		}
		return src == "log" && slices.ContainsFunc(logs, func(l string) bool { return slices.Contains(sources, l) })
	})
}

// Visible is the sequence where only some sources say anything. A stage that none of them could report is not awaited, and
// its time is added to that of the stage before it, which then has to last for both.
func (q Sequence) Visible(sources ...string) Sequence {
	out := q
	out.Stages = slices.Clone(q.Stages)
	last := -1 // the stage before, of those that are awaited
	for i := range out.Stages {
		s := &out.Stages[i]
		if s.Optional || len(s.Sources) == 0 || s.seenBy(sources) {
			if !s.Optional {
				last = i
			}
			continue
		}
		s.Optional = true
		if last >= 0 && out.Stages[last].Within > 0 && s.Within > 0 {
			out.Stages[last].Within += s.Within
		}
	}
	return out
}

// Next is the first stage after the named one that is not optional. A stage that is not in the sequence has none.
func (q Sequence) Next(name string) (Stage, bool) {
	i := q.Index(name)
	if i < 0 {
		return Stage{}, false
	}
	for _, s := range q.Stages[i+1:] {
		if !s.Optional {
			return s, true
		}
	}
	return Stage{}, false
}

// Check says everything that is wrong with the sequence, joined.
func (q Sequence) Check() error {
	var errs []error
	if err := proto.CheckName("family", q.Family); err != nil {
		errs = append(errs, err)
	}
	if len(q.Stages) == 0 {
		errs = append(errs, errors.New("a sequence without stages"))
	}
	seen := map[string]bool{}
	for _, s := range slices.Concat(q.Stages, q.Aside) {
		for _, n := range append([]string{s.Name}, s.Aliases...) {
			if err := proto.CheckName("stage", n); err != nil {
				errs = append(errs, err)
			}
			if seen[n] {
				errs = append(errs, fmt.Errorf("stage %q stands twice", n))
			}
			seen[n] = true
		}
	}
	return errors.Join(errs...)
}
