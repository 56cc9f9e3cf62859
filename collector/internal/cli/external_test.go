// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"strings"
	"testing"

	"provost/proto"
)

// TestExplainExternal: of a node that the site's own servers boot, nothing is said of our boot server.
func TestExplainExternal(t *testing.T) {
	ordered := proto.Event{Kind: proto.KindOrdered, Source: proto.SourceOperator, Stage: "ordered", At: before("20m"), Seq: 1}
	kernel := proto.Event{Kind: proto.KindStage, Source: "log:dnsmasq", Stage: "kernel-sent", Message: "/srv/tftp/vmlinuz", At: before("12m"), Seq: 2}
	refused := proto.Event{Kind: proto.KindStage, Source: "log:apache", Stage: "answer-sent", Failed: true, Message: "/srv/www/ks.cfg may not be read", At: before("11m"), Seq: 3}
	loop := proto.Event{Kind: proto.KindLoop, Source: "log:dnsmasq", Attempt: 1, At: before("10m"), Seq: 3}
	for _, tt := range []struct {
		name   string
		status proto.Status
		cause  *proto.Cause
		events []proto.Event
		want   []string
	}{
		{"stalled, and no log", proto.StatusStalled, nil, []proto.Event{ordered}, []string{"Your own PXE server boots this node", "No log of the frontend has shown anything"}},
		{"under way, and a log", proto.StatusPXEBooting, nil, []proto.Event{ordered, kernel}, []string{"last showed kernel-sent, at 11:48:00, 12m ago (log:dnsmasq)"}},
		{"under way, and a file that was refused", proto.StatusPXEBooting, nil, []proto.Event{ordered, kernel, refused}, []string{"last showed kernel-sent, at 11:48:00, 12m ago (log:dnsmasq)"}},
		{"overdue", proto.StatusFailed, &proto.Cause{Kind: proto.CauseStageDeadline, Name: "kernel-sent", Source: proto.SourceDeadline, At: before("3m"), Message: "kernel-sent did not come within twice 5m"},
			[]proto.Event{ordered}, []string{"Stage kernel-sent did not come within twice 5m; that ended at 11:57:00, 3m ago. The last stage that it reached is"}},
		{"a loop", proto.StatusFailed, &proto.Cause{Kind: proto.CauseLoop, Count: 2, Source: "log:dnsmasq", At: before("10m"), Message: "set its next boot to disk in your PXE configuration"},
			[]proto.Event{ordered, kernel, loop}, []string{"Its installer was booted again after 1 attempt", "set its next boot to disk in your PXE configuration", "loop: the installer was booted again"}},
	} {
		f := worlds["small"]()
		n := f.node("n4")
		n.Status, n.Cause, n.BootAction, n.Stuck = tt.status, tt.cause, proto.BootDisk, nil
		l := f.installs["n4"][0]
		l.Install.Boot, l.Events = "external", tt.events
		f.installs["n4"] = []proto.EventList{l}
		start(t, f)
		var out, errs strings.Builder
		program(&out, &errs, "PROVOST_SERVER="+f.server()).Run(t.Context(), []string{"explain", "n4"})
		text := strings.Join(strings.Fields(out.String()), " ")
		for _, w := range tt.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: %q is missing in\n%s%s", tt.name, w, out.String(), errs.String())
			}
		}
		for _, w := range []string{"8480", "boot script", "boot action", "kept from installing"} {
			if strings.Contains(text, w) {
				t.Errorf("%s: it speaks of our boot server, %q:\n%s", tt.name, w, out.String())
			}
		}
	}
}
