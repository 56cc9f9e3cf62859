#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The dracut module "provost": the agent in an initrd that dracut makes, with dracut's systemd modules or without them.
# It is for systems that a site builds itself, such as diskless ones; a vendor's finished initrd takes the overlay of
# mkinitrd instead. It goes to /usr/lib/dracut/modules.d/90provost, and in comes by: dracut --add provost
#
#   PROVOST_AGENT   the static agent; without it /usr/bin/provost-agent
#   /etc/provost    agent.conf, ca.pem, join-key and rescue.pub go along where they are there

# 255: only where it is asked for. An initrd on a disk has no business with an installer's agent.
check() {
	[ -x "${PROVOST_AGENT:-$dracutsysrootdir/usr/bin/provost-agent}" ] || return 1
	return 255
}

depends() {
	echo base network
}

install() {
	local file
	inst_simple "${PROVOST_AGENT:-/usr/bin/provost-agent}" /usr/bin/provost-agent
	# shellcheck disable=SC2154 # dracut sets moddir
	inst_simple "$moddir/start" /usr/lib/provost/start
	for file in agent.conf ca.pem join-key rescue.pub; do
		[ ! -e "$dracutsysrootdir/etc/provost/$file" ] || inst_simple "/etc/provost/$file"
	done
	inst_hook initqueue/online 05 "$moddir/provost-start.sh"
	inst_hook pre-pivot 05 "$moddir/provost-start.sh"
}
