// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"

	"provost/collector/internal/evidence"
	"provost/collector/internal/registry"
	"provost/collector/internal/sequence"
)

// sortOf is which sort of log a program's lines make: what they can show of a boot. The error logs of web servers show none:
// they never say that a file was sent.
var sortOf = map[string]string{
	evidence.ProgISC: sequence.LogDHCP, evidence.ProgKea: sequence.LogDHCP, evidence.ProgDnsmasq: sequence.LogDHCP,
	evidence.ProgDnsmasqTFT: sequence.LogTFTP, evidence.ProgTFTPDHPA: sequence.LogTFTP, evidence.ProgATFTPD: sequence.LogTFTP,
	evidence.ProgWeb: sequence.LogWeb,
}

// expected is the same of a kind in the settings, before its first line. A log of any program has none.
var expected = map[string]string{
	"access": sequence.LogWeb, "dhcpd": sequence.LogDHCP, "kea": sequence.LogDHCP, "dnsmasq": sequence.LogDHCP, "tftpd": sequence.LogTFTP,
}

// sortsOf are the sorts of one log.
func sortsOf(kind string, programs []string) []string {
	var out []string
	if s := expected[kind]; s != "" {
		out = append(out, s)
	}
	for _, p := range programs {
		if s := sortOf[p]; s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// sorts are those of all logs that can be read now.
func (l *logs) sorts() []string {
	if l == nil {
		return nil
	}
	known := map[string]registry.SourceInfo{}
	for _, s := range l.reg.EvidenceSources() {
		known[s.Name] = s
	}
	var out []string
	add := func(name, kind string) {
		if s := known[name]; s.Trouble == nil {
			out = append(out, sortsOf(kind, s.Programs)...)
		}
	}
	for _, f := range l.follow {
		add(f.name, f.kind)
	}
	if l.receiver != nil {
		add(l.receiver.Name(), "")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// shows gives the short name of a followed log that would show a stage, or why its file was not sent. One of which nothing is
// known yet may show all.
func (l *logs) shows(s registry.SourceInfo, stage string) string {
	if l == nil {
		return ""
	}
	i := slices.IndexFunc(l.follow, func(f followed) bool { return f.name == s.Name })
	if i < 0 {
		return ""
	}
	f, wanted := l.follow[i], sequence.LogsOf(stage)
	sorts := sortsOf(f.kind, s.Programs)
	if f.kind == "error" {
		sorts = append(sorts, sequence.LogWeb)
	}
	if len(wanted) == 0 || len(sorts) > 0 && !slices.ContainsFunc(sorts, func(s string) bool { return slices.Contains(wanted, s) }) {
		return ""
	}
	return f.label
}
