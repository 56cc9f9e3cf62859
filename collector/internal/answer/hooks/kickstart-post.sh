{{ template "agent" . }}
[ -x "$agent" ] || agent=/tmp/provost-agent
root=/mnt/sysroot
[ -d "$root/etc" ] || root=/mnt/sysimage
# Everything is reported when this returns: after a failure Anaconda halts.
"$agent" run --phase post --root "$root" </dev/null || exit
"$agent" seal --root "$root" </dev/null
