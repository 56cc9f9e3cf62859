{{ template "fail" }}{{ template "agent" . }}
[ -x "$agent" ] || agent=/tmp/provost-agent
[ -e /target/proc/1 ] || mount -t proc proc /target/proc || provost_fail /target/proc cannot be mounted
"$agent" run --phase post --root /target </dev/null || exit
"$agent" seal --root /target </dev/null
