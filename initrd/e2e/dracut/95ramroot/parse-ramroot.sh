#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by dracut's cmdline hook: /sbin/netroot is to call ramroot when the network is up, and dracut waits for that.
# shellcheck disable=SC2034,SC2154 # variables of dracut's
case $root in
ram:*)
	netroot=$root
	rootok=1
	echo '[ -e /run/ramroot/done ]' >"$hookdir/initqueue/finished/ramroot.sh"
	;;
esac
# lab.noexec: as in the initrds of initramfs-tools
if getargbool 0 lab.noexec; then
	mount -o remount,noexec /run
fi
