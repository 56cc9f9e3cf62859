# This runs in the target when its boot loader is there; the agent is outside, where the target is /mnt.
outside() {
	chroot /proc/1/root "$@"
}
# AutoYaST goes on after a script that failed, so this one does not return: 24 hours for whoever comes to look.
provost_stop() {
	echo "provost: $*: the install stops here" >/dev/console
	n=0
	while [ "$n" -lt 1440 ]; do
		sleep 60
		n=$((n + 1))
	done
	outside poweroff -f
}
agent=/run/provost/bin/provost-agent
outside "$agent" run --phase post --root /mnt </dev/null || provost_stop "phase post ended with $?"
outside "$agent" seal --root /mnt </dev/null
