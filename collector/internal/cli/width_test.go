// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"provost/collector/internal/cli"
	"provost/proto"
)

// The longest names that are usual.
const (
	longNode = "rack12-chassis03-blade07" // 24
	longStep = "configure-infiniband-sm1" // 24
)

// wideWorld is small with the longest usual names in the place of n2's.
func wideWorld() *fake {
	f := small()
	n := f.node("n2")
	c := *n.Cause
	c.Name, c.Log = longStep, longStep+".log"
	n.Name, n.Step, n.Summary, n.Cause = longNode, longStep, "failed("+longStep+"=127)", &c
	n.Groups, n.Profile, n.Label = []string{"rack12", "chassis03", "compute-large-memory"}, "compute-large-memory-el9", "nightly-rebuild-of-rack12"
	n.IP, n.Warnings = "10.112.103.107", []string{"step motd was skipped by an order"}
	n.Orders = []proto.Pending{{Verb: proto.VerbForce, Step: longStep, Since: before("10s"), Actor: "administrator (uid 100045)"}}
	l := failedInstall(&c)
	l.Install.Node, l.Install.Summary, l.Install.Profile, l.Install.Label = longNode, n.Summary, n.Profile, n.Label
	for i := range l.Install.Steps {
		if l.Install.Steps[i].Name == "otherpkgs" {
			l.Install.Steps[i].Name = longStep
		}
	}
	for i := range l.Events {
		e := &l.Events[i]
		if e.Node = longNode; e.Step == "otherpkgs" {
			e.Step = longStep
		}
	}
	l.Install.Logs = append(l.Install.Logs, proto.LogInfo{Name: longStep + ".log", Size: 3 << 20})
	f.installs[longNode] = []proto.EventList{l}
	f.logs[longNode+"/"+id3+"/"+longStep+".log"] = "dnf: command not found\n"
	for i := range f.history {
		f.history[i].Step, f.history[i].Actor = longStep, "administrator (uid 100045), login administrator"
		for j := range f.history[i].Steps {
			f.history[i].Steps[j].Name = longStep
		}
	}
	for i := range f.checks {
		f.checks[i].Name = "profile compute-large-memory-el9"
		f.checks[i].Detail = "/srv/provost/images/distributions/rocky/9.6/x86_64/images/pxeboot/initrd.img: permission denied"
	}
	return f
}

// whole are rows that are never folded or cut, since what stands in them is copied: digests, and names that are longer than
// is usual.
var whole = regexp.MustCompile(` [0-9a-f]{64}$|\.cluster\.example\.org$`)

// TestFits: at 80 columns every row of every command that people read fits, with the longest usual names.
func TestFits(t *testing.T) {
	f := start(t, wideWorld())
	dir := t.TempDir()
	messages := filepath.Join(dir, "messages")
	if err := os.WriteFile(messages, []byte(stoppedNodes()), 0o600); err != nil {
		t.Fatal(err)
	}
	commands := []string{"probe -r 3h", "probe -r 3h -V", "probe -r 3h -p compact", "probe -r 3h -p origin", "probe -t 1ms " + longNode, "probe -r 100h -p compact",
		"probe --logs " + messages, "probe --logs " + messages + " -V", "probe --logs " + messages + " -p compact", "probe --logs " + messages + " -p origin",
		"probe --logs " + messages + " --since 2026-03-14 -p compact", "probe --logs " + messages + " n7", "node list", "node show @all", "status --by cause", "explain @all"}
	for _, c := range everyCommand {
		if !strings.Contains(c, " -o ") && !strings.HasPrefix(c, "__") && !strings.HasPrefix(c, "events") { // one event a line, into a pipe whole
			commands = append(commands, strings.ReplaceAll(c, "n2", longNode))
		}
	}
	for _, cmd := range commands {
		var out, errs strings.Builder
		program(&out, &errs, "PROVOST_SERVER="+f.server()).Run(t.Context(), strings.Fields(cmd))
		if out.Len()+errs.Len() == 0 {
			t.Errorf("%s: no output", cmd)
		}
		for l := range strings.Lines(out.String()) {
			l = strings.TrimSuffix(l, "\n")
			if n := cli.Cells(l); n > 80 && !whole.MatchString(l) {
				t.Errorf("%s: a row of %d columns:\n%s", cmd, n, l)
			}
		}
	}
}

// stoppedNodes is a log of 20 nodes that stopped for one reason, two days of it, with the longest usual names and one longer.
func stoppedNodes() string {
	var b strings.Builder
	line := func(day, second int, format string, args ...any) {
		fmt.Fprintf(&b, "Mar %d 11:%02d:%02d frontend01 "+format+"\n", append([]any{day, second / 60, second % 60}, args...)...)
	}
	for i := range 20 {
		name := fmt.Sprintf("%s%02d", longNode[:len(longNode)-2], i)
		if i == 19 {
			name = longNode + ".cluster.example.org"
		}
		mac, ip := fmt.Sprintf("52:54:00:00:00:%02x", i), fmt.Sprintf("10.112.103.1%02d", i)
		day := 12 + i/10
		line(day, i, "dhcpd[1]: DHCPDISCOVER from %s via eth1", mac)
		line(day, i+1, "dhcpd[1]: DHCPOFFER on %s to %s (%s) via eth1", ip, mac, name)
		line(day, i+1, "dhcpd[1]: DHCPREQUEST for %s (10.112.0.1) from %s (%s) via eth1", ip, mac, name)
		line(day, i+2, "dhcpd[1]: DHCPACK on %s to %s (%s) via eth1", ip, mac, name)
		line(day, i+3, "in.tftpd[%d]: RRQ from %s filename /distributions/rocky/9.6/x86_64/EFI/BOOT/grubx64.efi", i+10, ip)
		if i%2 == 0 {
			line(day, i+3, "in.tftpd[%d]: sending NAK (0, Permission denied) to %s", i+10, ip)
		}
		line(day, i+900, "dhcpd[1]: DHCPREQUEST for %s from %s (%s) via eth1", ip, mac, name)
	}
	b.WriteString("Mar 13 12:00:00 frontend01 dhcpd[1]: a new word that nobody has heard of, in a line that is longer than a row of a terminal, and than two of them, too, so that it is cut\n")
	return b.String()
}

// TestProbeRows: a row of a node that is not shown in full has its name whole, and where it stopped.
func TestProbeRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages")
	if err := os.WriteFile(path, []byte(stoppedNodes()), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	if code := program(&out, &errs).Run(t.Context(), []string{"probe", "--logs", path}); code != 1 || errs.Len() > 0 {
		t.Fatalf("exit status %d, stderr %q", code, errs.String())
	}
	rows := regexp.MustCompile(`(?m)^`+longNode[:len(longNode)-2]+`\d\d +STOPPED after (dhcp-ack|bootloader-sent)( !)? +Mar 1[23] 11:00:\d\d`).FindAllString(out.String(), -1)
	if len(rows) != 13 { // 20, but for three of each reason and the one with the long name
		t.Errorf("%d rows with name, stage and begin, want 13:\n%s", len(rows), out.String())
	}
	if !regexp.MustCompile(`(?m)^` + longNode + `\.cluster\.example\.org\n +STOPPED after `).MatchString(out.String()) {
		t.Errorf("the long name is cut, or its state is not below it:\n%s", out.String())
	}
}
