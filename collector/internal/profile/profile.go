// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"text/template"
	"time"

	"provost/proto"
)

// Profile is how a class of nodes is installed. It does not change after Load.
type Profile struct {
	Name      string            `yaml:"name"` // the file's name without .yaml
	Kind      string            `yaml:"kind"` // KindDisk or KindDiskless
	Family    string            `yaml:"family"`
	Sequence  string            `yaml:"sequence"` // of stages, by its name; empty: the family's, or that of diskless nodes
	Boot      string            `yaml:"boot"`
	Loader    string            `yaml:"loader"`     // LoaderLinux, LoaderESXi or LoaderWinPE: what kind of system Kernel is
	Kernel    string            `yaml:"kernel"`     // "images/…", or a URL of http or https; of ESXi its boot.cfg, of Windows PE wimboot
	Initrds   []string          `yaml:"initrds"`    // like Kernel, or Overlay
	Args      string            `yaml:"args"`       // template; KernelArgs executes it
	Answer    string            `yaml:"answer"`     // template of the answer file; empty: there is none
	LocalBoot string            `yaml:"local-boot"` // LocalExit or LocalSanboot
	Attempts  int               `yaml:"attempts"`   // boots of the installer in one install, from 1; of a diskless node those in a row that come to no end
	OnFailure proto.OnFailure   `yaml:"on-failure"`
	HoldLimit proto.Duration    `yaml:"hold-limit"`
	Deadline  proto.Duration    `yaml:"deadline"`  // of the whole install
	SealWait  proto.Duration    `yaml:"seal-wait"` // at most 15m
	Trust     []proto.Source    `yaml:"trust"`     // whose word decides booted and failed
	Vars      map[string]string `yaml:"vars"`
	// RescueKeys are public keys, one in a line, or file: and the path of a file with them. Rescue gives the keys.
	RescueKeys string       `yaml:"rescue-keys"`
	Steps      []proto.Step `yaml:"steps"`

	path                               string // for messages
	answerLine, sequenceLine, varsLine int    // the same
	args                               *template.Template
}

// The words of a profile.
const (
	KindDisk     = "disk"
	KindDiskless = "diskless" // each boot is an install, and its steps are those of phase boot
	BootProvost  = "provost"  // the collector's own boot scripts
	BootExternal = "external" // the site's
	LoaderLinux  = "linux"
	LoaderESXi   = "esxi"
	LoaderWinPE  = "winpe"
	LocalExit    = "exit"    // back to the firmware, which goes on to the disk
	LocalSanboot = "sanboot" // for firmware that does not
	Overlay      = "overlay" // among Initrds: the agent's
	ImagesPrefix = "images/" // of files below the images directory
)

// DefaultDeadline is the time that a whole install may take where the profile says nothing.
const DefaultDeadline = 90 * time.Minute

// disklessAttempts is how often a diskless node may boot in a row, within an hour, without coming to the end of its steps,
// where the profile says nothing. Nothing is wiped by that, and a power cut should not block a cluster.
const disklessAttempts = 3

// minLimit keeps a mistyped unit from ending every install at once.
const minLimit = time.Minute

// families have a meaning without a sequence of their own: then the generic one is used.
var families = []string{"redhat", "suse", "debian", "ubuntu", "generic"}

// defaults is what a profile is where its file says nothing.
func defaults() Profile {
	return Profile{
		Kind: KindDisk, Family: "generic", Loader: LoaderLinux, Boot: BootProvost, LocalBoot: LocalExit, Attempts: 1,
		OnFailure: proto.OnFailureHold,
		HoldLimit: proto.Duration(proto.DefaultHoldLimit),
		Deadline:  proto.Duration(DefaultDeadline),
		SealWait:  proto.Duration(proto.DefaultSealWait),
		Trust:     []proto.Source{proto.SourceAgent, proto.SourceBoot},
	}
}

// Info is the profile as the API shows it.
func (p *Profile) Info() proto.ProfileInfo {
	return proto.ProfileInfo{
		Schema: proto.Schema, Name: p.Name, Kind: p.Kind, Family: p.Family, Sequence: p.Sequence, Boot: p.Boot, Kernel: p.Kernel, Initrds: p.Initrds,
		Args: p.Args, Answer: p.Answer, Attempts: p.Attempts, OnFailure: p.OnFailure, Deadline: p.Deadline, Steps: p.Steps,
	}
}

// readProfile gives a profile, and what is wrong with its file. name is the file's.
func readProfile(filePath, name string, b []byte) (*Profile, []error) {
	f := &file{path: filePath}
	p := defaults()
	p.path = filePath
	f.read(b, &p)
	if p.Kind == KindDiskless && !f.has("attempts") {
		p.Attempts = disklessAttempts
	}
	if len(f.problems) == 0 {
		p.check(f, name)
		p.answerLine, p.sequenceLine, p.varsLine = f.line("answer"), f.line("sequence"), f.line("vars")
	}
	return &p, f.problems
}

func (p *Profile) check(f *file, name string) {
	if p.Name == "" {
		p.Name = name
	}
	f.badErr(f.line("name"), proto.CheckName("profile", p.Name))
	if p.Name != name {
		f.bad(f.line("name"), "name %q: the file's name says %q", p.Name, name)
	}
	if p.Kind != KindDisk && p.Kind != KindDiskless {
		f.bad(f.line("kind"), "kind %q: use disk or diskless", p.Kind)
	}
	if p.Kind == KindDiskless && (p.Answer != "" || p.Boot == BootExternal) {
		f.bad(f.line("kind"), "kind: diskless nodes get their system from our boot script: leave out answer and boot: external")
	}
	p.checkLoader(f)
	if p.LocalBoot != LocalExit && p.LocalBoot != LocalSanboot {
		f.bad(f.line("local-boot"), "local-boot %q: use exit or sanboot", p.LocalBoot)
	}
	if p.Attempts < 1 || p.Attempts > 100 {
		f.bad(f.line("attempts"), "attempts %d: use 1 to 100", p.Attempts)
	}
	_, err := proto.ParseOnFailure(string(p.OnFailure))
	f.badErr(f.line("on-failure"), err)
	p.checkTimes(f)
	p.checkBoot(f)
	for _, s := range p.Trust {
		f.badErr(f.line("trust"), checkTrust(s))
	}
	checkVars(f, "vars", p.Vars)
	p.checkRescue(f)
	p.checkSteps(f)
}

// checkLoader: on ESXi and Windows PE no agent runs, and iPXE alone loads them.
func (p *Profile) checkLoader(f *file) {
	switch p.Loader {
	case LoaderLinux:
		return
	case LoaderESXi, LoaderWinPE:
	default:
		f.bad(f.line("loader"), "loader %q: use linux, esxi or winpe", p.Loader)
		return
	}
	if p.Kind != KindDisk || p.Boot != BootProvost || len(p.Steps) > 0 || p.RescueKeys != "" {
		f.bad(f.line("loader"), "loader %s: no agent runs there: leave out kind: diskless, boot: external, steps and rescue-keys", p.Loader)
	}
	if slices.Contains(p.Initrds, Overlay) {
		f.bad(f.line("initrds"), "loader %s: no agent runs there: leave out the overlay", p.Loader)
	}
	if p.Loader == LoaderESXi && (len(p.Initrds) > 0 || !strings.HasPrefix(p.Kernel, ImagesPrefix) || !strings.EqualFold(path.Base(p.Kernel), "boot.cfg")) {
		f.bad(f.line("kernel"), "loader esxi: kernel is the boot.cfg of an unpacked ISO below images/, like images/esxi8/boot.cfg, and there are no initrds")
	}
}

func (p *Profile) checkTimes(f *file) {
	for _, t := range []struct {
		key   string
		value proto.Duration
	}{{"hold-limit", p.HoldLimit}, {"deadline", p.Deadline}} {
		if t.value.D() < minLimit {
			f.bad(f.line(t.key), "%s %s: use at least %s", t.key, t.value, proto.Duration(minLimit))
		}
	}
	if p.SealWait == 0 || p.SealWait.D() > proto.DefaultSealWait {
		f.bad(f.line("seal-wait"), "seal-wait %s: use more than 0 and at most %s", p.SealWait, proto.Duration(proto.DefaultSealWait))
	}
}

func (p *Profile) checkBoot(f *file) {
	switch p.Boot {
	case BootProvost:
		if p.Kernel == "" {
			f.bad(f.line("kernel"), "there is no kernel: name one below images/, or set boot: external if the site boots these nodes by itself")
		} else if err := checkImage(p.Kernel); err != nil {
			f.bad(f.line("kernel"), "kernel %v", err)
		}
		for i, name := range p.Initrds {
			if name == Overlay {
				continue
			}
			if err := checkImage(name); err != nil {
				f.bad(f.line("initrds", i), "initrd %v", err)
			}
		}
		for i, name := range p.Initrds {
			if slices.Index(p.Initrds, name) != i {
				f.bad(f.line("initrds", i), "initrd %q stands twice", name)
			}
		}
	case BootExternal:
		if p.Kernel != "" || len(p.Initrds) > 0 || p.Args != "" {
			f.bad(f.line("boot"), "boot: external leaves kernel, initrds and args to the site: leave these keys out")
		}
	default:
		f.bad(f.line("boot"), "boot %q: use provost or external", p.Boot)
	}
	var err error
	if p.args, err = parseArgs(p.Name, p.Args); err != nil {
		f.bad(f.line("args"), "args: %v", err)
	}
}

func (p *Profile) checkSteps(f *file) {
	if len(p.Steps) > proto.MaxSteps {
		f.bad(f.line("steps"), "%d steps: at most %d", len(p.Steps), proto.MaxSteps)
	}
	lines := map[string]int{}
	for i := range p.Steps {
		s, line := &p.Steps[i], f.line("steps", i)
		f.badErr(line, s.Check())
		for _, k := range slices.Sorted(maps.Keys(s.SecretEnv)) {
			if _, err := proto.SecretPath(s.SecretEnv[k]); err != nil {
				f.bad(line, "step %q: secret-env %s: %v", s.Name, k, err)
			}
		}
		if first, ok := lines[s.Name]; ok {
			f.bad(line, "step %q stands in line %d already: names are unique in a profile", s.Name, first)
		} else {
			lines[s.Name] = line
		}
		switch {
		case s.Phase == proto.PhaseBoot && p.Kind != KindDiskless:
			f.bad(line, "step %q: phase boot is for kind: diskless; nodes with a disk have firstboot", s.Name)
		case (s.Phase == proto.PhasePost || s.Phase == proto.PhaseFirstboot) && p.Kind == KindDiskless:
			f.bad(line, "step %q: a diskless node has no phase %s: use pre or boot", s.Name, s.Phase)
		}
	}
}

// checkImage takes what the boot server can serve, or a URL that a boot loader can fetch.
func checkImage(name string) error {
	for _, r := range name {
		if r <= ' ' || r > '~' || strings.ContainsRune("\"'\\`${}<>|;&#", r) {
			return fmt.Errorf("%q: %q cannot stand in a boot script", name, r)
		}
	}
	if strings.Contains(name, "://") {
		u, err := url.Parse(name)
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("%q: use a URL of http or https, without a user", name)
		}
		return nil
	}
	if !strings.HasPrefix(name, ImagesPrefix) || path.Clean(name) != name {
		return fmt.Errorf("%q: use images/… for a file below the images directory, without .., or a URL", name)
	}
	return nil
}

func checkTrust(s proto.Source) error {
	if s == proto.SourceAgent || s == proto.SourceBoot || s == proto.SourceCallback {
		return nil
	}
	kind, name, ok := strings.Cut(string(s), ":")
	if !ok || kind != "log" && kind != "compat" {
		return fmt.Errorf("trust %q: use agent, boot, callback, log:PROGRAM or compat:SYSTEM", s)
	}
	return proto.CheckName("trust", name)
}
