agent=/usr/bin/provost-agent;
[ -x $agent ] || {
agent=/tmp/provost-agent;
tries=1;
until { wget -q -O $agent {{ .AgentURL | sh }} & fetch=$!; { sleep 120; kill $fetch; } >/dev/null 2>&1 & bound=$!; wait $fetch; ok=$?; kill $bound; [ $ok = 0 ]; }; do
[ $tries -lt 5 ] || exit 1;
tries=$((tries + 1));
sleep 5;
done;
chmod 755 $agent || exit 1;
};
{{- with .AgentSHA256 }}
[ $agent = /usr/bin/provost-agent ] || echo {{ . | sh }} " $agent" | sha256sum -c - >/dev/null || exit 1;
{{- end }}
{{- if .Settings }}
mkdir -p /etc/provost || exit 1;
(umask 077; echo {{ .JoinKey | sh }} >/etc/provost/join-key) || exit 1;
{ echo url={{ .URLs | sh }}; echo ca={{ .Pin | sh }}; echo join-key-file=/etc/provost/join-key; } >/etc/provost/agent.conf || exit 1;
{{- end }}
$agent watch --detach </dev/null || exit 1;
$agent report installer-started </dev/null;
$agent run --phase pre </dev/null
