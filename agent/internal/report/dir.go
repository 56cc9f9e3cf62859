// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"provost/agent/internal/plan"
	"provost/proto"
)

// Dir is a state directory: what the agent's processes share, in /run/provost or, on an installed system, in
// /var/lib/provost. Files are replaced whole (temporary file, fsync, rename, fsync of the directory), so a reader sees
// the old or the new one, also after a power cut.
type Dir string

// The files of a Dir that this package writes.
const (
	fileIdentity = "identity.json"
	fileToken    = "token"
	fileCA       = "ca.pem"
	filePlan     = "plan.json"
	fileKept     = "plan.kept.json"
	fileProgress = "progress.json"
	fileOutside  = "outside.json"
	filePrivate  = "run.packed" // run.PrivateArchive
	fileSent     = "sent"
	fileLock     = "sender.lock"
	fileWatch    = "watch.lock"
	fileRescuer  = "rescue.lock"
	fileRescue   = "rescue.json"
	dirFiles     = "files"
)

// Identity is who this machine is, as far as is known: from its settings, and then from the collector's hello.
type Identity struct {
	Node    string   `json:"node,omitempty"`
	Install string   `json:"install"` // provisional, made by the agent, until a collector gave one
	URLs    []string `json:"urls,omitempty"`
	Attempt int      `json:"attempt,omitempty"`
	Known   bool     `json:"known,omitempty"` // a collector has answered a hello
	Logs    string   `json:"logs,omitempty"`  // the directory's name in /var/log/provost: the Install at the time when the mirror was made
}

// Path is a file of the directory.
func (d Dir) Path(name ...string) string {
	return filepath.Join(append([]string{string(d)}, name...)...)
}

// Make makes the directory, for its owner only.
func (d Dir) Make() error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	return nil
}

// Identity reads the identity; os.ErrNotExist if there is none yet.
func (d Dir) Identity() (Identity, error) {
	var id Identity
	return id, d.readJSON(fileIdentity, &id)
}

// SetIdentity writes the identity.
func (d Dir) SetIdentity(id Identity) error { return d.writeJSON(fileIdentity, id, 0o600) }

// Token is the agent's token; "" if there is none.
func (d Dir) Token() string {
	b, err := os.ReadFile(d.Path(fileToken))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// SetToken keeps a token, readable for its owner only.
func (d Dir) SetToken(token string) error { return d.WriteFile(fileToken, []byte(token+"\n"), 0o600) }

// RemoveToken forgets the token.
func (d Dir) RemoveToken() error { return d.remove(fileToken) }

// CAFile is where the pinned CA's certificate lies once it was met.
func (d Dir) CAFile() string { return d.Path(fileCA) }

// Script is the path of a script that was fetched and verified.
func (d Dir) Script(digest string) (string, error) {
	if !proto.ValidDigest(digest) {
		return "", fmt.Errorf("digest %q is no SHA-256 in hex", proto.Clip(digest, 80))
	}
	return d.Path(dirFiles, digest), nil
}

// AddScript keeps a script's bytes under their digest, executable.
func (d Dir) AddScript(b []byte) error {
	return d.WriteFile(filepath.Join(dirFiles, proto.Digest(b)), b, 0o755)
}

// SignedPlan reads the plan as it was received; os.ErrNotExist until it and all of its scripts are there.
func (d Dir) SignedPlan() (*proto.SignedPlan, error) {
	var sp proto.SignedPlan
	if err := d.readJSON(filePlan, &sp); err != nil {
		return nil, err
	}
	return &sp, nil
}

// Progress is what the collector remembers of earlier boots of this attempt; nothing, mostly.
func (d Dir) Progress() ([]proto.Event, error) {
	var events []proto.Event
	if err := d.readJSON(fileProgress, &events); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return events, nil
}

// setProgress keeps what a hello's answer says of the boots before this one. Times become this machine's.
func (d Dir) setProgress(p *proto.Progress, boot string, ahead time.Duration) error {
	if p == nil {
		return d.remove(fileProgress)
	}
	if len(p.Run) > proto.MaxRun {
		return senseless("what was kept of PROVOST_RUN has %d bytes", len(p.Run))
	}
	events := []proto.Event{}
	for _, e := range p.Events {
		if e.Boot == boot {
			continue // the journal knows
		}
		if !e.At.IsZero() {
			e.Time = e.At.Add(-ahead)
		}
		events = append(events, e)
	}
	if _, err := os.Stat(d.Path(filePrivate)); len(p.Run) > 0 && errors.Is(err, fs.ErrNotExist) {
		if err := d.WriteFile(filePrivate, p.Run, 0o600); err != nil {
			return err
		}
	}
	return d.writeJSON(fileProgress, events, 0o600)
}

// Changes is what the collector remembers of the node's on-change steps whose effect lives outside of its root; nil if no
// collector has said anything.
func (d Dir) Changes() (*proto.Changes, error) {
	var c proto.Changes
	if err := d.readJSON(fileOutside, &c); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return &c, nil
}

// setChanges keeps what a hello's answer says of them.
func (d Dir) setChanges(c *proto.Changes) error {
	if c == nil {
		return d.remove(fileOutside)
	}
	return d.writeJSON(fileOutside, c, 0o600)
}

// private is PROVOST_RUN as it was packed for a reboot; nil if it was not.
func (d Dir) private() []byte {
	b, err := os.ReadFile(d.Path(filePrivate))
	if err != nil || len(b) > proto.MaxRun {
		return nil // without it the steps begin with an empty one, which the run noted
	}
	return b
}

// Plan reads the plan and verifies it again with the CA that is pinned, for the install that this directory is of. On an
// installed system it may be one that is signed without its secrets, with those of the phases to come beside it.
func (d Dir) Plan() (*proto.Plan, string, error) {
	sp, err := d.SignedPlan()
	if errors.Is(err, fs.ErrNotExist) {
		return d.kept()
	}
	if err != nil {
		return nil, "", err
	}
	return d.Verify(sp)
}

// keptPlan is a plan without the secrets that are not needed any more.
type keptPlan struct {
	Digest  string                       `json:"digest"`            // of the bytes that had all secrets
	Plan    *proto.SignedPlan            `json:"plan"`              // without any
	Secrets map[string]map[string]string `json:"secrets,omitempty"` // step → variable → value, of phases to come; nothing vouches for the values
}

func (d Dir) kept() (*proto.Plan, string, error) {
	var k keptPlan
	if err := d.readJSON(fileKept, &k); err != nil {
		return nil, "", err
	}
	p, _, err := d.Verify(k.Plan)
	if err != nil {
		return nil, "", fmt.Errorf("reading %s: %w", d.Path(fileKept), err)
	}
	for i, s := range p.Steps {
		p.Steps[i].SecretEnv = k.Secrets[s.Name]
	}
	return p, k.Digest, p.Check()
}

// Keep writes a verified plan. Where secrets of phases that are over are in it, they stay out, and so do the signed bytes:
// a disk that is installed must not hold what only its installation needed. What stays is signed as well.
func (d Dir) Keep(sp *proto.SignedPlan, over func(proto.Phase) bool) error {
	p, err := proto.DecodePlan(sp.Payload)
	if err != nil {
		return err
	}
	if _, had := p.WithoutSecrets(over); had {
		return d.keepBare(sp, p, over)
	}
	if err := d.writeJSON(filePlan, sp, 0o600); err != nil {
		return err
	}
	return d.remove(fileKept)
}

// keepBare keeps what sp, which holds p, says without secrets, if it says the same.
func (d Dir) keepBare(sp *proto.SignedPlan, p *proto.Plan, over func(proto.Phase) bool) error {
	if sp.Bare == nil {
		return errors.New("the collector has signed no plan without its secrets, so none can be kept on this disk: upgrade provostd")
	}
	bare, _, err := d.Verify(sp.Bare)
	if err != nil {
		return fmt.Errorf("keeping the plan without its secrets: %w", err)
	}
	want, _ := p.WithoutSecrets(proto.EveryPhase)
	is, errIs := json.Marshal(bare)
	must, errMust := json.Marshal(want)
	if errIs != nil || errMust != nil || string(is) != string(must) {
		return errors.New("keeping the plan without its secrets: the collector has signed two plans that differ in more than those")
	}
	k := keptPlan{Digest: proto.Digest(sp.Payload), Plan: sp.Bare, Secrets: map[string]map[string]string{}}
	for _, s := range p.Steps {
		if len(s.SecretEnv) > 0 && !over(s.Phase) {
			k.Secrets[s.Name] = s.SecretEnv
		}
	}
	if err := d.writeJSON(fileKept, k, 0o600); err != nil {
		return err
	}
	return d.remove(filePlan)
}

// ForgetSecrets takes the secrets of phases that are over out of the plan that is here. Without a plan it does nothing.
func (d Dir) ForgetSecrets(over func(proto.Phase) bool) error {
	p, _, err := d.Plan()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, had := p.WithoutSecrets(over); !had {
		return nil
	}
	if sp, err := d.SignedPlan(); err == nil {
		return d.keepBare(sp, p, over)
	}
	var k keptPlan
	if err := d.readJSON(fileKept, &k); err != nil {
		return err
	}
	for _, s := range p.Steps {
		if over(s.Phase) {
			delete(k.Secrets, s.Name)
		}
	}
	return d.writeJSON(fileKept, k, 0o600)
}

// InstallerPhase reports whether a phase is over on an installed system.
func InstallerPhase(p proto.Phase) bool { return p == proto.PhasePre || p == proto.PhasePost }

// RemovePlan forgets the plan.
func (d Dir) RemovePlan() error { return errors.Join(d.remove(filePlan), d.remove(fileKept)) }

func (d Dir) remove(name string) error {
	if err := os.Remove(d.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	return syncDir(string(d))
}

// Verify checks a signed plan for the install that this directory is of, and gives it with its digest. Its expiry was
// judged at the hello that brought it.
func (d Dir) Verify(sp *proto.SignedPlan) (*proto.Plan, string, error) {
	id, err := d.Identity()
	if err != nil {
		return nil, "", err
	}
	pin, err := d.pin("")
	if err != nil {
		return nil, "", err
	}
	p, err := plan.Verify(sp, plan.Terms{CAs: pin.CAs(), Node: id.Node, Install: id.Install})
	if err != nil {
		return nil, "", err
	}
	return p, proto.Digest(sp.Payload), nil
}

// pin is the pin that the settings name, or else the CA that an earlier process met under its pin: the file named by the
// settings may have been in the initrd and be gone.
func (d Dir) pin(ca string) (*Pin, error) {
	if _, err := os.Stat(d.CAFile()); ca == "" && err == nil {
		ca = d.CAFile()
	}
	p, err := ParsePin(ca)
	if err == nil {
		p.Learn(d.CAFile())
	}
	return p, err
}

// Sent is how far the collector has acknowledged, for other processes to see, and for the next sender as a hint: what
// counts is the collector's word.
type Sent struct {
	Journal    string            `json:"journal"`
	Next       uint64            `json:"next"`           // first record of Journal that is not acknowledged
	Past       map[string]uint64 `json:"past,omitempty"` // the same of earlier journals
	Logs       map[string]int64  `json:"logs,omitempty"` // bytes acknowledged of each log
	BootAction proto.BootAction  `json:"boot_action,omitempty"`
	Trouble    string            `json:"trouble,omitempty"` // what is wrong at the moment, for people
	Stuck      Stuck             `json:"stuck,omitempty"`   // what is missing before the first step can run
	At         time.Time         `json:"at"`
}

// Stuck says what the sender is still about before a plan can be run.
type Stuck string

// What may be missing.
const (
	StuckHello   Stuck = "hello"   // no collector has answered well
	StuckPlan    Stuck = "plan"    // it has, but with no plan that may be run
	StuckScripts Stuck = "scripts" // the plan is good, scripts are missing
)

// Sent reads what the sender last wrote; the zero value if there is nothing to be read.
func (d Dir) Sent() Sent {
	var s Sent
	if d.readJSON(fileSent, &s) != nil {
		return Sent{}
	}
	return s
}

// setSent is not flushed to the disk: it is only a hint, and comes often. On a full disk it goes over the old one, whose space
// it has: whoever waits for a delivery goes by it. A reader that comes in between finds nothing legible, and asks again.
func (d Dir) setSent(s Sent) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", fileSent, err)
	}
	tmp := d.Path("." + fileSent)
	err = os.WriteFile(tmp, b, 0o600)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		os.Remove(tmp)
		return d.overwriteSent(b)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", fileSent, err)
	}
	return os.Rename(tmp, d.Path(fileSent))
}

func (d Dir) overwriteSent(b []byte) error {
	f, err := os.OpenFile(d.Path(fileSent), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("writing %s: %w", fileSent, err)
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("writing %s: %w", fileSent, err)
	}
	return f.Truncate(int64(len(b)))
}

// ErrBusy is a lock that another process holds.
var ErrBusy = errors.New("another provost-agent process is at it already")

// Lock makes this process the sender until release is called or the process ends.
func (d Dir) Lock() (release func(), err error) { return d.lock(fileLock) }

// LockWatch makes this process the one watch of the directory, likewise. A watch waits for the sender's lock where a run
// reports by itself; so they are two.
func (d Dir) LockWatch() (release func(), err error) { return d.lock(fileWatch) }

// LockRescue makes this process the one rescue shell of the directory, likewise.
func (d Dir) LockRescue() (release func(), err error) { return d.lock(fileRescuer) }

// SetRescue says how the rescue shell of the process that holds its lock is reached.
func (d Dir) SetRescue(r proto.Rescue) error { return d.writeJSON(fileRescue, r, 0o600) }

// Rescue is how the rescue shell is reached, nil while none runs.
func (d Dir) Rescue() *proto.Rescue {
	var r proto.Rescue
	if !d.locked(fileRescuer) || d.readJSON(fileRescue, &r) != nil {
		return nil
	}
	return &r
}

// RescueRuns reports whether some process is the rescue shell, or about to be.
func (d Dir) RescueRuns() bool { return d.locked(fileRescuer) }

// lock takes an open file description lock (fcntl(2), Linux 3.15): unlike flock's it can be asked after without being
// taken for an instant, in which somebody else would find it busy.
func (d Dir) lock(name string) (release func(), err error) {
	f, err := os.OpenFile(d.Path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("taking a lock: %w", err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("taking the lock %s: %w", d.Path(name), err)
	}
	return func() { f.Close() }, nil
}

// Locked reports whether some process reports at the moment, this one included.
func (d Dir) Locked() bool { return d.locked(fileLock) }

func (d Dir) locked(name string) bool {
	f, err := os.Open(d.Path(name))
	if err != nil {
		return false
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l) == nil && l.Type != unix.F_UNLCK
}

func (d Dir) readJSON(name string, v any) error {
	b, err := os.ReadFile(d.Path(name))
	if err != nil {
		return fmt.Errorf("reading state: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("reading %s: %w", d.Path(name), err)
	}
	return nil
}

func (d Dir) writeJSON(name string, v any, mode fs.FileMode) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", name, err)
	}
	return d.WriteFile(name, append(b, '\n'), mode)
}

// WriteFile replaces a file of the directory, whole and durably.
func (d Dir) WriteFile(name string, b []byte, mode fs.FileMode) (err error) {
	path := d.Path(name)
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
