# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# The shell library of postscripts. A script starts with
#
#	#!/bin/sh
#	set -eu
#	. "$PROVOST_LIB/provost.sh"
#
# It sets no option but pipefail, and changes nothing by being read.

# Without pipefail `apt-get … | tail` counts as good when apt-get failed. bash, busybox sh and new versions of dash have
# it; in a shell without it a pipeline's first command has to leave a note of its failure by itself.
# shellcheck disable=SC3040 # asked for in a subshell first
if (set -o pipefail) 2>/dev/null; then
	set -o pipefail
fi

# In front of every path of the target: empty in the target's chroot, its mount point outside of it.
provost_target=${PROVOST_ROOT:-}
provost_target=${provost_target%/}

# provost_say KEY=TEXT: one line for the agent. A step never fails because that cannot be written.
provost_say() {
	[ -n "${PROVOST_STATUS:-}" ] || return 0
	provost_line=$(printf '%s' "$1" | tr '\n\r\t' '   ')
	{ printf '%s\n' "$provost_line" >>"$PROVOST_STATUS"; } 2>/dev/null || :
}

# provost_message TEXT: what the status shows beside the step. It goes to the step's log, too.
provost_message() {
	printf '%s\n' "$1"
	provost_say "message=$1"
}

# provost_stage NAME: a milestone of the install was reached. Its name has letters, digits, '.', '_' and '-'.
provost_stage() {
	case $1 in
	'' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*)
		printf 'provost_stage: "%s" is no name of a stage\n' "$1" >&2
		return 64
		;;
	esac
	provost_say "stage=$1"
}

# provost_progress N: the step is done to N percent, 0 to 100.
provost_progress() {
	case $1 in
	[0-9] | [1-9][0-9] | 100) provost_say "progress=$1" ;;
	*)
		printf 'provost_progress: "%s" is not from 0 to 100\n' "$1" >&2
		return 64
		;;
	esac
}

# provost_die RC TEXT: ends the script with exit status RC (1 to 255), and TEXT as the reason that the status shows.
provost_die() {
	provost_say "message=$2"
	printf '%s: %s\n' "${PROVOST_STEP:-$0}" "$2" >&2
	case $1 in
	[1-9] | [1-9][0-9] | 1[0-9][0-9] | 2[0-4][0-9] | 25[0-5]) exit "$1" ;;
	esac
	exit 1
}

# provost_write_file PATH [MODE]: PATH becomes what comes on stdin, with MODE (0644), whole or not at all; its directory
# is made. A file that is so already is left alone; a symbolic link is replaced by the file. PATH is as the shell sees it:
# "$provost_target/etc/motd". Feed it from a here-document or a file: a pipe whose writer fails has sent half a file.
provost_write_file() {
	if [ -d "$1" ]; then
		printf 'provost_write_file: %s is a directory\n' "$1" >&2
		return 1
	fi
	mkdir -p "$(dirname "$1")" || return
	provost_tmp=$(mktemp "$1.provost-XXXXXX") || return
	if ! { cat >"$provost_tmp" && chmod "${2:-0644}" "$provost_tmp"; }; then
		rm -f "$provost_tmp"
		return 1
	fi
	if [ -f "$1" ] && [ ! -L "$1" ] && cmp -s "$provost_tmp" "$1"; then
		rm -f "$provost_tmp"
		chmod "${2:-0644}" "$1"
		return
	fi
	mv -f "$provost_tmp" "$1" || {
		rm -f "$provost_tmp"
		return 1
	}
	# a file made in an installer has no SELinux label of its own; from outside of the chroot its path says nothing
	if [ -z "$provost_target" ] && command -v restorecon >/dev/null 2>&1; then
		restorecon "$1" >/dev/null 2>&1 || :
	fi
}

# provost_in_target COMMAND...: runs it in the target, from inside of its chroot or from outside.
provost_in_target() {
	if [ -z "$provost_target" ]; then
		"$@"
	else
		chroot "$provost_target" "$@"
	fi
}

# provost_running: the target is the system that runs, in phase firstboot or boot, and not one that is being installed.
provost_running() {
	case ${PROVOST_PHASE:-} in
	firstboot | boot) [ -z "$provost_target" ] ;;
	*) return 1 ;;
	esac
}
