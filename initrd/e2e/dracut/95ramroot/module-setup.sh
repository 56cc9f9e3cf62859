#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A dracut module for the VM tests: root=ram:URL is a squashfs image that is fetched into memory, with a tmpfs over it for
# what is written. It stands for the live image of an installer, and for the system of a diskless node.
check() {
	return 255
}

depends() {
	echo base network
}

installkernel() {
	instmods virtio_pci virtio_net virtio_rng squashfs loop overlay
}

# shellcheck disable=SC2154 # dracut sets moddir
install() {
	inst_simple /bin/busybox /usr/bin/busybox
	inst_hook cmdline 90 "$moddir/parse-ramroot.sh"
	inst_simple "$moddir/ramroot" /sbin/ramroot
}
