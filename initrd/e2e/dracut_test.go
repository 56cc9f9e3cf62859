// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"provost/initrd/e2e/lab"
	"provost/proto"
)

// dracutSite is a site with one profile that boots what dracut made.
func dracutSite(t *testing.T, profile string, postscripts map[string]string) *lab.Lab {
	t.Helper()
	ctx := within(t, 4*time.Hour) // the images may have to be built: build.sh bounds what it does itself
	files := fstest.MapFS{"profiles/lab.yaml": {Mode: 0o644, Data: []byte("name: lab\nfamily: generic\nkernel: images/dracut/vmlinuz\n" + profile)}}
	for name, text := range postscripts {
		files["postscripts/"+name] = &fstest.MapFile{Mode: 0o755, Data: []byte("#!/bin/sh\n" + text + "\n")}
	}
	l := siteOf(t, ctx, files)
	if err := l.AddDracut(ctx, os.Stderr); err != nil {
		t.Fatal(err)
	}
	return l
}

// dracutArgs boot the squashfs image into memory.
const dracutArgs = `root=ram:{{ .Images }}/dracut/root.squashfs ip=dhcp rd.neednet=1 console=ttyS0 quiet mitigations=off nokaslr no_timer_check net.ifnames=0 panic=5 systemd.show_status=0`

// TestSwitchRoot: the agent that was started in an installer's initrd is there again after switch_root, in the same boot and
// with the same journal. The first initrd has dracut's systemd modules and the overlay, as Red Hat's installers would. The
// second has neither systemd nor the overlay but the dracut module. The third has systemd, NetworkManager and the module. The
// fourth is of initramfs-tools, as Ubuntu's, with the overlay: there the agent begins before the network does. /run is mounted
// noexec in the second and the fourth.
func TestSwitchRoot(t *testing.T) {
	for _, tt := range []struct {
		name, initrds, args, unit string
		early                     string // the last stage that is reached in the initrd
		log                       []string
	}{
		{"systemd", "images/dracut/systemd.img, overlay", dracutArgs, "active", "installer-started", []string{"overlay", "/run "}},
		{"plain", "images/dracut/plain.img", dracutArgs + " lab.noexec", "inactive", "installer-started", []string{"overlay", "noexec", "/run/provost/bin provost"}},
		{"network-manager", "images/dracut/nm.img", dracutArgs, "active", "installer-started", []string{"overlay", "/run "}},
		{"initramfs-tools", "images/dracut/initramfs.img, overlay", "root=/dev/vda rootfstype=squashfs ro systemd.volatile=state console=ttyS0 quiet mitigations=off nokaslr no_timer_check " +
			"net.ifnames=0 panic=5 systemd.show_status=0", "inactive", "agent-started", []string{"squashfs", "noexec", "/run/provost/bin provost"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := dracutSite(t, "initrds: ["+tt.initrds+"]\nargs: \""+tt.args+` lab.second"
steps:
  - {name: look, phase: pre}
`, map[string]string{"look": `echo "root is $(cat /etc/hostname)"; findmnt -no FSTYPE /; findmnt -no OPTIONS /run | grep -o noexec; findmnt -no TARGET,SOURCE -T /run/provost/bin`})
			ctx := within(t, patience)
			m := order(t, ctx, l)
			image, err := os.ReadFile(l.Dir + "/images/dracut/root.squashfs")
			if err == nil {
				err = os.WriteFile(m.Disk(), image, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			m.powerOn()
			boot := strings.TrimSpace(strings.Split(m.console(`lab: second root, boot id [0-9a-f-]{36}`), "boot id ")[1])
			m.console(`lab: unit ` + tt.unit + `$`)
			m.console(`lab: "reporting": true`)
			m.console(`lab: second root is done`)
			n := m.await("past the pre steps", func(proto.Node) bool {
				return slices.ContainsFunc(m.events(), func(e proto.Event) bool { return e.Kind == proto.KindRunEnd && e.Phase == proto.PhasePre })
			})

			events := m.events()
			wantComplete(t, events, 1)
			wantOrder(t, events, "agent-started", tt.early, "autoinst-present", "pre-started", "pre-done")
			for _, e := range events {
				if e.Source == proto.SourceAgent && e.Boot != boot {
					t.Errorf("event %d is of boot %s, want %s, which the second root told", e.Seq, e.Boot, boot)
				}
			}
			for _, w := range append(tt.log, "root is fast") {
				wantLog(m, "look", w)
			}
			// The watch is alive: its heartbeats come every 30 s, and those are what last_seen goes on by.
			m.await("heard of again", func(now proto.Node) bool { return now.LastSeen.After(n.LastSeen.Add(time.Second)) })
			m.Kill()
		})
	}
}
