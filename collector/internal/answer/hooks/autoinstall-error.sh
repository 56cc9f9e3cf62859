{{ template "agent" . }}
[ -x "$agent" ] || agent=/tmp/provost-agent
why=$(grep -hE ' (ERROR|CRITICAL) ' /var/log/installer/subiquity-server-debug.log 2>/dev/null | tail -n 3 | tr '\n' ' ' | cut -c 1-1000)
"$agent" report packages-done --failed -m "subiquity: ${why:-no reason is in its log}" </dev/null
