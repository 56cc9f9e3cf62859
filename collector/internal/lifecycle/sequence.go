// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"errors"
	"fmt"
	"slices"

	"provost/proto"
)

// Sequence is an OS family's ordered stages.
type Sequence struct {
	Family string  `yaml:"family"`
	Stages []Stage `yaml:"stages"`
}

// Stage is one milestone of a sequence.
type Stage struct {
	Name  string `yaml:"name"`
	Label string `yaml:"label,omitempty"` // for people; the name if empty
	// Within is the time from this stage to the next one that is not optional; 0 is without limit.
	Within  proto.Duration `yaml:"within,omitempty"`
	Sources []string       `yaml:"sources,omitempty"` // agent boot log compat; whoever may report it
	Aliases []string       `yaml:"aliases,omitempty"` // other systems' names for it
	// Optional stages are never awaited, but count when they come.
	Optional bool `yaml:"optional,omitempty"`
	// HeartbeatExtends: while the agent is heard, Within starts anew.
	HeartbeatExtends bool `yaml:"heartbeat-extends,omitempty"`
}

// Index is the place of a stage, known by its name or an alias; -1 if it is not in the sequence.
func (q Sequence) Index(name string) int {
	return slices.IndexFunc(q.Stages, func(s Stage) bool { return s.Name == name || slices.Contains(s.Aliases, name) })
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
	for _, s := range q.Stages {
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
