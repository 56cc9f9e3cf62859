// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"provost/agent/internal/journal"
	"provost/agent/internal/plan"
	"provost/agent/internal/proc"
	"provost/agent/internal/report"
	steps "provost/agent/internal/run"
	"provost/proto"
)

// localPlan is the state file with the plan of --plan, for the phases and boots that come after.
const localPlan = "plan.local.json"

// planWait bounds the waiting for a plan and its scripts, unless --plan-wait does: an installer without them ends as
// failed(plan). maxPlanWait bounds that: an installer does not wait for ever.
const (
	planWait    = 10 * time.Minute
	maxPlanWait = 24 * time.Hour
)

// sayEvery is the time between two lines about a wait.
const sayEvery = 30 * time.Second

// planIs is a plan that may be run, with the digest of its bytes.
type planIs struct {
	*proto.Plan
	digest string
}

// noPlan is what run-end says when there was none in time.
type noPlan struct {
	cause proto.CauseKind
	why   string
}

func (n *noPlan) Error() string { return n.why }

// readPlanFile makes the plan of --plan and --scripts and keeps it with its scripts in the state directory.
func (a *agent) readPlanFile(file, scripts string) (planIs, error) {
	bad := func(err error) (planIs, error) { return planIs{}, config("", err) }
	b, err := os.ReadFile(file)
	if err != nil {
		return bad(fmt.Errorf("reading the plan file: %w", err))
	}
	list, err := plan.ParseFile(file, b)
	if err != nil {
		return bad(fmt.Errorf("reading the plan file:\n%w", err))
	}
	if scripts == "" {
		scripts = filepath.Dir(file)
	}
	id, err := a.dir.Identity()
	if err != nil {
		return bad(err)
	}
	node := id.Node
	if node == "" {
		node, _ = os.Hostname()
		if node = strings.ToLower(node); proto.CheckNode(node) != nil {
			node = "unnamed"
		}
	}
	bodies := map[string][]byte{}
	p, err := plan.Local(node, id.Install, list, func(name string) ([]byte, error) {
		body, err := readFile(filepath.Join(scripts, name), proto.MaxScript)
		bodies[name] = body
		return body, err
	}, func(name string) ([]byte, error) { return readFile(name, proto.MaxSecret+2) }) // with the end of a line
	if err != nil {
		return bad(fmt.Errorf("reading the scripts: %w", err))
	}
	for _, body := range bodies {
		if err := a.dir.AddScript(body); err != nil {
			return planIs{}, err
		}
	}
	if b, err = json.Marshal(p); err != nil {
		return planIs{}, fmt.Errorf("encoding the plan: %w", err)
	}
	return planIs{p, proto.Digest(b)}, a.dir.WriteFile(localPlan, b, 0o600)
}

func readFile(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(b) > most {
		err = fmt.Errorf("%s is longer than %d bytes", path, most)
	}
	return b, err
}

// ready gives the plan that is here: the collector's, else the one of an earlier --plan.
func (a *agent) ready() (planIs, error) {
	p, digest, err := a.dir.Plan()
	if err == nil {
		return planIs{p, digest}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return planIs{}, err
	}
	b, lerr := os.ReadFile(a.dir.Path(localPlan))
	if lerr != nil {
		return planIs{}, err
	}
	if p, lerr = proto.DecodePlan(b); lerr != nil {
		return planIs{}, lerr
	}
	return planIs{p, proto.Digest(b)}, nil
}

// wait waits for the plan while some process asks the collector for it, at most limit. The error is a *noPlan, or the
// context's.
func (a *agent) wait(ctx context.Context, limit time.Duration) (planIs, error) {
	p, err := a.ready()
	if err == nil {
		return p, nil
	}
	if !a.sending() {
		hint := "give --plan FILE, or --url and --ca (on the kernel command line provost.url= and provost.ca=)"
		return planIs{}, config(hint, fmt.Errorf("there is no plan in %s, and no collector to ask: %w", a.dir, err))
	}
	a.tell("waiting for the plan, at most %s", limit)
	began, said := time.Now(), time.Now()
	for time.Since(began) < limit {
		select {
		case <-ctx.Done():
			return planIs{}, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
		if p, err = a.ready(); err == nil {
			return p, nil
		}
		if !a.sending() { // the process that did has died: now it is our turn
			if _, err := a.background(ctx); err != nil {
				return planIs{}, err
			}
		}
		if time.Since(said) >= sayEvery {
			said = time.Now()
			a.tell("still waiting for the plan, %s of %s%s", time.Since(began).Round(time.Second), limit, because(a.dir.Sent().Trouble))
		}
	}
	sent := a.dir.Sent()
	n := &noPlan{proto.CausePlan, fmt.Sprintf("no plan within %s", limit)}
	if sent.Stuck == report.StuckScripts {
		n = &noPlan{proto.CauseDownload, fmt.Sprintf("not all scripts of the plan within %s", limit)}
	}
	n.why += because(sent.Trouble)
	return planIs{}, n
}

// loadPlan is for orders that bring a plan; its scripts are here.
func (a *agent) loadPlan(sp *proto.SignedPlan) (*proto.Plan, string, error) { return a.dir.Verify(sp) }

// targetWait bounds the wait for the target's disk, which may be busy with packages or not answer at all.
const targetWait = 2 * time.Minute

// mirrorState copies what the installed system's agent needs to know into the target: identity, token, CA, plan and
// scripts. The journal mirrors itself. Files that are the same already are left alone. A link in the target means what it will
// mean there.
func (a *agent) mirrorState(root, install string) error {
	var err error
	if !proc.Within(targetWait, func() { err = a.copyInto(root, install) }) {
		return fmt.Errorf("copying state to the target: %s does not answer within %s", root, targetWait)
	}
	return err
}

func (a *agent) copyInto(root, install string) error {
	dir, err := journal.OpenBelow(root, strings.TrimPrefix(stateInstalled, "/"), true)
	if err != nil {
		return err
	}
	defer dir.Close()
	is, err := dir.Stat()
	if err != nil {
		return err
	}
	if was, err := os.Stat(string(a.dir)); err != nil || os.SameFile(was, is) {
		return err
	}
	return journal.Named(a.copyState(report.Dir(journal.Through(dir)), install), dir)
}

func (a *agent) copyState(target report.Dir, install string) error {
	id, err := a.dir.Identity()
	if err != nil {
		return err
	}
	id.Logs = install
	if len(id.URLs) == 0 {
		id.URLs = a.settings.URLs
	}
	if old, err := target.Identity(); err != nil || old.Install != id.Install || old.Node != id.Node || old.Logs != id.Logs || !old.Known {
		if err != nil || old.Install != id.Install { // what is of an install before, on a disk that was not formatted
			for _, name := range []string{"orders", steps.PrivateArchive, "progress.json", "outside.json"} {
				if err := os.RemoveAll(target.Path(name)); err != nil {
					return fmt.Errorf("cleaning the target: %w", err)
				}
			}
		}
		if err := target.SetIdentity(id); err != nil {
			return err
		}
	}
	names := []string{"token", "ca.pem"}
	files, err := os.ReadDir(a.dir.Path("files"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("copying the scripts to the target: %w", err)
	}
	for _, f := range files {
		if proto.ValidDigest(f.Name()) {
			names = append(names, filepath.Join("files", f.Name()))
		}
	}
	for _, name := range names {
		b, err := os.ReadFile(a.dir.Path(name))
		if errors.Is(err, fs.ErrNotExist) {
			// what an earlier install left there is not this one's
			if err := os.Remove(target.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cleaning the target: %w", err)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("copying state to the target: %w", err)
		}
		if old, err := os.ReadFile(target.Path(name)); err == nil && string(old) == string(b) {
			continue
		}
		mode := fs.FileMode(0o600)
		if strings.HasPrefix(name, "files/") {
			mode = 0o755
		}
		if err := target.WriteFile(name, b, mode); err != nil {
			return err
		}
	}
	os.Remove(target.Path(fileDone))
	os.Remove(target.Path(fileAlone))
	return a.mirrorPlan(target)
}

// mirrorPlan copies the plan into the target, without the secrets of the phases that are not the installed system's.
func (a *agent) mirrorPlan(target report.Dir) error {
	p, digest, err := a.dir.Plan()
	there, was, _ := target.Plan()
	switch {
	case err == nil && there != nil && was == digest && there.Install == p.Install:
	case err == nil:
		sp, err := a.dir.SignedPlan()
		if err != nil {
			return err
		}
		if err := target.Keep(sp, report.InstallerPhase); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist):
		// what an earlier install left there must not be taken for this one's
		if err := target.RemovePlan(); err != nil {
			return fmt.Errorf("cleaning the target: %w", err)
		}
	default:
		return err
	}
	return a.mirrorLocalPlan(target)
}

func (a *agent) mirrorLocalPlan(target report.Dir) error {
	b, err := os.ReadFile(a.dir.Path(localPlan))
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Remove(target.Path(localPlan)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cleaning the target: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("copying the plan to the target: %w", err)
	}
	return writeLocalPlan(target, b, report.InstallerPhase)
}

// writeLocalPlan writes the plan of --plan, of which these are the bytes, without the secrets of phases that are over.
func writeLocalPlan(dir report.Dir, b []byte, over func(proto.Phase) bool) error {
	p, err := proto.DecodePlan(b)
	if err != nil {
		return err
	}
	if p, had := p.WithoutSecrets(over); had {
		if b, err = json.Marshal(p); err != nil {
			return fmt.Errorf("encoding the plan: %w", err)
		}
	}
	return dir.WriteFile(localPlan, b, 0o600)
}

// forgetSecrets takes all secrets out of the plan of an installed system whose steps are done.
func (a *agent) forgetSecrets() error {
	if err := a.dir.ForgetSecrets(proto.EveryPhase); err != nil {
		return err
	}
	b, err := os.ReadFile(a.dir.Path(localPlan))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	return writeLocalPlan(a.dir, b, proto.EveryPhase)
}
