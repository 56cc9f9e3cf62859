// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/evidence"
)

// journalRemote makes files of a journal (Debian's package systemd-journal-remote; it is in no PATH).
const journalRemote = "/lib/systemd/systemd-journal-remote"

// realJournal is a journal in a directory of its own, in systemd's format.
type realJournal struct {
	t   *testing.T
	dir string
	n   int
}

// add writes an entry, one second after the one before.
func (j *realJournal) add(identifier, message string) {
	j.t.Helper()
	j.n++
	at := time.Now().Add(-time.Minute).UnixMicro() + int64(j.n)*1_000_000
	entry := fmt.Sprintf("__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=4a1c5d6e7f8091a2b3c4d5e6f7081920\n_MACHINE_ID=11111111111111111111111111111111\n_HOSTNAME=front\n_PID=77\nSYSLOG_IDENTIFIER=%s\nMESSAGE=%s\n\n",
		at, j.n*1_000_000, identifier, message)
	cmd := exec.Command(journalRemote, "-o", filepath.Join(j.dir, "system.journal"), "-")
	cmd.Stdin = strings.NewReader(entry)
	if out, err := cmd.CombinedOutput(); err != nil {
		j.t.Fatalf("%s: %v\n%s", journalRemote, err, out)
	}
}

// TestRealJournal follows a real journal by the real journalctl, over a restart in which entries came, and takes of it what
// the programs say that are known, dnsmasq's standard error among them.
func TestRealJournal(t *testing.T) {
	tool, err := exec.LookPath("journalctl")
	if err == nil {
		_, err = os.Stat(journalRemote)
	}
	if err != nil {
		t.Skipf("no journal can be made here: %v", err)
	}
	j := &realJournal{t: t, dir: t.TempDir()}
	entry := func(i int) {
		t.Helper()
		text := strings.TrimSpace(strings.SplitN(row(i), ": ", 2)[1])
		if i%2 == 0 {
			j.add("dnsmasq-dhcp", text)
		} else {
			j.add("dnsmasq", "dnsmasq-dhcp[77]: "+text)
		}
	}
	entry(0)
	j.add("sshd", "Accepted publickey for root")
	entry(1)
	l := &ledger{}
	s := &evidence.Journald{Command: []string{tool, "--directory=" + j.dir}, Back: time.Hour}
	stop := start(s, l)
	l.await(t, 2)
	entry(2) // as it runs
	l.await(t, 3)
	if err := stop(); err != nil {
		t.Error(err)
	}
	entry(3) // while nobody reads
	entry(4)
	stop = start(s, l)
	l.await(t, 5)
	entry(5)
	l.await(t, 6)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := l.once(6); err != nil {
		t.Error(err)
	}
	if l.counts.Lines != 6 || l.counts.Known != 6 || len(l.troubles) > 0 {
		t.Errorf("counts %+v, troubles %q, want six lines that are known: journalctl is asked for no others", l.counts, l.troubles)
	}
}

// TestJournaldReads: a journal in which nothing happens can be read all the same, once journalctl runs.
func TestJournaldReads(t *testing.T) {
	dir := t.TempDir()
	tool := filepath.Join(dir, "journalctl")
	script := "#!/bin/sh\n[ -e '" + dir + "/mended' ] || { echo 'no such journal' >&2; exit 1; }\nexec sleep 600\n"
	if err := os.WriteFile(tool, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	l := &ledger{}
	stop := start(&evidence.Journald{Command: []string{tool}}, l)
	l.awaitTrouble(t, "no such journal")
	write(t, filepath.Join(dir, "mended"), "")
	l.eventually(t, "the end of the trouble", func() bool { return !l.blind })
	if err := stop(); err != nil {
		t.Error(err)
	}
}
