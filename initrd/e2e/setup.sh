#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# setup.sh [test|e2e|check]: installs the Debian packages that the tests and the demo need, those
# and what some more machines want, or those of the lint. Says nothing and touches no network when all of them are there. Without
# root or "sudo -n" it prints the one command to type and exits 69 (EX_UNAVAILABLE).
set -eu

case ${1-test} in
test | e2e)
	# qemu-system-x86, ipxe-qemu, ovmf   the machines and their firmware
	# e2fsprogs, fdisk             mkfs.ext4 and sfdisk for the fast installer, debugfs
	# extlinux, syslinux-common    boot loader and MBR of the installed disk
	# pxelinux, grub-pc-bin, grub-common    boot loaders of the network, beside iPXE
	# mmdebstrap, busybox-static, cpio, kmod, zstd   building the fast installer
	# gcc, libc6-dev               the race detector
	# dash, shellcheck             the tests of postscripts and answer files
	# openssh-client               the tests of the rescue shell
	# dnsmasq-base, apache2-bin, iproute2   real DHCP, TFTP and web servers: programs, no services
	# systemd-journal-remote       a journal for the tests of its reader
	# dracut-core, dracut-network, isc-dhcp-client, iputils-arping, systemd, udev   initrds made by dracut
	# initramfs-tools-core, squashfs-tools   an initrd of Debian's own, and a live system
	# xfsprogs, btrfs-progs        file systems that the agent looks at
	packages='qemu-system-x86 ipxe-qemu ovmf e2fsprogs fdisk extlinux syslinux-common pxelinux grub-pc-bin grub-common
		mmdebstrap busybox-static cpio kmod zstd gcc libc6-dev dash shellcheck openssh-client
		dnsmasq-base apache2-bin iproute2 systemd-journal-remote
		dracut-core dracut-network isc-dhcp-client iputils-arping systemd udev initramfs-tools-core squashfs-tools
		xfsprogs btrfs-progs'
	# network-manager, dbus        an initrd like those of Red Hat 9 and later; on a desktop they are there
	[ "${1-test}" = test ] || packages="$packages network-manager dbus"
	;;
check) packages=shellcheck ;;
*)
	echo 'usage: setup.sh [test|e2e|check]' >&2
	exit 64
	;;
esac

missing=
for p in $packages; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) || status=none
	[ "$status" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

command="apt-get update && apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" = 0 ]; then
	as_root=
elif sudo -n true 2>/dev/null; then
	as_root='sudo -n'
else
	echo "setup.sh: as root, type: $command" >&2
	exit 69
fi

echo 'setup.sh: installing Debian packages, which takes a minute or two:'
echo "$missing" | fold -s -w 78
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# 5 minutes for the lists, 15 for the packages: about 60 MB, and some mirrors are far away.
# shellcheck disable=SC2086 # both are lists of words
if ! { timeout 300 $as_root apt-get -q update &&
	timeout 900 $as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -q install -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
	tail -n 20 "$log" >&2
	echo "setup.sh: this did not work: $command" >&2
	exit 69
fi
