#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# build.sh OUTDIR: what a machine needs to be installed by FAI (Fully Automatic Installation, fai-project.org).
#
#   vmlinuz, initrd.img   Debian's cloud kernel, and an initrd that FAI's dracut made
#   squash.img            FAI's nfsroot as one file over HTTP: Debian's packages fai-nfsroot, fai-client,
#                         fai-setup-storage, made as fai-make-nfsroot(8) makes it
#   mirror/               the packages that the installed system gets beside the base, with an index
#   config.tar.gz         FAI's configuration space, from config/ here
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 1 ] || {
	echo 'usage: build.sh OUTDIR' >&2
	exit 64
}
mkdir -p "$1"
out=$(cd "$1" && pwd)

exec 9>"$out/lock"
# a whole build by somebody else takes 5 to 10 minutes, on a busy machine half an hour
flock -w 3600 9 || {
	echo "build.sh: $out is still being built by another run" >&2
	exit 75
}
PATH=$PATH:/usr/sbin:/sbin
began=$(date +%s)
say() { printf '[%3ds] FAI: %s\n' $(($(date +%s) - began)) "$*"; }
if [ "$(id -u)" != 0 ]; then
	echo "build.sh: FAI's root file system is made as root; type: sudo $here/build.sh $out" >&2
	exit 69
fi

# of a run that was killed; never into a file system that was left mounted there
rm -rf --one-file-system "$out"/tmp.*
tmp=$(mktemp -d "$out/tmp.XXXXXX")
trap 'rm -rf --one-file-system "$tmp"' EXIT
trap 'exit 130' INT TERM HUP

tar -C "$here/config" --sort=name --owner=0 --group=0 -czf "$tmp/config.tar.gz" .
mv "$tmp/config.tar.gz" "$out/"

stamp=$(sha256sum <"$here/build.sh" | cut -d' ' -f1)
[ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ] || exit 0

codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
# The mirrors are those that apt uses on this host.
# shellcheck disable=SC2016 # apt's variables
apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' 'Origin: Debian' >"$tmp/sources"

# root OUT PACKAGES [OPTIONS...]: a Debian root. 45 minutes: 250 MB of packages, and some mirrors are far away; on a busy machine
# the initrd alone takes 14. What mmdebstrap mounts below the root (/dev, /proc, /sys) is mounted for it alone: it is gone with it,
# also when it is killed.
root() {
	to=$1 packages=$2
	shift 2
	timeout 2700 unshare --mount mmdebstrap --variant=minbase --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include="usr-is-merged,$packages" \
		--aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' "$@" "$codename" "$to" - <"$tmp/sources" >"$tmp/log" 2>&1 || {
		tail -n 40 "$tmp/log" >&2
		exit 1
	}
}

say 'building the base of the installed system'
root "$tmp/base.tar" systemd-sysv,udev,iproute2,dbus,kmod
mkdir "$tmp/status"
tar -C "$tmp/status" -xf "$tmp/base.tar" ./var/lib/dpkg/status

say "building FAI's root file system"
mkdir "$tmp/nfsroot"
# what fai-make-nfsroot writes for dracut: no systemd in the initrd, the root file system over HTTP
cat >"$tmp/dracut.conf" <<'EOF'
hostonly="no"
omit_dracutmodules+=" btrfs crypt dash lvm resume usrmount modsign mdraid shutdown dracut-systemd systemd systemd-initrd systemd-networkd virtfs "
add_dracutmodules+=" network-legacy livenet dmsquash-live "
add_drivers+=" squashfs overlay loop virtio_pci virtio_net virtio_blk ext4 "
EOF
# shellcheck disable=SC2016 # $1: the hook's
root "$tmp/nfsroot" fai-nfsroot,fai-client,fai-setup-storage,dracut,dracut-network,dracut-live,dracut-config-generic,linux-image-cloud-amd64,sysvinit-core,udev,ifupdown,isc-dhcp-client,iproute2,curl,psmisc,procps,kmod,fdisk,e2fsprogs,dosfstools,zstd,xz-utils,file,kbd \
	--essential-hook='touch "$1/.THIS_IS_THE_FAI_NFSROOT"' \
	--customize-hook="upload $tmp/dracut.conf /etc/dracut.conf.d/12-fai.conf" \
	--customize-hook="upload $tmp/base.tar /var/tmp/base.tar" \
	--customize-hook='rm -f "$1"/boot/initrd*' \
	--customize-hook='version=$(ls "$1/lib/modules"); chroot "$1" dracut --quiet --force "/boot/initrd.img-$version" "$version"'
version=$(ls "$tmp/nfsroot/lib/modules")
ln -sf /usr/sbin/fai "$tmp/nfsroot/etc/init.d/rcS"
mkdir -p "$tmp/nfsroot/etc/network" "$tmp/nfsroot/var/lib/fai/config" "$tmp/nfsroot/target" "$tmp/nfsroot/media"
echo 'iface lo inet loopback' >"$tmp/nfsroot/etc/network/interfaces"
ln -sf ../proc/self/mounts "$tmp/nfsroot/etc/mtab"
: >"$tmp/nfsroot/etc/fstab"
: >"$tmp/nfsroot/etc/apt/sources.list"
mv "$tmp/nfsroot/boot/vmlinuz-$version" "$tmp/vmlinuz"
mv "$tmp/nfsroot/boot/initrd.img-$version" "$tmp/initrd.img"
chmod 644 "$tmp/initrd.img"

say 'packing it'
mksquashfs "$tmp/nfsroot" "$tmp/squash.img" -comp zstd -Xcompression-level 6 -no-progress -quiet -wildcards -e 'boot/*' 'var/cache/apt/*' 'var/lib/apt/lists/*' >"$tmp/log" 2>&1 || {
	tail -n 20 "$tmp/log" >&2
	exit 1
}

say 'fetching the packages of the installed system'
mkdir -p "$tmp/mirror/partial"
# 15 minutes: 70 MB
timeout 900 apt-get -qq -y -o "Dir::State::status=$tmp/status/var/lib/dpkg/status" -o "Dir::Cache::archives=$tmp/mirror" -o APT::Sandbox::User=root \
	-o Debug::NoLocking=1 --no-install-recommends --download-only install linux-image-cloud-amd64 grub-pc initramfs-tools zstd hello >"$tmp/log" 2>&1 || {
	tail -n 20 "$tmp/log" >&2
	exit 1
}
rm -rf "$tmp/mirror/partial" "$tmp/mirror/lock"
(
	cd "$tmp/mirror"
	for deb in *.deb; do
		new=$(echo "$deb" | sed 's/%3a/-/g; s/:/-/g')
		[ "$deb" = "$new" ] || mv "$deb" "$new"
		dpkg-deb -f "$new"
		echo "Filename: ./$new"
		echo "Size: $(stat -c %s "$new")"
		echo "SHA256: $(sha256sum <"$new" | cut -d' ' -f1)"
		echo
	done >"$tmp/Packages"
	mv "$tmp/Packages" .
)

for name in mirror squash.img vmlinuz initrd.img; do
	rm -rf "${out:?}/$name"
	mv "$tmp/$name" "$out/"
done
echo "$stamp" >"$out/stamp"
say "ready in $out: $(cd "$out" && du -sh mirror squash.img vmlinuz initrd.img | tr '\t\n' '  ')"
