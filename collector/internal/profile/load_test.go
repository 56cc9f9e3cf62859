// SPDX-License-Identifier: Apache-2.0

package profile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/collector/internal/profile"
	"provost/proto"
)

// site writes files by their path below a new configuration directory.
func site(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const whole = `
name: compute
kind: disk
family: redhat
boot: provost
kernel: images/el9/vmlinuz
initrds: [images/el9/initrd.img, overlay]
args: "inst.repo={{ .Images }}/el9 console=ttyS0"
local-boot: sanboot
attempts: 3
on-failure: poweroff
hold-limit: 2h
deadline: 45m
seal-wait: 30s
trust: [agent, "log:dnsmasq"]
vars: {timezone: Europe/Berlin}
steps:
  - name: timesync
    script: hostname
    phase: post
    timeout: 2m
    grace: 0s
    retries: 2
    run: on-change
    inputs: [/etc/chrony.conf]
    persists: outside
    rerunnable: true
    on-failure: warn
    success-codes: [0, 3]
    leave-running: true
    chroot: false
    env: {NTP_SERVERS: "10.0.0.1", COUNT: 3}
  - {name: firmware, script: hostname, phase: pre, reboot: {max: 2, within: 40m}}
`

func dur(d time.Duration) *proto.Duration {
	v := proto.Duration(d)
	return &v
}

func TestLoadProfile(t *testing.T) {
	set, err := profile.Load(site(t, map[string]string{"profiles/compute.yaml": whole}))
	if err != nil {
		t.Fatal(err)
	}
	got, ok := set.Profile("compute")
	if !ok {
		t.Fatal("there is no profile compute")
	}
	no := false
	want := proto.ProfileInfo{
		Schema: 1, Name: "compute", Kind: "disk", Family: "redhat", Boot: "provost", Kernel: "images/el9/vmlinuz",
		Initrds: []string{"images/el9/initrd.img", "overlay"}, Args: "inst.repo={{ .Images }}/el9 console=ttyS0",
		Attempts: 3, OnFailure: proto.OnFailurePoweroff, Deadline: proto.Duration(45 * time.Minute),
		Steps: []proto.Step{
			{Name: "timesync", Script: "hostname", Phase: proto.PhasePost, Timeout: dur(2 * time.Minute), Grace: dur(0), Retries: 2,
				Run: proto.RunOnChange, Inputs: []string{"/etc/chrony.conf"}, Persists: "outside", Rerunnable: true, OnFailure: "warn",
				SuccessCodes: []int{0, 3}, LeaveRunning: true, Chroot: &no, Env: map[string]string{"NTP_SERVERS": "10.0.0.1", "COUNT": "3"}},
			{Name: "firmware", Script: "hostname", Phase: proto.PhasePre, Reboot: &proto.Reboot{Max: 2, Within: *dur(40 * time.Minute)}},
		},
	}
	if diff := cmp.Diff(want, got.Info()); diff != "" {
		t.Errorf("profile: -want +got\n%s", diff)
	}
	if got.LocalBoot != "sanboot" || got.HoldLimit != *dur(2 * time.Hour) || got.SealWait != *dur(30 * time.Second) {
		t.Errorf("local-boot, hold-limit, seal-wait = %s, %s, %s", got.LocalBoot, got.HoldLimit, got.SealWait)
	}
	if diff := cmp.Diff([]proto.Source{"agent", "log:dnsmasq"}, got.Trust); diff != "" {
		t.Errorf("trust: -want +got\n%s", diff)
	}
}

func TestDefaults(t *testing.T) {
	set, err := profile.Load(site(t, map[string]string{"profiles/small.yaml": "kernel: images/vmlinuz\n"}))
	if err != nil {
		t.Fatal(err)
	}
	p, _ := set.Profile("small")
	if got := set.SequenceOf(p).Family; got != "generic" {
		t.Errorf("its sequence is %s, want generic", got)
	}
	for text, want := range map[string]int{"": 3, "attempts: 5\n": 5} {
		ram, err := profile.Load(site(t, map[string]string{"profiles/ram.yaml": "kernel: images/vmlinuz\nkind: diskless\nfamily: redhat\n" + text}))
		if err != nil {
			t.Fatal(err)
		}
		if d, _ := ram.Profile("ram"); d.Attempts != want || ram.SequenceOf(d).Family != "diskless" {
			t.Errorf("kind diskless, %q: attempts %d and sequence %s, want %d and diskless", text, d.Attempts, ram.SequenceOf(d).Family, want)
		}
	}
	if p.Name != "small" || p.Kind != "disk" || p.Family != "generic" || p.Boot != "provost" || p.LocalBoot != "exit" || p.Attempts != 1 ||
		p.OnFailure != "hold" || p.HoldLimit.D() != 24*time.Hour || p.Deadline.D() != 90*time.Minute || p.SealWait.D() != 15*time.Minute {
		t.Errorf("defaults = %+v", p)
	}
	if diff := cmp.Diff([]proto.Source{"agent", "boot"}, p.Trust); diff != "" {
		t.Errorf("trust: -want +got\n%s", diff)
	}
}

// TestProblems has one mistake in a line: the message must have the line and say what is wrong.
func TestProblems(t *testing.T) {
	const head = "kernel: images/k\n" // line 1
	for _, c := range []struct{ text, want string }{
		{"", "p.yaml: the file is empty"},
		{"# nothing\n", "p.yaml: the file is empty"},
		{"- a\n", "p.yaml:1: a mapping is wanted"},
		{"a: b: c\n", "p.yaml:1: "},
		{head + "\tname: p\n", "p.yaml:2: "},
		{head + "---\nname: p\n", "more than one YAML document"},
		{head + "nmae: p\n", `p.yaml:2: unknown key "nmae": there are name, kind, family`},
		{head + "steps:\n- name: a\n  phase: post\n  timout: 2m\n", `p.yaml:5: unknown key "timout"`},
		{head + "steps:\n- name: a\n  phase: pre\n  reboot: {max: 1, maxx: 2}\n", `p.yaml:5: unknown key "maxx"`},
		{head + "attempts: 1\nattempts: 2\n", `p.yaml:3: key "attempts" stands in line 2 already`},
		{head + "vars: {a: b, a: c}\n", `p.yaml:2: key "a" stands in line 2 already`},
		{head + "vars: &v {a: b}\n", "p.yaml:2: anchors and aliases"},
		{head + "vars: {<<: {a: b}}\n", "p.yaml:2: "},
		{head + "deadline: 90\n", `p.yaml:2: "90" is no duration: write a number with a unit`},
		{head + "deadline: [90m]\n", "p.yaml:2: a duration is wanted"},
		{head + "deadline: 30s\n", "p.yaml:2: deadline 30s: use at least 1m"},
		{head + "deadline: 0s\n", "p.yaml:2: deadline 0s: use at least 1m"},
		{head + "hold-limit: -1h\n", "p.yaml:2: duration \"-1h\" is negative"},
		{head + "seal-wait: 16m\n", "p.yaml:2: seal-wait 16m: use more than 0 and at most 15m"},
		{head + "attempts: 0\n", "p.yaml:2: attempts 0: use 1 to 100"},
		{head + "attempts: many\n", "p.yaml:2: cannot unmarshal"},
		{head + "kind: raid\n", "p.yaml:2: kind \"raid\": use disk or diskless"},
		{head + "kind: tape\n", `p.yaml:2: kind "tape": use disk`},
		{head + "family: plan9\n", `family "plan9": use one of redhat, suse`},
		{head + "sequence: plan9\n", `p.yaml:2: sequence "plan9": use one of debian, diskless, generic, redhat, stacki-redhat, stacki-suse, suse, ubuntu`},
		{head + "boot: floppy\n", `p.yaml:2: boot "floppy": use provost or external`},
		{head + "boot: external\n", "p.yaml:2: boot: external leaves kernel"},
		{head + "local-boot: maybe\n", `p.yaml:2: local-boot "maybe"`},
		{head + "on-failure: shrug\n", `p.yaml:2: on-failure "shrug": use one of hold, exit, poweroff, disk`},
		{head + "trust: [everybody]\n", `p.yaml:2: trust "everybody"`},
		{head + "trust: [log]\n", `p.yaml:2: trust "log"`},
		{head + "answer: ks.tmpl\n", `p.yaml:2: answer: template "ks.tmpl": its name tells what it is for: use kickstart-NAME.tmpl`},
		{head + "rescue-keys: file:etc/k\n", "p.yaml:2: rescue-keys: write file: and the absolute path"},
		{head + "rescue-keys: /etc/k\n", "p.yaml:2: rescue-keys, line 1: this is no SSH public key"},
		{head + "rescue-keys: |\n  # ours\n  from=\"10.0.0.0/8\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9AQ6Rxw0tWQ9p2Jc0C2oV3t8dE4wB4lYqz8G6m5v0r\n", "p.yaml:2: rescue-keys, line 2: this is no SSH public key, or has options"},
		{head + "vars: {pw: \"file:pw\"}\n", `p.yaml:2: var pw = "file:pw": name the file by its whole path`},
		{head + "vars: {timezone: \"Mars Base\"}\n", `p.yaml:2: var timezone = "Mars Base": use a zone like Europe/Berlin`},
		{head + "vars: {rootpw-hash: geheim}\n", "p.yaml:2: var rootpw-hash: its value, which is not shown, cannot be used: use a hash"},
		{head + "answer: kickstart-el6.tmpl\n", "p.yaml:2: answer: template kickstart-el6.tmpl is not there: there are autoinstall-ubuntu.tmpl, autoyast-sles12.tmpl"},
		{head + "answer: kickstart.tmpl\n", "p.yaml:2: answer: template kickstart.tmpl is the part that others of its kind share"},
		{head + "vars: {\"a b\": c}\n", "p.yaml:2: attribute \"a b\""},
		{head + "args: \"{{ .Nope\"\n", "p.yaml:2: args: "},
		{head + "args: '{{ readFile \"/etc/shadow\" }}'\n", "p.yaml:2: args: "},
		{head + "name: q\n", `p.yaml:2: name "q": the file's name says "p"`},
		{"name: p\n", "p.yaml:1: there is no kernel"},
		{"name: p\nkernel: vmlinuz\n", "p.yaml:2: kernel \"vmlinuz\": use images/"},
		{"name: p\nkernel: images/../../etc/shadow\n", "p.yaml:2: kernel \"images/../../etc/shadow\": use images/"},
		{"name: p\nkernel: images/a b\n", `p.yaml:2: kernel "images/a b": ' ' cannot stand`},
		{"name: p\nkernel: \"images/${x}\"\n", "p.yaml:2: kernel "},
		{"name: p\nkernel: ftp://h/k\n", "p.yaml:2: kernel \"ftp://h/k\": use a URL of http or https"},
		{"name: p\nkernel: http://u:p@h/k\n", "without a user"},
		{head + "initrds:\n- images/i\n- overlay\n- overlay\n", `p.yaml:5: initrd "overlay" stands twice`},
		{head + "initrds: overlay\n", "p.yaml:2: a list is wanted"},
		{head + "steps:\n- {name: a, phase: post}\n- {name: a, phase: post}\n", `p.yaml:4: step "a" stands in line 3 already`},
		{head + "steps:\n- {name: a}\n", `p.yaml:3: step "a": phase ""`},
		{head + "steps:\n- {name: a, phase: boot}\n", `p.yaml:3: step "a": phase boot is for kind: diskless`},
		{head + "kind: diskless\nsteps:\n- {name: a, phase: post}\n", `p.yaml:4: step "a": a diskless node has no phase post`},
		{head + "loader: solaris\n", `p.yaml:2: loader "solaris": use linux, esxi or winpe`},
		{"kernel: images/e/b.b00\nloader: esxi\n", "p.yaml:1: loader esxi: kernel is the boot.cfg of an unpacked ISO"},
		{head + "loader: winpe\ninitrds: [overlay]\n", "p.yaml:3: loader winpe: no agent runs there: leave out the overlay"},
		{head + "loader: winpe\nkind: diskless\n", "p.yaml:2: loader winpe: no agent runs there: leave out kind: diskless"},
		{head + "kind: diskless\nanswer: kickstart-el9.tmpl\n", "p.yaml:2: kind: diskless nodes get their system from our boot script"},
		{head + "steps:\n- {name: a, phase: post, timeout: 0s}\n", `p.yaml:3: step "a": timeout 0s`},
		{head + "steps:\n- {name: a, phase: post, timeout: 5}\n", `p.yaml:3: "5" is no duration`},
		{head + "steps:\n- {name: a, phase: post, script: ../x}\n", `p.yaml:3: step "a": script "../x"`},
		{head + "steps:\n- {name: a, phase: post, reboot: {max: 1}}\n", `p.yaml:3: step "a": a reboot in phase post`},
		{head + "steps:\n- {name: a, phase: post, secret-env: {A: b}}\n", "p.yaml:3: step \"a\": secret-env A: write file: and the absolute path of a file that holds the value, like file:/etc/provost/secrets/join"},
	} {
		set, err := profile.Load(site(t, map[string]string{"profiles/p.yaml": c.text}))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Load of %q = %v, want %q", c.text, err, c.want)
			continue
		}
		if n := len(strings.Split(err.Error(), "\n")); n != 1 {
			t.Errorf("Load of %q gives %d problems, want one:\n%v", c.text, n, err)
		}
		var p *profile.Problem
		if !errors.As(err, &p) || filepath.Base(p.Path) != "p.yaml" {
			t.Errorf("Load of %q = %#v, want a *Problem of p.yaml", c.text, err)
		}
		if _, ok := set.Profile("p"); ok {
			t.Errorf("the profile of %q is in the set", c.text)
		}
	}
}

func TestSequenceProblems(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"family: s\n", "s.yaml:1: a sequence without stages"},
		{"family: x\nstages: [{name: ordered}]\n", `s.yaml:1: family "x": the file's name says "s"`},
		{"family: s\nstages:\n- {name: ordered, within: 15}\n", `s.yaml:3: "15" is no duration`},
		{"family: s\nstages:\n- {name: ordered}\n- {name: a b}\n", `s.yaml:4: stage "a b"`},
		{"family: s\nstages:\n- {name: ordered}\n- {name: ordered}\n", `s.yaml:2: stage "ordered" stands twice`},
		{"family: s\nstages:\n- {name: ordered, sources: [gossip]}\n", `s.yaml:3: stage "ordered": source "gossip"`},
		{"family: s\nstages:\n- {name: ordered, optionl: true}\n", `s.yaml:3: unknown key "optionl"`},
		{"family: s\nstages:\n- {name: ordered}\naside:\n- {name: wait, within: 5m}\n", `s.yaml:5: stage "wait" is out of line: it is never awaited`},
		{"family: s\nstages:\n- {name: ordered}\naside:\n- {name: ordered}\n", `s.yaml:2: stage "ordered" stands twice`},
	} {
		_, err := profile.Load(site(t, map[string]string{"sequences/s.yaml": c.text}))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Load of %q = %v, want %q", c.text, err, c.want)
		}
	}
}

func TestAllProblemsAreReportedAndTheRestServes(t *testing.T) {
	set, err := profile.Load(site(t, map[string]string{
		"profiles/good.yaml":      "kernel: images/k\n",
		"profiles/bad1.yaml":      "kernel: images/k\nfoo: 1\nbar: 2\ndeadline: 3\n",
		"profiles/bad2.yaml":      "kernel: nowhere\nattempts: -1\n",
		"profiles/late.yml":       "kernel: images/k\n",
		"profiles/good.yaml~":     "an editor's\n",
		"profiles/.good.yaml.swp": "an editor's\n",
		"sequences/suse.yaml":     "family: suse\n",
	}))
	if err == nil {
		t.Fatal("Load is no error")
	}
	for _, want := range []string{"bad1.yaml:2: unknown key \"foo\"", "bad1.yaml:3: unknown key \"bar\"", "bad1.yaml:4: \"3\" is no duration",
		"bad2.yaml:1: kernel", "bad2.yaml:2: attempts -1", "late.yml: is not read", "suse.yaml:1: a sequence without stages"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	if n := len(strings.Split(err.Error(), "\n")); n != 7 {
		t.Errorf("%d problems, want 7:\n%v", n, err)
	}
	if diff := cmp.Diff([]string{"good"}, set.Names()); diff != "" {
		t.Errorf("Names: -want +got\n%s", diff)
	}
}

func TestSiteReplacesShipped(t *testing.T) {
	set, err := profile.Load(site(t, map[string]string{
		"sequences/generic.yaml": "family: generic\nstages: [{name: ordered, within: 1h}, {name: booted}]\n",
		"sequences/suse.yaml":    "family: suse\nstages: [{name: ordered, within: 3h}, {name: booted}]\n",
		"sequences/own.yaml":     "family: own\nstages: [{name: ordered, within: 2h}, {name: booted}]\n",
		"profiles/p.yaml":        "kernel: images/k\nfamily: own\n",
		"profiles/q.yaml":        "kernel: images/k\nfamily: redhat\nsequence: own\n",
		"profiles/r.yaml":        "kernel: images/k\nkind: diskless\nfamily: redhat\n",
		"profiles/s.yaml":        "kernel: images/k\nkind: diskless\nsequence: stacki-suse\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	for family, want := range map[string]time.Duration{"generic": time.Hour, "gentoo": time.Hour, "suse": 3 * time.Hour, "own": 2 * time.Hour, "debian": 15 * time.Minute} {
		if got := set.Sequence(family).Stages[0].Within.D(); got != want {
			t.Errorf("Sequence(%s) allows %s, want %s", family, got, want)
		}
	}
	for name, want := range map[string]string{"p": "own", "q": "own", "r": "diskless", "s": "stacki-suse"} {
		p, _ := set.Profile(name)
		if got := set.SequenceOf(p).Family; got != want {
			t.Errorf("SequenceOf(%s) = %s, want %s", name, got, want)
		}
	}
}

func TestUnreadable(t *testing.T) {
	dir := site(t, map[string]string{"profiles/big.yaml": "# " + strings.Repeat("x", 1<<20)})
	if err := os.Mkdir(filepath.Join(dir, "profiles", "dir.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(dir, "profiles", "gone.yaml")); err != nil {
		t.Fatal(err)
	}
	_, err := profile.Load(dir)
	for _, want := range []string{"big.yaml: is larger than", "dir.yaml: is no regular file", "gone.yaml: cannot be read"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(whole)
	f.Add("kernel: images/k\nsteps: [{name: a, phase: post}]\n")
	f.Add("a: &a [*a]\n")
	f.Add("? {a: b}\n: c\n")
	f.Add("steps:\n- &x {name: a}\n- *x\n")
	f.Add("kernel: !!binary aGk=\nargs: !!null\n")
	f.Fuzz(func(t *testing.T, text string) {
		set, err := profile.Load(site(t, map[string]string{"profiles/compute.yaml": text, "sequences/compute.yaml": text}))
		p, ok := set.Profile("compute")
		if err == nil && !ok {
			t.Fatal("neither an error nor a profile")
		}
		if ok {
			if err := proto.CheckSteps(p.Steps); err != nil {
				t.Errorf("a profile that was taken has wrong steps: %v", err)
			}
			p.KernelArgs(profile.ArgData{Node: "n1"}) // must come to an end
		}
	})
}
