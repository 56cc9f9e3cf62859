#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# build.sh FAST OUTDIR: initrds as dracut and initramfs-tools make them, and a system for them to switch to. FAST is the directory of the
# fast installer, of whose root file system that system is made.
#
#   vmlinuz          Debian's cloud kernel
#   systemd.img      an initrd with dracut's systemd modules, as Red Hat's installers have; no agent in it
#   plain.img        one without them, and with the agent AGENT by the dracut module provost
#   nm.img           one with systemd and NetworkManager, as Red Hat's installers since 9, and with the agent by that module
#   initramfs.img    one of initramfs-tools; no agent in it
#   root.squashfs    Debian with systemd
#
# As with the fast installer, a second run does nothing, and an interrupted one leaves no harm.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -ne 2 ] || [ -z "${AGENT-}" ]; then
	echo 'usage: AGENT=PROGRAM build.sh FAST OUTDIR' >&2
	exit 64
fi
mkdir -p "$2"
fast=$(cd "$1" && pwd)
out=$(cd "$2" && pwd)
module=$here/../../dracut/90provost
units=$here/../../../packaging/systemd

exec 9>"$out/lock"
# a whole build by somebody else takes 1 to 3 minutes, on a busy machine half an hour
flock -w 2700 9 || {
	echo "build.sh: $out is still being built by another run" >&2
	exit 75
}
rm -rf "$out"/tmp.*

stamp() { cat "$here/build.sh" "$@" | sha256sum | cut -d' ' -f1; }
initrd_stamp=$(stamp "$here"/95ramroot/*)
module_stamp=$(stamp "$here"/95ramroot/* "$module"/* "$AGENT")
initramfs_stamp=$(stamp)
root_stamp=$(stamp "$here/second" "$here/second.service" "$units/provost-boot.service" "$fast/rootfs.tar.zst.stamp")
current() { [ -e "$out/$1" ] && [ "$(cat "$out/$1.stamp" 2>/dev/null)" = "$2" ]; }
if [ -e "$out/vmlinuz" ] && current systemd.img "$initrd_stamp" && current plain.img "$module_stamp" &&
	current nm.img "$module_stamp" && current initramfs.img "$initramfs_stamp" && current root.squashfs "$root_stamp"; then
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	if ! sudo -n true 2>/dev/null; then
		echo "build.sh: this needs root once; as root, type: AGENT=$AGENT $here/build.sh $fast $out" >&2
		exit 69
	fi
	exec sudo -n AGENT="$AGENT" "$here/build.sh" "$fast" "$out" 9>&-
fi

PATH=$PATH:/usr/sbin:/sbin
began=$(date +%s)
say() { printf '[%3ds] dracut: %s\n' $(($(date +%s) - began)) "$*"; }
tmp=$(mktemp -d "$out/tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP

# publish NAME STAMP: the stamp goes last, so that a half-done publish is built again
publish() {
	rm -f "$out/$1.stamp"
	chmod 644 "$tmp/$1" # readable for whoever runs the tests
	mv "$tmp/$1" "$out/$1"
	echo "$2" >"$out/$1.stamp"
}

# kernel: the newest cloud kernel, whose modules stay in $out/kernel for the next time; sets $version
kernel() {
	if [ -e "$out/vmlinuz" ]; then
		version=$(basename "$out"/kernel/lib/modules/*)
		return
	fi
	rm -rf "$out/kernel"
	say 'fetching the kernel'
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')
	if [ -z "$package" ]; then
		timeout 300 apt-get -qq update # 5 minutes: about 10 MB of lists
		package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')
	fi
	version=${package#linux-image-}
	# 10 minutes: about 30 MB
	(cd "$tmp" && timeout 600 apt-get -qq -o APT::Sandbox::User=root download "$package")
	dpkg -x "$tmp"/linux-image-*.deb "$tmp/kernel"
	depmod -b "$tmp/kernel" "$version"
	mv "$tmp/kernel" "$out/kernel"
	mv "$out/kernel/boot/vmlinuz-$version" "$out/vmlinuz"
}

# initrd NAME STAMP MODULES OMITTED: 30 minutes at most; it takes 20 s, on a busy machine 14 minutes
initrd() {
	say "building $1.img"
	PROVOST_AGENT=$AGENT dracutbasedir=$tmp/dracut timeout 1800 dracut -q --force --no-hostonly --no-hostonly-cmdline \
		--kmoddir "$out/kernel/lib/modules/$version" --kver "$version" --kernel-image "$out/vmlinuz" --tmpdir "$tmp" \
		--modules "base bash network kernel-modules udev-rules fs-lib ramroot $3" --omit "plymouth crypt lvm mdraid dm $4" \
		--filesystems squashfs --zstd "$tmp/$1.img" >"$tmp/log" 2>&1 || {
		tail -n 20 "$tmp/log" >&2
		exit 1
	}
	publish "$1.img" "$2"
}

# initramfs: mkinitramfs looks for the kernel in /lib/modules and /boot, which are others in a mount namespace of its own.
initramfs() {
	say 'building initramfs.img'
	mkdir "$tmp/conf"
	cp -R /etc/initramfs-tools/. "$tmp/conf/"
	printf '%s\n' MODULES=list BUSYBOX=y COMPRESS=zstd RUNSIZE=10% FSTYPE=squashfs >"$tmp/conf/initramfs.conf"
	printf '%s\n' virtio_pci virtio_blk virtio_net virtio_rng squashfs >"$tmp/conf/modules"
	# shellcheck disable=SC2016 # the inner shell's variables
	TMPDIR=$tmp timeout 1800 unshare --mount sh -ec '
		mount -t overlay -o "lowerdir=$1/kernel/lib:/usr/lib" overlay /usr/lib
		mount --bind "$1/kernel/boot" /boot
		mkinitramfs -d "$2/conf" -o "$2/initramfs.img" "$3"' sh "$out" "$tmp" "$version" >"$tmp/log" 2>&1 || {
		tail -n 20 "$tmp/log" >&2
		exit 1
	}
	publish initramfs.img "$initramfs_stamp"
}

root() {
	say 'building the root image'
	mkdir "$tmp/root"
	zstd -dcq "$fast/rootfs.tar.zst" | tar -x -C "$tmp/root" -f -
	: >"$tmp/root/etc/fstab" # it has no disk
	rm -f "$tmp/root/boot/"*
	install -m 755 "$here/second" "$tmp/root/usr/local/sbin/second"
	install -m 644 "$here/second.service" "$units/provost-boot.service" "$tmp/root/etc/systemd/system/"
	# an installer's live system has no phase boot
	mkdir "$tmp/root/etc/systemd/system/provost-boot.service.d"
	printf '[Unit]\nConditionKernelCommandLine=!lab.second\n' >"$tmp/root/etc/systemd/system/provost-boot.service.d/lab.conf"
	mkdir -p "$tmp/root/etc/systemd/system/multi-user.target.wants"
	ln -s ../second.service ../provost-boot.service "$tmp/root/etc/systemd/system/multi-user.target.wants/"
	mksquashfs "$tmp/root" "$tmp/root.squashfs" -quiet -no-progress -comp zstd -Xcompression-level 6 >/dev/null
	publish root.squashfs "$root_stamp"
}

cp -R /usr/lib/dracut "$tmp/dracut"
rm -rf "$tmp/dracut/modules.d/90provost"
cp -R "$module" "$here/95ramroot" "$tmp/dracut/modules.d/"

kernel
current systemd.img "$initrd_stamp" || initrd systemd "$initrd_stamp" 'network-legacy systemd systemd-initrd dracut-systemd' 'systemd-networkd network-manager'
current plain.img "$module_stamp" || initrd plain "$module_stamp" 'network-legacy provost' 'systemd systemd-initrd dracut-systemd systemd-networkd network-manager'
current nm.img "$module_stamp" || initrd nm "$module_stamp" 'network-manager systemd systemd-initrd dracut-systemd provost' 'systemd-networkd network-legacy'
current initramfs.img "$initramfs_stamp" || initramfs
current root.squashfs "$root_stamp" || root
say "ready in $out: $(cd "$out" && du -h vmlinuz ./*.img root.squashfs | tr '\t\n' '  ')"
