#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# build.sh OUTDIR FASTDIR: what a machine needs to be installed by debian-installer itself.
#
#   linux, initrd.gz   debian-installer's own, from Debian's package debian-installer-12-netboot-amd64
#   mirror/            a Debian mirror of one package: standin-install, a udeb of ours
#   broken/            the same mirror without the package's file
#
# The mirrors that Debian's .deb files come from often have no .udeb files. So the partitioner,
# the base installer and the boot loader installer are not the real ones: standin-install does
# what they do, with the system of the fast installer in FASTDIR. All before and after them
# (kernel, initrd, main-menu, netcfg, preseed, anna, finish-install's scripts) is Debian's.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 2 ] || {
	echo 'usage: build.sh OUTDIR FASTDIR' >&2
	exit 64
}
mkdir -p "$1"
out=$(cd "$1" && pwd)
fast=$(cd "$2" && pwd)

exec 9>"$out/lock"
# a whole build by somebody else takes 1 to 3 minutes
flock -w 900 9 || {
	echo "build.sh: $out is still being built by another run" >&2
	exit 75
}
stamp=$(cat "$here/build.sh" "$here"/standin/* "$fast"/*.stamp | sha256sum | cut -d' ' -f1)
[ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ] || exit 0

PATH=$PATH:/usr/sbin:/sbin
began=$(date +%s)
say() { printf '[%3ds] debian-installer: %s\n' $(($(date +%s) - began)) "$*"; }
rm -rf "$out"/tmp.* # of a run that was killed
tmp=$(mktemp -d "$out/tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP

# fetch PACKAGE: unpacks a Debian package into $tmp/PACKAGE. 15 minutes: the largest has 130 MB.
fetch() {
	say "fetching $1"
	mkdir "$tmp/deb"
	(cd "$tmp/deb" && timeout 900 apt-get -qq -o APT::Sandbox::User=root download "$1")
	dpkg -x "$tmp"/deb/*.deb "$tmp/$1"
	rm -r "$tmp/deb"
}

images=debian-installer-12-netboot-amd64
fetch "$images"
installer=$tmp/$images/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64
mkdir "$tmp/initrd"
(cd "$tmp/initrd" && zcat "$installer/initrd.gz" | cpio -id --quiet)
version=$(ls "$tmp/initrd/lib/modules")
fetch "linux-image-$version"
kernel=$tmp/linux-image-$version
depmod -b "$kernel" "$version"

say 'building the mirror'
udeb=$tmp/udeb
share=$udeb/usr/share/standin
mkdir -p "$share/bin" "$share/lib" "$udeb/DEBIAN"
cp "$here"/standin/* "$udeb/DEBIAN/"
chmod 755 "$udeb/DEBIAN/postinst"
for module in virtio_blk ext4; do
	modprobe -d "$kernel" -S "$version" --show-depends "$module" | sed -n 's/^insmod //p'
done | while read -r module _; do
	to=${module#"$kernel"}
	[ -e "$tmp/initrd$to" ] || install -D -m 644 "$module" "$udeb$to"
done
# Debian's own programs, with the loader and libraries that they were linked with
for name in sfdisk mkfs.ext4 extlinux zstd; do
	program=$(command -v "$name")
	cp -L "$program" "$share/bin/"
	ldd "$program" | grep -o '/[^ ]*' | while read -r library; do cp -Ln "$library" "$share/lib/"; done
done
cp -L /lib64/ld-linux-x86-64.so.2 "$share/lib/loader"
cp /usr/lib/syslinux/mbr/mbr.bin "$share/"
cp /etc/mke2fs.conf "$share/"

mirror=$tmp/mirror
index=main/debian-installer/binary-amd64
mkdir -p "$mirror/pool" "$mirror/dists/bookworm/$index" "$mirror/dists/bookworm/main/binary-amd64"
dpkg-deb --root-owner-group -Zxz -b "$udeb" "$mirror/pool/standin-install_1_amd64.udeb" >/dev/null
(
	cd "$mirror"
	file=pool/standin-install_1_amd64.udeb
	{
		dpkg-deb -f "$file"
		echo "Filename: $file"
		echo "Size: $(stat -c %s "$file")"
		echo "SHA256: $(sha256sum "$file" | cut -d' ' -f1)"
		echo
	} >"dists/bookworm/$index/Packages"
	cd dists/bookworm
	gzip -9nk "$index/Packages"
	: >main/binary-amd64/Packages
	printf 'Archive: bookworm\nComponent: main\nArchitecture: amd64\n' >main/binary-amd64/Release
	printf 'Origin: Debian\nLabel: Debian\nSuite: oldstable\nVersion: 12.0\nCodename: bookworm\nArchitectures: amd64\nComponents: main\nSHA256:\n' >"$tmp/Release"
	find main -type f | LC_ALL=C sort | while read -r f; do
		echo " $(sha256sum <"$f" | cut -d' ' -f1) $(stat -c %s "$f") $f"
	done >>"$tmp/Release"
	mv "$tmp/Release" Release
	ln -s bookworm ../oldstable
)
cp -a "$mirror" "$tmp/broken"
rm "$tmp"/broken/pool/*

rm -rf "$out/stamp" "$out/mirror" "$out/broken" "$out/linux" "$out/initrd.gz"
mv "$installer/linux" "$installer/initrd.gz" "$mirror" "$tmp/broken" "$out/"
echo "$stamp" >"$out/stamp"
say "ready in $out"
