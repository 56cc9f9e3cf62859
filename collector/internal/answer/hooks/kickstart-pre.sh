{{ template "fail" }}{{ template "agent" . }}{{ template "fetch" . }}{{ template "settings" . }}{{ template "begin" . }}
"$agent" run --phase pre </dev/null
