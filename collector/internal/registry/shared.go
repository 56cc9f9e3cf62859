// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"unique"
	"weak"

	"provost/collector/internal/store"
	"provost/proto"
)

// shared is what many installs have in common, in memory once: by digest, as in bucket files. Recipes have secrets and go
// with their last install, steps as plans have them as soon as no plan is made of them; lists of steps are few and stay.
type shared struct {
	mu      sync.Mutex
	recipes map[string]weak.Pointer[Recipe]
	steps   map[string][]stepRef
	full    map[string]weak.Pointer[[]proto.Step]
}

// recipe gives the recipe of a digest: the one that is there, else rc from then on.
func (s *shared) recipe(digest string, rc *Recipe) *Recipe {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was := s.recipes[digest].Value(); was != nil {
		return was
	}
	if rc == nil {
		return nil
	}
	if s.recipes == nil {
		s.recipes = map[string]weak.Pointer[Recipe]{}
	}
	own := *rc // rc is part of something larger, which need not stay
	s.recipes[digest] = weak.Make(&own)
	return &own
}

// stepList does the same for a list of steps, which nobody may change.
func (s *shared) stepList(digest string, steps []stepRef) []stepRef {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was := s.steps[digest]; was != nil || steps == nil {
		return was
	}
	if s.steps == nil {
		s.steps = map[string][]stepRef{}
	}
	s.steps[digest] = steps
	return steps
}

// fullSteps gives the steps of a digest with all that a plan has of them. read gives their JSON, if it is needed.
func (s *shared) fullSteps(digest string, read func() []byte) ([]proto.Step, error) {
	if digest == "" {
		return nil, nil
	}
	s.mu.Lock()
	was := s.full[digest].Value()
	s.mu.Unlock()
	if was != nil {
		return *was, nil
	}
	steps := new([]proto.Step)
	if err := json.Unmarshal(read(), steps); err != nil {
		return nil, fmt.Errorf("reading its steps: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for digest, p := range s.full {
		if p.Value() == nil {
			delete(s.full, digest)
		}
	}
	set(&s.full, digest, weak.Make(steps))
	return *steps, nil
}

// recipeOf reads a recipe once.
func (r *Registry) recipeOf(digest string) (*Recipe, error) {
	if rc := r.shared.recipe(digest, nil); rc != nil {
		return rc, nil
	}
	rc := &Recipe{}
	if err := r.readFile(digest, rc); err != nil {
		return nil, fmt.Errorf("reading its recipe: %w", err)
	}
	return r.shared.recipe(digest, rc), nil
}

// fillSteps gives a record that was read the steps that it names.
func (r *Registry) fillSteps(rec *installRecord) error {
	if rec.StepList == "" {
		return nil // it has none, or them itself, as before schema 3
	}
	oneWord(&rec.StepList)
	if rec.Steps = r.shared.stepList(rec.StepList, nil); rec.Steps != nil {
		return nil
	}
	steps := []stepRef{} // of those of schema 3 and 4 there is no more
	if err := r.readFile(rec.StepList, &steps); err != nil {
		return fmt.Errorf("reading its steps: %w", err)
	}
	rec.Steps = r.shared.stepList(rec.StepList, steps)
	return nil
}

func (r *Registry) readFile(digest string, v any) error {
	var b []byte
	if err := r.st.View(func(s *store.Reader) error { b = s.Get(store.Files, digest); return nil }); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// names reports whether a script is one of the record's plan, or of one before it.
func (rec *installRecord) names(digest string) bool {
	return slices.Contains(rec.Files, digest) || slices.ContainsFunc(rec.Steps, func(s stepRef) bool { return s.Digest == digest })
}

// oneWord gives the copy of a word that all share which have it: few words make up what is known of many installs.
func oneWord[S ~string](s *S) {
	if *s != "" {
		*s = S(unique.Make(string(*s)).Value())
	}
}

// oneWords does so for what an install keeps of an event.
func oneWords(e *proto.Event) {
	oneWord(&e.Kind)
	oneWord(&e.Source)
	oneWord(&e.Journal)
	oneWord(&e.Boot)
	oneWord(&e.Phase)
	oneWord(&e.Step)
	oneWord(&e.Stage)
	oneWord(&e.Outcome)
}
