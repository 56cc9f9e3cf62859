#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# build.sh OUTDIR: the fast installer, a small real installer for the VM tests and the demo.
#
#   vmlinuz          Debian's cloud kernel
#   initrd.img       the installer's initrd, as a vendor would ship it: no agent in it
#   rootfs.tar.zst   the system that it installs: Debian with systemd, kernel and initrd in /boot
#
# Each is built in a temporary directory and renamed when whole, with a stamp of the files
# here that it was made from: a second run does nothing, an interrupted one leaves no harm.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 1 ] || {
	echo 'usage: build.sh OUTDIR' >&2
	exit 64
}
mkdir -p "$1"
out=$(cd "$1" && pwd)

exec 9>"$out/lock"
# a whole build by somebody else takes 2 to 4 minutes, on a busy machine half an hour
flock -w 2700 9 || {
	echo "build.sh: $out is still being built by another run" >&2
	exit 75
}
rm -rf "$out"/tmp.* # of a run that was killed

stamp() { (cd "$here" && cat "$@" | sha256sum | cut -d' ' -f1); }
rootfs_stamp=$(stamp build.sh disk-init rootfs-hook)
initrd_stamp=$(stamp build.sh init installer udhcpc)
current() { [ -e "$out/$1" ] && [ "$(cat "$out/$1.stamp" 2>/dev/null)" = "$2" ]; }
need_rootfs=true need_initrd=true
! current rootfs.tar.zst "$rootfs_stamp" || need_rootfs=false
! current initrd.img "$initrd_stamp" || [ ! -e "$out/vmlinuz" ] || need_initrd=false
if ! $need_rootfs && ! $need_initrd; then
	exit 0
fi

if $need_rootfs && [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
	echo "build.sh: the root file system needs root once; as root, type: $here/build.sh $out" >&2
	exit 69
fi
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

PATH=$PATH:/usr/sbin:/sbin
began=$(date +%s)
say() { printf '[%3ds] fast installer: %s\n' $(($(date +%s) - began)) "$*"; }
tmp=$(mktemp -d "$out/tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP

# publish NAME STAMP: the stamp goes last, so that a half-done publish is built again
publish() {
	rm -f "$out/$1.stamp"
	mv "$tmp/$1" "$out/$1"
	echo "$2" >"$out/$1.stamp"
}

# kernel: unpacks the newest cloud kernel into $tmp/kernel and sets $version.
kernel() {
	say 'fetching the kernel'
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')
	if [ -z "$package" ]; then
		as_root timeout 300 apt-get -qq update # 5 minutes: about 10 MB of lists
		package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')
	fi
	version=${package#linux-image-}
	# 10 minutes: about 30 MB; the sandbox user cannot write here
	(cd "$tmp" && timeout 600 apt-get -qq -o APT::Sandbox::User=root download "$package")
	dpkg -x "$tmp"/linux-image-*.deb "$tmp/kernel"
	depmod -b "$tmp/kernel" "$version"
}

# tree DIR: a merged-/usr root with busybox and the modules for virtio, ext4 and the power button, in load order.
tree() {
	mkdir -p "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" "$1/usr/lib64" "$1/etc/fast" \
		"$1/proc" "$1/sys" "$1/dev" "$1/run" "$1/tmp" "$1/root"
	for dir in bin sbin lib lib64; do
		ln -s "usr/$dir" "$1/$dir"
	done
	cp /bin/busybox "$1/usr/bin/busybox"
	for applet in $(/bin/busybox --list); do
		[ "$applet" = busybox ] || ln -s busybox "$1/usr/bin/$applet"
	done
	for module in virtio_pci virtio_net virtio_blk virtio_rng crc32c_generic ext4 evdev button; do
		modprobe -d "$tmp/kernel" -S "$version" --show-depends "$module" | sed -n 's/^insmod //p'
	done | awk '!seen[$1]++ { print $1 }' >"$tmp/modules"
	while read -r module; do
		install -D -m 644 "$module" "$1/usr${module#"$tmp/kernel"}"
	done <"$tmp/modules"
	sed "s,^$tmp/kernel,/usr," "$tmp/modules" >"$1/etc/fast/modules"
}

# pack DIR FILE
pack() {
	(cd "$1" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet) | zstd -q -10 >"$2"
}

initrd() {
	say 'building the installer initrd'
	tree "$tmp/installer"
	cp "$here/init" "$tmp/installer/init"
	cp "$here/installer" "$here/udhcpc" "$tmp/installer/etc/fast/"
	cp /usr/lib/syslinux/mbr/mbr.bin "$tmp/installer/etc/fast/"
	cp /etc/mke2fs.conf "$tmp/installer/etc/"
	for name in sfdisk mkfs.ext4 extlinux zstd; do
		program=$(command -v "$name")
		rm -f "$tmp/installer/usr/bin/$name"
		cp -L "$program" "$tmp/installer/usr/bin/"
		ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
			[ -e "$tmp/installer$library" ] || install -D "$library" "$tmp/installer$library"
		done
	done
	chmod 755 "$tmp/installer/init" "$tmp"/installer/etc/fast/installer "$tmp"/installer/etc/fast/udhcpc
	pack "$tmp/installer" "$tmp/initrd.img"
	cp "$tmp/kernel/boot/vmlinuz-$version" "$tmp/vmlinuz"
	mv "$tmp/vmlinuz" "$out/vmlinuz"
	publish initrd.img "$initrd_stamp"
}

rootfs() {
	say 'building the root file system (about 30 s)'
	tree "$tmp/disk"
	install -m 755 "$here/disk-init" "$tmp/disk/init"
	pack "$tmp/disk" "$tmp/disk.img"
	cp "$tmp/kernel/boot/vmlinuz-$version" "$tmp/disk-vmlinuz"
	# The mirrors are those that apt uses on this host.
	# shellcheck disable=SC2016 # apt's variables
	apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
		'Identifier: Packages' 'Origin: Debian' >"$tmp/sources"
	codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	# 45 minutes: 60 MB of packages, and some mirrors are far away, some machines busy
	as_root timeout 2700 mmdebstrap --variant=minbase \
		--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
		--include=usr-is-merged,systemd,systemd-sysv,udev,iproute2,dbus,rsyslog \
		--aptopt='Acquire::Languages "none"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
		--customize-hook="$here/rootfs-hook" \
		--customize-hook="upload $tmp/disk-vmlinuz /boot/vmlinuz" \
		--customize-hook="upload $tmp/disk.img /boot/initrd.img" \
		"$codename" "$tmp/rootfs.tar" - <"$tmp/sources" >"$tmp/log" 2>&1 || {
		tail -n 20 "$tmp/log" >&2
		exit 1
	}
	say 'compressing the root file system'
	zstd -q -T0 -15 --rm "$tmp/rootfs.tar" -o "$tmp/rootfs.tar.zst"
	publish rootfs.tar.zst "$rootfs_stamp"
}

kernel
! $need_initrd || initrd
! $need_rootfs || rootfs
say "ready in $out: $(cd "$out" && du -h vmlinuz initrd.img rootfs.tar.zst | tr '\t\n' '  ')"
