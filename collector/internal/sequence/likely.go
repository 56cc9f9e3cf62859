// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"slices"
	"strings"
)

// Evidence is what is known of an install that came no further.
type Evidence struct {
	Last    string          // the furthest stage
	Awaited string          // the one that did not come
	Seen    map[string]bool // stages of this attempt, also those out of line, by the sequence's own names
	Remarks []string        // what logs said went wrong, newest first
	// External: the site's own servers boot the node, and nothing that our boot server has is to be looked at.
	External bool
}

// row is one row of the table of likely causes: what to look at when one of awaited did not come after one of after.
type row struct {
	after   []string // any if empty
	awaited []string
	with    string // a stage that must have been seen, if set
	without string // and one that must not
	causes  []string
}

// cause is one of a row's: behind a bar, if there is one, stands what it is where the site boots its nodes itself.
func cause(text string, external bool) string {
	ours, theirs, both := strings.Cut(text, "|")
	if both && external {
		return theirs
	}
	return ours
}

// maxLikely bounds a list of likely causes: nobody reads more.
const maxLikely = 6

const (
	console  = "look at the node's console: it waits for an answer, or the kernel or installer has stopped"
	port8480 = "a firewall, or a route that is missing, between the node and port 8480 (or the web server that has the files)|" +
		"a firewall, or a route that is missing, between the node and the TFTP or web server that has the files"
	port8440  = "it does not reach port 8440: a firewall, or provost.url names an address that is not on its network (advertise: in provostd.yaml)"
	stepHangs = "a step hangs: `provost log NODE -f` shows what it writes; its own timeout will end it"
	wentDown  = "the machine went down, or lost its network, in the middle"
)

// table is tried from the top; all rows that fit add their causes, in order.
var table = []row{
	{nil, []string{"dhcp-offer", "dhcp-request", "dhcp-ack", "bootloader-sent", "bootscript-sent", "kernel-sent"}, "dhcp-nak", "", []string{
		"the DHCP server refused its address: an old lease of another network, or two DHCP servers that do not agree"}},
	{nil, []string{"dhcp-offer", "dhcp-request", "dhcp-ack", "bootloader-sent", "bootscript-sent", "kernel-sent"}, "dhcp-decline", "", []string{
		"it found its address in use: another machine has it; `arping` finds that one's MAC"}},

	{[]string{"", "ordered"}, []string{"powered-on", "dhcp-discover", "bootscript-sent"}, "", "", []string{
		"the machine is off, or was not reset since the order",
		"its firmware boots the disk first: set the boot order to network, or boot it once by PXE",
		"the node's MAC is not that of the card which boots: compare `provost node show`",
		"no link: cable, switch port, VLAN, or the DHCP relay of its segment"}},
	{[]string{"powered-on"}, []string{"dhcp-discover", "bootscript-sent"}, "", "", []string{
		"its firmware boots the disk first: set the boot order to network, or boot it once by PXE",
		"no link: cable, switch port, VLAN, or the DHCP relay of its segment",
		"it stands at a message of its firmware: look at the console"}},
	{[]string{"dhcp-discover"}, []string{"dhcp-offer", "dhcp-request", "dhcp-ack"}, "", "", []string{
		"no free address in the pool, or no host entry while unknown clients are denied: `provostd dhcp-config`|no free address in the pool, or no host entry while unknown clients are denied",
		"the DHCP server has no subnet for the interface or relay that it came in by",
		"another DHCP server is meant to answer, and does not"}},
	{[]string{"dhcp-offer"}, []string{"dhcp-request", "dhcp-ack"}, "", "", []string{
		"another DHCP server answered first: `provost probe --dhcp -i IF` lists those that there are",
		"the offer does not reach it: VLAN, relay, or a switch port without portfast",
		"its firmware passes over offers without next-server and boot file name"}},
	{[]string{"dhcp-request"}, []string{"dhcp-ack"}, "", "", []string{
		"it chose another DHCP server's offer: `provost probe --dhcp -i IF` lists those that there are",
		"the server holds another lease for it: look for NAK and for a full pool in its log"}},
	{[]string{"dhcp-discover", "dhcp-offer", "dhcp-request", "dhcp-ack"}, []string{"bootloader-sent", "bootscript-sent", "kernel-sent"}, "", "", []string{
		"next-server or the boot file's name is missing or wrong in the DHCP answer: `provostd dhcp-config`|next-server or the boot file's name is missing or wrong in the DHCP answer",
		"a firewall drops TFTP (UDP 69 and the ports above 1024) or HTTP (port 8480)|a firewall drops TFTP (UDP 69 and the ports above 1024) or HTTP",
		"the file is for another architecture (BIOS or UEFI), or Secure Boot refuses it",
		"network boot is off, or after the disk, in the firmware's boot order"}},
	{[]string{"bootloader-sent"}, []string{"bootscript-sent", "kernel-sent"}, "", "bootscript-sent", []string{
		"the loader is for another architecture (BIOS or UEFI), or Secure Boot refuses it",
		"its configuration is not where it looks for it: iPXE wants http://FRONTEND:8480/boot/${netX/mac}|" +
			"its configuration is not where it looks for it on your server: pxelinux.cfg/01-MAC, grub.cfg-01-MAC, or iPXE's script",
		"iPXE is given itself again: send the script's URL to clients with the user class iPXE",
		"it has no driver for the network card: try snponly.efi or undionly.kpxe"}},
	{[]string{"bootscript-sent", "bootloader-sent", "dhcp-ack", "ordered", "powered-on"}, []string{"kernel-sent"}, "", "", []string{
		"the kernel that the profile names is not there, or may not be read: `provost doctor`|" +
			"the kernel that your boot loader's configuration names is not there, or may not be read",
		port8480,
		"the URL is https, which iPXE's BIOS builds lack",
		"the loader waits at a menu or prompt, or took an error: look at the console"}},
	{[]string{"kernel-sent"}, []string{"initrd-sent"}, "", "", []string{
		"an initrd that the profile names is not there, or may not be read: `provost doctor`|" +
			"an initrd that your boot loader's configuration names is not there, or may not be read",
		"the transfer broke off: duplex or cable fault, or the node was reset",
		"the node has too little memory for it",
		"Secure Boot refuses the kernel"}},
	{[]string{"kernel-sent", "initrd-sent", "bootscript-sent"}, []string{"agent-started"}, "", "", []string{
		"the initrd has no driver for the network card, or no firmware file for it",
		"`overlay` is not among the profile's initrds: then there is no agent|" +
			"no agent is in the initrd that your server sends, nor called by the answer file",
		"the kernel stopped: too little memory, a wrong argument, Secure Boot; look at the console",
		"the installer got no address by DHCP: another card is first there, or the port is slow (portfast)",
		port8440}},
	{[]string{"ordered", "powered-on", "dhcp-discover", "dhcp-offer", "dhcp-request", "dhcp-ack", "bootloader-sent"}, []string{"agent-started"}, "", "", []string{
		"the machine was not installed: your own boot server sent it to its disk, or it is off",
		"the answer file does not call provost-agent, or without --url, --ca and --join-key-file",
		port8440}},

	{nil, []string{"config-sent", "common-sent", "root-sent", "cracklib-sent", "bind-sent", "sles-img-sent"}, "", "", []string{
		"the installation source lacks the file, or install= names another place",
		"linuxrc has no network: no driver, no address, a slow switch port",
		"the node has too little memory for the installer's images",
		console}},
	{nil, []string{"answer-sent"}, "", "", []string{
		"the answer file's URL is missing or wrong in the kernel arguments (inst.ks=, autoyast=, url=)",
		"the installer has no network: no driver, no address, a slow switch port",
		port8480}},
	{[]string{"agent-started", "answer-sent", "image-sent"}, []string{"installer-started"}, "", "answer-sent", []string{
		"it has not fetched its answer file: is its URL among the kernel arguments? `provost node render NODE`"}},
	{nil, []string{"installer-started"}, "", "", []string{
		"the installer's own system was not found: inst.repo= or inst.stage2=, install=, url= in the kernel arguments",
		"too little memory for the installer: 2 to 4 GiB are usual",
		console}},

	{[]string{"pre-started"}, []string{"partitioned", "packages-started", "post-started"}, "", "pre-done", []string{stepHangs}},
	{nil, []string{"ssh-open"}, "", "", []string{
		"SSH into the installer was not asked for: usessh=1 or inst.sshd among the kernel arguments", console}},
	{nil, []string{"autoinst-present"}, "", "", []string{
		"the AutoYaST profile was not fetched, or is no good XML: `provost node render NODE`", console}},
	{nil, []string{"partitioned"}, "", "", []string{
		"the installer sees no disk: its controller's driver or mode",
		"the answer file names a disk that is not there, or does not clear what is on it",
		"the installer waits for an answer at its screen",
		"the answer file has a mistake: `provost node render NODE`"}},
	{[]string{"partitioned", "partitions-recorded", "autoinst-present", "ssh-open", "installer-started"}, []string{"packages-started"}, "", "", []string{
		"the package repository cannot be reached, or is not what the answer file names",
		"the disk is slow to be formatted, or fails: look at the console",
		"the installer waits for an answer at its screen"}},
	{[]string{"packages-started"}, []string{"packages-done", "post-started", "partitions-recorded"}, "", "", []string{
		"the repository's server is slow or gone: look at its load and its log",
		"a package's script hangs: look at the console",
		"the disk is full, or fails"}},
	{nil, []string{"partitions-recorded"}, "", "", []string{
		"nobody reports it: Stacki's nodes call setDbPartitions.cgi, others `provost-agent report Set_DB_Partitions`",
		console}},
	{[]string{"packages-done", "installer-started", "pre-done", "partitioned", "packages-started", "autoinst-present", "ssh-open", "partitions-recorded", "pre-started"}, []string{"post-started"}, "", "", []string{
		"the installer waits for an answer at its screen: look at the console",
		"the answer file does not call provost-agent for phase post: `provost node render NODE`",
		"the installer is still at its packages or its boot loader"}},
	{[]string{"post-started"}, []string{"post-done"}, "", "", []string{stepHangs, wentDown}},
	{nil, []string{"sealed"}, "", "", []string{
		"the answer file does not call `provost-agent seal` at its end: `provost node render NODE`",
		"the installer hangs between its last script and its end: look at the console",
		wentDown}},
	{nil, []string{"bootaction-disk"}, "", "", []string{
		"the installer has not ended: look at the console",
		"the answer file does not call `provost-agent seal` at its end: `provost node render NODE`"}},
	{nil, []string{"rebooting"}, "", "", []string{
		"the installer waits at its end for somebody to confirm the reboot: `reboot` is missing in the answer file",
		"the reboot hangs: look at the console, and reset the machine"}},
	{nil, []string{"disk-booted"}, "", "", []string{
		"no boot loader is on the disk, or the firmware has no entry for it",
		"the firmware does not go on to the disk after the network: try local-boot: sanboot|" +
			"your PXE configuration sends it to the installer again, not to its disk",
		"the first-boot unit is not in the new system: is the step firstboot-unit in the profile?",
		"the new system has no network, or does not reach port 8440",
		"the reboot hangs, or waits for a key: look at the console"}},
	{nil, []string{"firstboot-started"}, "", "", []string{
		"the first-boot unit waits for the network, or failed: `systemctl status provost-firstboot` on the node", port8440}},
	{[]string{"firstboot-started", "disk-booted"}, []string{"firstboot-done"}, "", "", []string{stepHangs, wentDown}},
	{[]string{"agent-started", "image-sent", "pre-done", "pre-started", "kernel-sent", "initrd-sent"}, []string{"boot-started"}, "", "", []string{
		"the root file system's image was not found or mounted: root= in the profile's args; look at the console",
		"the image does not run `provost-agent run --phase boot`",
		"too little memory for the image"}},
	{[]string{"boot-started"}, []string{"boot-done"}, "", "", []string{stepHangs, wentDown}},
	{nil, []string{"booted"}, "", "", []string{
		"the last report did not get through: does the system still reach port 8440?",
		"the first-boot unit ended early: `systemctl status provost-firstboot` on the node"}},
}

// Likely gives the likely causes, in the order in which to look. What logs said comes first.
func (q Sequence) Likely(e Evidence) []string {
	awaited := e.Awaited
	if i := q.Index(e.Last); awaited == "booted" && i >= 0 { // the whole install took too long: it is the next stage that hangs
		if next, ok := q.Next(e.Last); ok {
			awaited = next.Name
		}
	}
	if i := q.Index(awaited); i >= 0 {
		awaited = q.Stages[i].Name
	}
	var out []string
	add := func(text string) {
		if len(out) < maxLikely && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	for i, r := range e.Remarks {
		if i < 2 {
			add("a log says: " + r)
		}
	}
	known := false
	for _, r := range table {
		if !slices.Contains(r.awaited, awaited) || len(r.after) > 0 && !slices.Contains(r.after, e.Last) ||
			r.with != "" && !e.Seen[r.with] || r.without != "" && e.Seen[r.without] {
			continue
		}
		for _, c := range r.causes {
			add(cause(c, e.External))
		}
		known = known || r.with == ""
	}
	if !known { // a site's own stage, or a way that no shipped sequence goes
		add("nobody reported it: is `provost-agent report " + awaited + "` in a step or in the answer file?")
		add(console)
	}
	return out
}
