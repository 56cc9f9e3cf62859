{{ template "agent" . }}
# AutoYaST goes on after a script that failed, so this one does not return: 24 hours for whoever comes to look.
provost_stop() {
	echo "provost: $*: the install stops here" >/dev/console
	n=0
	while [ "$n" -lt 1440 ]; do
		sleep 60
		n=$((n + 1))
	done
	poweroff -f
}
provost_fail() {
	provost_stop "$@"
}
{{- template "fetch" . }}{{ template "settings" . }}{{ template "begin" . }}
"$agent" run --phase pre </dev/null || provost_stop "phase pre ended with $?"
