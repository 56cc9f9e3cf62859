// SPDX-License-Identifier: Apache-2.0

package sequence_test

import (
	"slices"
	"strings"
	"testing"

	"provost/collector/internal/sequence"
)

// TestVisibleLogs: of the stages that logs report only those are awaited whose sort of log is read.
func TestVisibleLogs(t *testing.T) {
	set := shipped(t)
	for _, tt := range []struct {
		name, sequence string
		sources        []string
		want           []string // of the servers', in order
	}{
		{"all logs", "generic", []string{"log"}, []string{"dhcp-discover", "dhcp-offer", "dhcp-request", "dhcp-ack", "bootscript-sent", "kernel-sent", "initrd-sent"}},
		{"DHCP alone", "generic", []string{sequence.LogDHCP}, []string{"dhcp-discover", "dhcp-offer", "dhcp-request", "dhcp-ack"}},
		{"TFTP alone", "generic", []string{sequence.LogTFTP}, []string{"bootscript-sent", "kernel-sent", "initrd-sent"}},
		{"web alone", "stacki-suse", []string{sequence.LogWeb}, []string{"bootloader-sent", "kernel-sent", "initrd-sent", "config-sent", "common-sent", "root-sent", "cracklib-sent", "bind-sent", "sles-img-sent", "answer-sent"}},
		{"TFTP, and linuxrc by HTTP", "stacki-suse", []string{sequence.LogTFTP}, []string{"bootloader-sent", "kernel-sent", "initrd-sent"}},
		{"none", "generic", nil, nil},
		{"none, but our boot server", "generic", []string{"boot"}, []string{"bootscript-sent", "kernel-sent", "initrd-sent"}},
	} {
		q := set.Sequence(tt.sequence).Visible(append([]string{"agent", "operator"}, tt.sources...)...)
		var got []string
		for s, ok := q.Next("ordered"); ok; s, ok = q.Next(s.Name) {
			if strings.HasPrefix(s.Name, "dhcp-") || strings.HasSuffix(s.Name, "-sent") {
				got = append(got, s.Name)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q awaited, want %q", tt.name, got, tt.want)
		}
	}
}
