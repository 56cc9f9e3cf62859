// SPDX-License-Identifier: Apache-2.0

package host

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"provost/proto"
)

// MACs lists the Ethernet addresses of the machine's own cards, those with a link first, then by name. Loopback and
// virtual interfaces (bridges, bonds, VLANs) are left out, unless the machine has nothing else, as in a container.
func (h Host) MACs() []string {
	type card struct {
		name, mac string
		virtual   bool
		down      bool
	}
	var cards []card
	entries, err := os.ReadDir(h.path("/sys/class/net"))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		dir := "/sys/class/net/" + e.Name()
		mac, err := proto.NormalMAC(h.text(dir + "/address"))
		if err != nil || mac == "00:00:00:00:00:00" || h.text(dir+"/type") != "1" { // 1: ARPHRD_ETHER, net/if_arp.h
			continue
		}
		_, err = os.Stat(h.path(dir + "/device"))
		cards = append(cards, card{e.Name(), mac, err != nil, h.text(dir+"/operstate") != "up"})
	}
	slices.SortFunc(cards, func(a, b card) int {
		return cmp.Or(order(a.virtual, b.virtual), order(a.down, b.down), cmp.Compare(a.name, b.name))
	})
	var out []string
	for _, c := range cards {
		if c.virtual && !cards[0].virtual {
			break
		}
		if !slices.Contains(out, c.mac) {
			out = append(out, c.mac)
		}
	}
	return out[:min(len(out), 64)] // as many as a hello takes
}

func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Firmware's ways to say that nobody filled in a field.
var blanks = []string{"", "0", "none", "not specified", "not available", "default string", "system serial number", "system product name",
	"system manufacturer", "to be filled by o.e.m.", "unknown", "n/a"}

// dmi reads one field of the firmware's tables (SMBIOS by /sys/class/dmi/id, else the device tree).
func (h Host) dmi(field, tree string) string {
	v := h.text("/sys/class/dmi/id/" + field)
	if v == "" && tree != "" {
		v = h.text("/proc/device-tree/" + tree)
	}
	if slices.Contains(blanks, strings.ToLower(v)) {
		return ""
	}
	return proto.Clip(v, 128)
}

// Serial is the machine's serial number as its firmware tells it; "" if unknown or not readable.
func (h Host) Serial() string { return h.dmi("product_serial", "serial-number") }

// UUID is the machine's UUID as its firmware tells it, in lower case; "" if unknown.
func (h Host) UUID() string { return proto.Clip(strings.ToLower(h.dmi("product_uuid", "")), 64) }

// Hardware describes the machine for people.
func (h Host) Hardware() proto.Hardware {
	return proto.Hardware{
		Arch:     runtime.GOARCH,
		Vendor:   h.dmi("sys_vendor", ""),
		Product:  h.dmi("product_name", "model"),
		CPUs:     runtime.NumCPU(),
		MemoryMB: h.MemoryMB(),
		Disks:    h.disks(),
	}
}

// disks lists real block devices as "NAME BYTES MODEL": those with a device behind them, without floppies and
// optical drives.
func (h Host) disks() []string {
	var out []string
	entries, err := os.ReadDir(h.path("/sys/block"))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		name := e.Name()
		dir := "/sys/block/" + name
		if strings.HasPrefix(name, "sr") || strings.HasPrefix(name, "fd") {
			continue
		}
		if _, err := os.Stat(h.path(filepath.Join(dir, "device"))); err != nil {
			continue
		}
		sectors, err := strconv.ParseUint(h.text(dir+"/size"), 10, 64)
		if err != nil || sectors == 0 {
			continue
		}
		model := cmp.Or(h.text(dir+"/device/model"), h.text(dir+"/device/vendor"))
		// the kernel counts in sectors of 512 bytes, whatever the disk's own are
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %d %s", name, sectors*512, proto.Clip(model, 64))))
	}
	return out[:min(len(out), 256)]
}
