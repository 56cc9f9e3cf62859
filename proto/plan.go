// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Duration is a time.Duration that is written with its unit ("90s", "2m"), in YAML as in JSON. A bare number is
// refused, since nobody can know what it counts.
type Duration time.Duration

// ParseDuration reads a duration of zero or more, with unit.
func ParseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || s == "0" {
		return 0, fmt.Errorf("%q is no duration: write a number with a unit, like 90s, 5m or 2h", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("duration %q is negative", s)
	}
	return Duration(d), nil
}

// D is the value as the standard library's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// MarshalText writes the duration with its unit.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	*d = v
	return err
}

// RunPolicy says when a step runs again.
type RunPolicy string

// The run policies.
const (
	RunAlways   RunPolicy = "always"
	RunOnce     RunPolicy = "once"      // not again after it succeeded in this install's system
	RunOnChange RunPolicy = "on-change" // not again while script, environment, inputs and OS image are the same
)

// Defaults and limits of a step.
const (
	DefaultTimeout = 10 * time.Minute
	DefaultGrace   = 10 * time.Second
	DefaultWithin  = 40 * time.Minute // of a step's reboots
	MaxTimeout     = 24 * time.Hour
	MaxRetries     = 20
	MaxScript      = 16 << 20 // bytes of one script
	MaxSteps       = 1000
	MaxInputs      = 100
	MaxSecret      = 16 << 10 // bytes of one value of secret-env
)

// Step is one postscript of a plan. The zero value of a field stands for its default, which WithDefaults writes out.
type Step struct {
	Name         string            `json:"name" yaml:"name"`                                       // unique in the plan
	Script       string            `json:"script,omitempty" yaml:"script,omitempty"`               // file's name; Name if empty
	Phase        Phase             `json:"phase" yaml:"phase"`                                     // required
	Timeout      *Duration         `json:"timeout,omitempty" yaml:"timeout,omitempty"`             // 10m; 0 is refused
	Grace        *Duration         `json:"grace,omitempty" yaml:"grace,omitempty"`                 // 10s between TERM and KILL; 0 is KILL at once
	Retries      int               `json:"retries,omitempty" yaml:"retries,omitempty"`             // further tries after the first
	Run          RunPolicy         `json:"run,omitempty" yaml:"run,omitempty"`                     // always
	Inputs       []string          `json:"inputs,omitempty" yaml:"inputs,omitempty"`               // files whose content counts for on-change
	Persists     string            `json:"persists,omitempty" yaml:"persists,omitempty"`           // root | outside: where its effect lives
	Rerunnable   bool              `json:"rerunnable,omitempty" yaml:"rerunnable,omitempty"`       // may run again after a crash in the middle
	OnFailure    string            `json:"on_failure,omitempty" yaml:"on-failure,omitempty"`       // fail | warn
	SuccessCodes []int             `json:"success_codes,omitempty" yaml:"success-codes,omitempty"` // [0]
	Reboot       *Reboot           `json:"reboot,omitempty" yaml:"reboot,omitempty"`
	LeaveRunning bool              `json:"leave_running,omitempty" yaml:"leave-running,omitempty"` // what it leaves behind is not killed
	Chroot       *bool             `json:"chroot,omitempty" yaml:"chroot,omitempty"`               // true in phase post
	Env          map[string]string `json:"env,omitempty" yaml:"env,omitempty"`

	// SecretEnv is environment that nobody else may see: in a profile or plan file "file:/PATH" for each name, in a plan the
	// values themselves. They stand in no log, journal, report or argument of a process.
	SecretEnv map[string]string `json:"secret_env,omitempty" yaml:"secret-env,omitempty"`

	// Of the script's bytes; in a plan from a collector always there.
	Digest string `json:"digest,omitempty" yaml:"-"`
	Size   int64  `json:"size,omitempty" yaml:"-"`
}

// Exit statuses by which a step that declares reboot says what is to come. Of any other step they are failures.
const (
	ExitStop        = 16  // it is done; the rest of the phase is not needed
	ExitPoweroff    = 32  // it is done; the machine goes off, and the next step follows when it is on again
	ExitReboot      = 64  // it is done; the machine restarts, and then the next step follows
	ExitAgain       = 128 // it is to run again, after the other steps of the phase
	ExitRebootAgain = 192 // it is to run again, after a restart
)

// Asks reports whether an exit status of this step is one of those, and no failure.
func (s *Step) Asks(exit int) bool {
	return s.Reboot != nil && s.Reboot.Max > 0 && slices.Contains(exitAsks, exit)
}

var exitAsks = []int{ExitStop, ExitPoweroff, ExitReboot, ExitAgain, ExitRebootAgain}

// Reboot says how often a step may ask to be run again or for the machine to restart, and in what time, from its first
// start on, all of that must be over. Time counts by the kernels' clocks: what the firmware takes between two boots does not.
type Reboot struct {
	Max    int      `json:"max" yaml:"max"`
	Within Duration `json:"within,omitempty" yaml:"within,omitempty"` // 40m
}

// WithDefaults gives the step with every default written out.
func (s Step) WithDefaults() Step {
	if s.Script == "" {
		s.Script = s.Name
	}
	if s.Timeout == nil {
		t := Duration(DefaultTimeout)
		s.Timeout = &t
	}
	if s.Grace == nil {
		g := Duration(DefaultGrace)
		s.Grace = &g
	}
	if s.Run == "" {
		s.Run = RunAlways
	}
	if s.Persists == "" {
		s.Persists = "root"
	}
	if s.OnFailure == "" {
		s.OnFailure = "fail"
	}
	if len(s.SuccessCodes) == 0 {
		s.SuccessCodes = []int{0}
	}
	if s.Reboot != nil && s.Reboot.Max > 0 && s.Reboot.Within == 0 {
		s.Reboot = &Reboot{Max: s.Reboot.Max, Within: Duration(DefaultWithin)}
	}
	if s.Chroot == nil {
		c := s.Phase == PhasePost
		s.Chroot = &c
	}
	return s
}

// Check says everything that is wrong with the step, joined.
func (s *Step) Check() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("step %q: "+format, append([]any{s.Name}, args...)...))
	}
	if err := CheckName("step", s.Name); err != nil {
		errs = append(errs, err)
	}
	if s.Script != "" && (s.Script != path.Base(s.Script) || CheckName("script", s.Script) != nil) {
		bad("script %q: give the file's plain name; scripts are looked up in the postscripts directories", s.Script)
	}
	if _, err := ParsePhase(string(s.Phase)); err != nil {
		bad("%v", err)
	}
	if s.Timeout != nil && (s.Timeout.D() <= 0 || s.Timeout.D() > MaxTimeout) {
		bad("timeout %s: use more than 0 and at most %s; no step may run for ever", s.Timeout, MaxTimeout)
	}
	if s.Grace != nil && s.Grace.D() > 10*time.Minute {
		bad("grace %s: at most 10m", s.Grace)
	}
	if s.Retries < 0 || s.Retries > MaxRetries {
		bad("retries %d: use 0 to %d", s.Retries, MaxRetries)
	}
	if s.Run != "" && s.Run != RunAlways && s.Run != RunOnce && s.Run != RunOnChange {
		bad("run %q: use always, once or on-change", s.Run)
	}
	if s.Persists != "" && s.Persists != "root" && s.Persists != "outside" {
		bad("persists %q: use root or outside", s.Persists)
	}
	if s.Run == RunOnChange && s.Persists != "outside" && s.Phase.Fleeting() {
		bad("run on-change with persists: root in phase %s, where the root is memory and begins anew with each boot: use run: always, or persists: outside", s.Phase)
	}
	if len(s.Inputs) > MaxInputs {
		bad("%d inputs: at most %d", len(s.Inputs), MaxInputs)
	}
	for _, name := range s.Inputs {
		if !path.IsAbs(name) || path.Clean(name) != name || strings.ContainsRune(name, 0) {
			bad("input %q: give the file's absolute path, as the step sees it", name)
		}
	}
	if s.OnFailure != "" && s.OnFailure != "fail" && s.OnFailure != "warn" {
		bad("on-failure %q: use fail or warn", s.OnFailure)
	}
	for _, c := range s.SuccessCodes {
		if c < 0 || c > 255 {
			bad("success code %d: exit statuses are 0 to 255", c)
		}
	}
	if s.Reboot != nil {
		if s.Reboot.Max < 0 || s.Reboot.Max > 20 {
			bad("reboot max %d: use 0 to 20", s.Reboot.Max)
		}
		if s.Reboot.Max > 0 && s.Phase == PhasePost {
			bad("a reboot in phase post would leave the target half made: move the step to pre or firstboot")
		}
		for _, c := range s.SuccessCodes {
			if s.Asks(c) {
				bad("success code %d: with reboot, this exit status has a meaning of its own", c)
			}
		}
	}
	for k, v := range s.Env {
		if !envName(k) {
			bad("environment variable %q: use letters, digits and '_', not starting with a digit, and not PROVOST_…", k)
		}
		if strings.ContainsRune(v, 0) {
			bad("environment variable %s has a NUL byte", k)
		}
	}
	for k, v := range s.SecretEnv { // no message may hold the value
		if !envName(k) {
			bad("secret environment variable %q: use letters, digits and '_', not starting with a digit, and not PROVOST_…", k)
		}
		if _, ok := s.Env[k]; ok {
			bad("environment variable %s stands in env and in secret-env", k)
		}
		if len(v) > MaxSecret || strings.ContainsRune(v, 0) {
			bad("secret environment variable %s has a NUL byte or more than %d bytes", k, MaxSecret)
		}
	}
	if len(s.SecretEnv) > 0 && s.LeaveRunning {
		bad("secret-env and leave-running exclude each other: nobody could take the secrets out of what is printed later")
	}
	if s.Digest != "" && !ValidDigest(s.Digest) {
		bad("digest %q is no SHA-256 in hex", s.Digest)
	}
	if s.Size < 0 || s.Size > MaxScript {
		bad("script of %d bytes: at most %d", s.Size, MaxScript)
	}
	return errors.Join(errs...)
}

// SecretPath gives the path of a value of secret-env as an administrator writes it: "file:/PATH".
func SecretPath(value string) (string, error) {
	name, ok := strings.CutPrefix(value, "file:")
	if !ok || !path.IsAbs(name) || path.Clean(name) != name {
		return "", errors.New("write file: and the absolute path of a file that holds the value, like file:/etc/provost/secrets/join")
	}
	return name, nil
}

// SecretValue gives the value that a secret's file holds: all of it but the end of the last line. Its errors do not show it.
func SecretValue(b []byte) (string, error) {
	v := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case v == "":
		return "", errors.New("it is empty")
	case len(v) > MaxSecret:
		return "", fmt.Errorf("it has more than %d bytes", MaxSecret)
	case strings.ContainsRune(v, 0):
		return "", errors.New("it has a NUL byte, which no environment variable can hold")
	}
	return v, nil
}

func envName(k string) bool {
	if k == "" || len(k) > 128 || strings.HasPrefix(k, "PROVOST_") {
		return false
	}
	for i, r := range k {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return true
}

// CheckSteps says everything that is wrong with a list of steps, joined.
func CheckSteps(steps []Step) error {
	var errs []error
	if len(steps) > MaxSteps {
		errs = append(errs, fmt.Errorf("%d steps: at most %d", len(steps), MaxSteps))
	}
	seen := map[string]bool{}
	for i := range steps {
		if err := steps[i].Check(); err != nil {
			errs = append(errs, err)
		}
		if seen[steps[i].Name] {
			errs = append(errs, fmt.Errorf("step %q stands twice: names are unique in a plan", steps[i].Name))
		}
		seen[steps[i].Name] = true
	}
	return errors.Join(errs...)
}

// Plan is the ordered steps of one install, for all phases, as the collector gives them to the agent.
type Plan struct {
	Schema    int               `json:"schema"`
	Node      string            `json:"node"`
	Install   string            `json:"install"`
	Revision  int               `json:"revision"` // of this install's plan, from 1
	Issued    time.Time         `json:"issued"`
	Expires   time.Time         `json:"expires"`
	Profile   string            `json:"profile"`
	Kind      string            `json:"kind,omitempty"` // PlanDisk or PlanDiskless; empty of a plan file, and of a collector before there was this field
	OnFailure OnFailure         `json:"on_failure"`
	HoldLimit Duration          `json:"hold_limit"`
	SealWait  Duration          `json:"seal_wait"`
	Attrs     map[string]string `json:"attrs,omitempty"`
	Groups    []string          `json:"groups,omitempty"`
	Steps     []Step            `json:"steps"`

	// RescueKeys are the public keys, one line of authorized_keys each, that may come into the node's rescue shell.
	RescueKeys []string `json:"rescue_keys,omitempty"`
}

// What nodes a plan may be for: those that install a disk, with the phases pre, post and firstboot, and those without one, with
// phase boot.
const (
	PlanDisk     = "disk"
	PlanDiskless = "diskless"
)

// Defaults and limits of a plan.
const (
	DefaultHoldLimit = 24 * time.Hour
	DefaultSealWait  = 15 * time.Minute
	PlanLife         = 7 * 24 * time.Hour // from Issued to Expires
)

// Check says everything that is wrong with the plan, joined.
func (p *Plan) Check() error {
	var errs []error
	if p.Schema > Schema {
		errs = append(errs, fmt.Errorf("plan has schema %d, this program knows up to %d", p.Schema, Schema))
	}
	if err := CheckNode(p.Node); err != nil {
		errs = append(errs, err)
	}
	if !ValidID(p.Install) {
		errs = append(errs, fmt.Errorf("plan's install %q is no ULID", p.Install))
	}
	if !slices.Contains(OnFailures, p.OnFailure) {
		errs = append(errs, fmt.Errorf("plan's on_failure %q is unknown", p.OnFailure))
	}
	for _, s := range p.Steps {
		if s.Digest == "" {
			errs = append(errs, fmt.Errorf("step %q has no digest", s.Name))
		}
	}
	errs = append(errs, CheckSteps(p.Steps))
	if len(p.RescueKeys) > MaxRescueKeys {
		errs = append(errs, fmt.Errorf("%d rescue keys: at most %d", len(p.RescueKeys), MaxRescueKeys))
	}
	return errors.Join(errs...)
}

// WithoutSecrets gives the plan without the secrets of the phases that are over, and whether there were any.
func (p *Plan) WithoutSecrets(over func(Phase) bool) (*Plan, bool) {
	q, had := *p, false
	q.Steps = slices.Clone(p.Steps)
	for i := range q.Steps {
		if s := &q.Steps[i]; len(s.SecretEnv) > 0 && over(s.Phase) {
			s.SecretEnv, had = nil, true
		}
	}
	return &q, had
}

// SignedPlan is a plan's exact bytes with the signature of a key that the collector's CA certifies.
type SignedPlan struct {
	Payload   []byte `json:"payload"`   // the JSON of a Plan
	Signature []byte `json:"signature"` // Ed25519 over PlanContext and Payload
	Cert      []byte `json:"cert"`      // DER of the signing certificate, its common name PlanSigner

	// Bare is the same plan without any secret, where it has some: what a disk may keep and still be verified. It has no Bare.
	Bare *SignedPlan `json:"bare,omitempty"`
}

// EveryPhase reports that a phase is over, whichever it is.
func EveryPhase(Phase) bool { return true }

// PlanContext stands in front of the payload in what is signed, so that a signature made for another purpose is none.
const PlanContext = "provost plan v1\x00"

// PlanSigner is the common name of the certificate that may sign plans.
const PlanSigner = "provost plan signer"

// DecodePlan reads a plan's JSON and checks it. Fields that it does not know are of a newer collector, and passed over.
func DecodePlan(b []byte) (*Plan, error) {
	var p Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("reading plan: %w", err)
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	return &p, nil
}
