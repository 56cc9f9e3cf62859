agent=/usr/bin/provost-agent;
[ -x $agent ] || { agent=/tmp/provost-agent; wget -q -O $agent {{ .AgentURL | sh }} && chmod 755 $agent; } || exit 1;
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
