// SPDX-License-Identifier: Apache-2.0

package host

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"

	"provost/proto"
)

// card is one network interface.
type card struct {
	name, mac string
	guid      string // of an InfiniBand port, else ""
	virtual   bool
	down      bool
}

// Types of interfaces, net/if_arp.h.
const (
	arpEthernet   = "1"
	arpInfiniband = "32"
)

// cards lists the machine's own cards: the one that it booted from first, then those with a link, Ethernet before
// InfiniBand, by name. Loopback and virtual interfaces (bridges, bonds, VLANs) are left out, unless the machine has nothing
// else, as in a container.
func (h Host) cards() []card {
	entries, err := os.ReadDir(h.path("/sys/class/net"))
	if err != nil {
		return nil
	}
	boot := bootMAC(h.text("/proc/cmdline"))
	var cards []card
	for _, e := range entries {
		dir := "/sys/class/net/" + e.Name()
		c := card{name: e.Name(), down: h.text(dir+"/operstate") != "up"}
		_, err := os.Stat(h.path(dir + "/device"))
		c.virtual = err != nil
		address := h.text(dir + "/address")
		switch h.text(dir + "/type") {
		case arpEthernet:
			c.mac = address
		case arpInfiniband:
			c.guid, c.mac = infiniband(address)
		}
		if c.mac, err = proto.NormalMAC(c.mac); err == nil && c.mac != "00:00:00:00:00:00" {
			cards = append(cards, c)
		}
	}
	sort.Slice(cards, func(i, j int) bool {
		a, b := cards[i], cards[j]
		return cmp.Or(order(a.mac != boot, b.mac != boot), order(a.virtual, b.virtual), order(a.guid != "", b.guid != ""), order(a.down, b.down), cmp.Compare(a.name, b.name)) < 0
	})
	if slices.ContainsFunc(cards, func(c card) bool { return !c.virtual }) {
		cards = slices.DeleteFunc(cards, func(c card) bool { return c.virtual })
	}
	return cards[:min(len(cards), 64)] // as many as a hello takes
}

// MACs lists the hardware addresses of cards, each once. A port of InfiniBand stands there with the address that its
// firmware shows to a boot server.
func (h Host) MACs() []string {
	var out []string
	for _, c := range h.cards() {
		if !slices.Contains(out, c.mac) {
			out = append(out, c.mac)
		}
	}
	return out
}

// bootMAC is the card that the boot loader names (BOOTIF=01-52-54-00-12-34-56, the 01 being Ethernet; SYSAPPEND of
// pxelinux), "" if it does not.
func bootMAC(cmdline string) string {
	for _, w := range Words(cmdline) {
		if v, ok := strings.CutPrefix(w, "BOOTIF="); ok {
			if len(v) == len("01-52-54-00-12-34-56") {
				v = v[3:]
			}
			if mac, err := proto.NormalMAC(v); err == nil {
				return mac
			}
		}
	}
	return ""
}

// infiniband makes of a port's address (20 bytes, the last 8 its GUID; RFC 4391, 9.1.1) the GUID and what the firmware
// of its card shows as a MAC address: the GUID without its two middle bytes.
func infiniband(address string) (guid, mac string) {
	b := strings.Split(address, ":")
	if len(b) != 20 {
		return "", ""
	}
	g := b[12:]
	return strings.Join(g, ":"), strings.Join(append(slices.Clone(g[:3]), g[5:]...), ":")
}

// infinibandPrefix and a port's GUID are the DHCP client identifier (option 61) with which the firmware of Mellanox cards boots.
const infinibandPrefix = "ff:00:00:00:00:00:02:00:00:02:c9:00:"

// nics describes the cards as "NAME MAC up|down", a port of InfiniBand with "guid GUID client-id ID" behind that.
func (h Host) nics() []string {
	var out []string
	for _, c := range h.cards() {
		line := c.name + " " + c.mac + " up"
		if c.down {
			line = c.name + " " + c.mac + " down"
		}
		if c.guid != "" {
			line += " guid " + c.guid + " client-id " + infinibandPrefix + c.guid
		}
		out = append(out, line)
	}
	return out
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
		NICs:     h.nics(),
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
