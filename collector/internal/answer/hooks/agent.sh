{{ define "fail" -}}
provost_fail() {
	echo "provost: $*" >&2
	exit 1
}
{{ end }}

{{ define "agent" -}}
agent=/run/provost/bin/provost-agent
[ -x "$agent" ] || agent=/usr/bin/provost-agent
{{- end }}

{{ define "fetch" }}
# An initrd without the overlay: fetch the agent. 5 tries of at most 2 minutes, 5 s apart.
if ! [ -x "$agent" ]; then
	agent=/tmp/provost-agent
	tries=1
	until curl -fsS --connect-timeout 10 --max-time 120 -o "$agent" {{ .AgentURL | sh }}; do
		[ "$tries" -lt 5 ] || provost_fail no agent: neither in the initrd nor at {{ .AgentURL | sh }}
		tries=$((tries + 1))
		sleep 5
	done
{{- with .AgentSHA256 }}
	echo {{ . | sh }} " $agent" | sha256sum -c - >/dev/null ||
		provost_fail {{ $.AgentURL | sh }} is not the agent that was expected
{{- end }}
	chmod 0755 "$agent" || provost_fail the agent cannot be made executable
fi
{{- end }}

{{ define "settings" }}{{ if .Settings }}
# This machine's boot loader did not say where the collector is.
(umask 077 && mkdir -p /etc/provost &&
	printf '%s\n' {{ .JoinKey | sh }} >/etc/provost/join-key &&
	printf 'url=%s\nca=%s\njoin-key-file=/etc/provost/join-key\n' {{ .URLs | sh }} {{ .Pin | sh }} >/etc/provost/agent.conf) ||
	provost_fail /etc/provost cannot be written
{{- end }}{{ end }}

{{ define "begin" }}
# It goes on in the background, with no hold on our output.
"$agent" watch --detach </dev/null || provost_fail the agent does not start
"$agent" report installer-started </dev/null
{{- end }}
