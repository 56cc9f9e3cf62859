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
	"time"

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

func (d Dir) remove(name string) error {
	if err := os.Remove(d.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	return syncDir(string(d))
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
