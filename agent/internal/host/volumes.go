// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"strings"
	"time"
)

// lvmLimit bounds one command: LVM reads every disk.
const lvmLimit = 30 * time.Second

// lvmConfig keeps LVM from changing its metadata on any disk, and from waiting for udev or another daemon (lvm.conf(5)). What a
// version does not know it passes over.
const lvmConfig = "global{metadata_read_only=1 use_lvmetad=0} devices{use_devicesfile=0} " +
	"activation{udev_sync=0 monitoring=0} backup{backup=0 archive=0}"

// activateVolumes makes block devices of the plain logical volumes that are not active, where there is an lvm. Those of other
// kinds (RAID, thin, cached, snapshots) write to their disks when they are activated, and are left alone. undo ends it: an
// installer begins with the disks as they were. What LVM says goes to the file out.
func (h Host) activateVolumes(out string) (undo func()) {
	os.Remove(out)
	if _, err := os.Stat(h.path("/sbin/lvm")); err != nil {
		return func() {}
	}
	h.run(out, "/sbin/modprobe", "dm_mod") // without it LVM does not know what is active
	h.run(out, "/sbin/lvm", "lvs", "--config", lvmConfig, "--noheadings", "--separator", "/", "-o", "vg_name,lv_name,lv_attr")
	list, _ := os.ReadFile(out)
	volumes := plainVolumes(string(list)) // also of a list that ended with an error: one of the disks may be broken
	change := func(how string) {
		if len(volumes) > 0 {
			h.run(out, "/sbin/lvm", append([]string{"lvchange", "--config", lvmConfig, how}, volumes...)...)
		}
	}
	change("-ay")
	return func() { change("-an") }
}

// plainVolumes reads lines GROUP/VOLUME/ATTRIBUTES, of which the first character is the kind and the fifth the state: "-" is
// plain, and inactive (lvs(8)).
func plainVolumes(list string) (volumes []string) {
	for line := range strings.Lines(list) {
		f := strings.Split(strings.TrimSpace(line), "/")
		if len(f) == 3 && len(f[2]) > 4 && f[2][0] == '-' && f[2][4] == '-' {
			volumes = append(volumes, f[0]+"/"+f[1])
		}
	}
	return volumes
}

// run runs a program, if it is there, for at most lvmLimit.
func (h Host) run(out, program string, args ...string) {
	p, err := Start(h.path(program), args, out)
	if err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		p.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(lvmLimit):
		p.Kill() // which a dead disk may put off: it is not waited for
	}
}
