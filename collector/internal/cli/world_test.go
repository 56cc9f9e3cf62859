// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"provost/proto"
)

// worlds are what the stories happen in.
var worlds = map[string]func() *fake{
	"small": small,
	"newplan": func() *fake { // n2's agent refuses the order at the third look, and n10 is booted then
		f := small()
		f.node("n10").Waiting = true
		f.changes = []proto.PlanChange{{Nodes: []string{"n2"}, Changed: []string{"otherpkgs"}, Added: []string{"ntp"}},
			{Nodes: []string{"n10"}, Removed: []string{"old"}, Reordered: true}}
		looks := 0
		f.onStatus = func(f *fake, _ int) {
			for _, name := range []string{"n2", "n10"} {
				if n := f.node(name); len(n.Orders) > 0 {
					if looks++; looks == 3 {
						n.Orders = nil
						if name == "n10" {
							n.Status, n.Summary, n.Waiting, n.Cause = proto.StatusBooted, "booted", false, nil
						}
					}
				}
			}
		}
		return f
	},
	"empty":    func() *fake { return &fake{} },
	"many":     many,
	"hostile":  hostileWorld,
	"boots":    func() *fake { return progress("booted") },
	"fails":    func() *fake { return progress("failed") },
	"forever":  func() *fake { return progress("") },
	"restarts": restarts,
	"retried":  retried,
	"follow":   follow,
	"found":    found,
	"rescue":   rescueWorld,
	"refused": func() *fake {
		return &fake{refuse: proto.NewProblem(403, proto.CodeForbidden, "token night may read and nothing else", "")}
	},
	"broken": func() *fake {
		return &fake{refuse: &proto.Problem{Status: 500, Code: proto.CodeInternal, Detail: "the collector could not do it", Incident: "7f3a"}}
	},
	"newer": func() *fake { return &fake{list: proto.NodeList{Schema: 9}} },
}

const (
	id3 = "01JPA7Q0000000000000000003"
	id2 = "01JPA7Q0000000000000000002"
)

func dead(stage, in string) *proto.Deadline {
	d, err := time.ParseDuration(in)
	if err != nil {
		panic(err)
	}
	return &proto.Deadline{Stage: stage, At: now.Add(d)}
}

// deadSince is a deadline whose begin the collector told.
func deadSince(stage, ago, in string) *proto.Deadline {
	d := dead(stage, in)
	d.Since = before(ago)
	return d
}

// small has a node in every state.
func small() *fake {
	broken := &proto.Cause{Kind: proto.CauseStep, Name: "otherpkgs", Phase: proto.PhasePost, Exit: 127, DurationMS: 312000, Try: 2, Source: proto.SourceAgent,
		Message: "dnf: command not found", Log: "otherpkgs.log", At: before("9m"),
		Tail: []string{"+ . /etc/os-release", "+ dnf -y install munge slurm slurm-slurmd", "/run/provost/files/5e0c: line 14: dnf: command not found"}}
	blade := "rack12-chassis03-blade07.cluster.example.org"
	node := func(n proto.Node) proto.Node {
		n.Schema, n.MACs = 1, []string{fmt.Sprintf("52:54:00:00:00:%02x", len(n.Name))}
		if n.Summary == "" {
			n.Summary = string(n.Status)
		}
		if n.BootAction == "" {
			n.BootAction = proto.BootInstall
		}
		if n.Profile == "" {
			n.Profile = "compute"
		}
		if n.Status != proto.StatusDefined {
			n.Install, n.Ordinal, n.Attempt = id3, 3, max(n.Attempt, 1)
		}
		return n
	}
	f := &fake{list: proto.NodeList{Schema: 1, Revision: 4711, Cursor: "SMALL:4711",
		Warnings: []string{"the disk of /var/lib/provostd is nearly full: 900 MiB of 100 GiB are free"}, Blind: []string{"messages", "httpd"},
		Nodes: []proto.Node{
			node(proto.Node{Name: "n1", Status: proto.StatusBooted, Stage: "booted", Since: before("20m"), LastSeen: before("20m"), BootAction: proto.BootDisk,
				Groups: []string{"rack1"}, Label: "nightly", IP: "10.0.0.1", Serial: "SN001", Attrs: map[string]string{"role": "login", "ntp": "10.0.0.1"}}),
			node(proto.Node{Name: "n2", Status: proto.StatusFailed, Summary: "failed(otherpkgs=127)", Waiting: true, Stage: "post-started", Step: "otherpkgs",
				Since: before("9m"), LastSeen: before("4s"), Cause: broken, Groups: []string{"rack1"}, Label: "nightly"}),
			node(proto.Node{Name: "n3", Status: proto.StatusInstalling, Stage: "packages-started", Since: before("15m"), LastSeen: before("20s"),
				Deadline: slowSince("packages-done", "12m40s", "17m20s"), Label: "nightly"}),
			node(proto.Node{Name: "n4", Status: proto.StatusStalled, Summary: "stalled(dhcp-ack)", Stage: "dhcp-offer", Since: before("3m"),
				Deadline: dead("dhcp-ack", "12m"), Label: "nightly", Stuck: &proto.Stuck{Stage: "dhcp-ack", Since: before("4m"), Last: "dhcp-offer",
					LastAt: before("3m59s"), LastSource: "log:dnsmasq", Likely: []string{"it chose another DHCP server's offer: `provost probe --dhcp -i IF` lists those that there are",
						"the server holds another lease for it: look at `provost log NODE`"}}}),
			node(proto.Node{Name: "n5", Status: proto.StatusPostinstall, Stage: "post-started", Step: "users", Since: before("21m"), LastSeen: before("12m"),
				Deadline: dead("post-done", "-1m30s")}),
			node(proto.Node{Name: "n6", Status: proto.StatusDefined}),
			node(proto.Node{Name: "n7", Status: proto.StatusOrdered, Stage: "ordered", Since: before("42s"), Deadline: deadSince("dhcp-discover", "42s", "14m18s")}),
			node(proto.Node{Name: "n8", Status: proto.StatusBooted, Summary: "booted(skipped=motd)", Stage: "booted", Since: before("53h"), LastSeen: before("53h"),
				BootAction: proto.BootDisk, Warnings: []string{"step motd was skipped by an order"}}),
			node(proto.Node{Name: "n9", Status: proto.StatusHeld, Waiting: true, Stage: "pre-started", Since: before("4h"), LastSeen: before("8s")}),
			node(proto.Node{Name: "n10", Status: proto.StatusFailed, Summary: "failed(loop=1)", Stage: "kernel-sent", Since: before("1h2m"), BootAction: proto.BootBlock,
				Cause: &proto.Cause{Kind: proto.CauseLoop, Count: 1, Source: proto.SourceBoot, At: before("1h2m")}}),
			node(proto.Node{Name: blade, Status: proto.StatusFailed, Summary: "failed(installer)", Stage: "partitions-recorded", Since: before("31m"), LastSeen: before("6m"),
				Cause: &proto.Cause{Kind: proto.CauseInstaller, Name: "partitioned", Message: "Unable to allocate requested partition scheme.", Log: "anaconda.log",
					Source: proto.SourceAgent, At: before("31m")}}),
		}},
		installs: map[string][]proto.EventList{},
		logs: map[string]string{
			"n2/" + id3 + "/otherpkgs.log": "+ . /etc/os-release\n+ dnf -y install munge slurm slurm-slurmd\n/run/provost/files/5e0c: line 14: dnf: command not found\n",
			"n2/" + id3 + "/agent.log":     "12:00:00 agent starts\r\nno newline at the end",
			"n2/" + id2 + "/agent.log":     "of the older install\n",
		},
		profiles: []proto.ProfileInfo{{Schema: 1, Name: "compute", Kind: "disk", Family: "redhat", Boot: "provost", Kernel: "images/el9/vmlinuz",
			Initrds: []string{"images/el9/initrd.img", "overlay"}, Args: "inst.repo={{ .Images }}/el9", Attempts: 1, OnFailure: proto.OnFailureHold,
			Deadline: proto.Duration(90 * time.Minute),
			Steps:    []proto.Step{{Name: "timesync", Script: "20-timesync", Phase: proto.PhasePost, Retries: 2}, {Name: "otherpkgs", Phase: proto.PhasePost}}}},
	}
	f.installs["n2"] = []proto.EventList{failedInstall(broken), olderInstall()}
	f.checks = []proto.Check{{Name: "database", State: proto.CheckGood, Detail: "it takes what it is given"},
		{Name: "certificate", State: proto.CheckWarn, Detail: "good until 2026-03-20, in 6 days", Fix: "its log says why it was not made anew:\njournalctl -u provostd"},
		{Name: "profile compute", State: proto.CheckBad, Detail: "images/el9/initrd.img: no such file or directory",
			Fix: "put the installer's kernel and initrd below /srv/provost, readable for provostd"}}
	f.history = []proto.HistoryEntry{
		{At: before("5s"), Order: "retry", Step: "otherpkgs", Actor: "root (uid 0), login alice", Install: id3, Ordinal: 3, Profile: "compute", Label: "nightly"},
		{At: before("32m10s"), Order: "install", Actor: "token night", Reason: "new image", Install: id3, Ordinal: 3, Profile: "compute", Label: "nightly", Plan: 1,
			Collector: "v0.2.0", Client: "provost/v0.2.0", Steps: []proto.HistoryStep{{Name: "disks", Phase: proto.PhasePre, Digest: proto.Digest([]byte("a"))},
				{Name: "otherpkgs", Phase: proto.PhasePost, Digest: proto.Digest([]byte("b"))}}},
		{At: before("30h"), Order: "boot", Detail: "disk", Actor: "alice (uid 1000)", Reason: "its disk is good"},
		{At: before("200h"), Order: "set", Detail: "profile old → compute; groups rack1", Actor: "alice (uid 1000)"},
		{At: before("201h"), Order: "add"},
	}
	f.installs["n4"] = []proto.EventList{{Schema: 1, Install: proto.Install{Schema: 1, ID: id3, Node: "n4", Ordinal: 3, Profile: "compute", Ordered: before("5m"),
		Status: proto.StatusStalled, Summary: "stalled(dhcp-ack)"}, Events: []proto.Event{
		{Kind: proto.KindOrdered, Source: proto.SourceOperator, Stage: "ordered", At: before("5m"), Seq: 1, Actor: "root"},
		{Kind: proto.KindStage, Source: "log:dnsmasq", Stage: "dhcp-discover", At: before("4m"), Seq: 1},
		{Kind: proto.KindStage, Source: "log:dnsmasq", Stage: "dhcp-offer", At: before("3m59s"), Seq: 2, Message: "10.0.0.4"},
		{Kind: proto.KindStalled, Source: proto.SourceDeadline, Stage: "dhcp-ack", At: before("3m"), Seq: 1, Message: "dhcp-ack did not come within 1m"},
	}}}
	f.installs["n1"] = []proto.EventList{{Schema: 1, Install: proto.Install{Schema: 1, ID: id3, Node: "n1", Ordinal: 3, Profile: "compute", Ordered: before("33m"),
		Actor: "root", Status: proto.StatusBooted, Summary: "booted"}}}
	f.installs["n5"] = []proto.EventList{{Schema: 1, Install: proto.Install{Schema: 1, ID: id3, Node: "n5", Ordinal: 3, Profile: "compute", Ordered: before("30m"),
		Status: proto.StatusPostinstall, Summary: "postinstall", Logs: []proto.LogInfo{{Name: "users.log", Size: 17}}}}}
	return f
}

func failedInstall(c *proto.Cause) proto.EventList {
	l := proto.EventList{Schema: 1, Install: proto.Install{Schema: 1, ID: id3, Node: "n2", Ordinal: 3, Attempt: 1, Profile: "compute", Label: "nightly",
		Reason: "new image", Actor: "root", Ordered: before("32m10s"), Status: proto.StatusFailed, Summary: "failed(otherpkgs=127)", Cause: c,
		Steps: []proto.StepInfo{{Name: "disks", Phase: proto.PhasePre, Try: 1, Outcome: proto.OutcomeOK}, {Name: "hostname", Phase: proto.PhasePost, Try: 1, Outcome: proto.OutcomeOK},
			{Name: "otherpkgs", Phase: proto.PhasePost, Try: 2, Outcome: proto.OutcomeFailed, Exit: 127}, {Name: "users", Phase: proto.PhasePost},
			{Name: "remote-syslog", Phase: proto.PhasePost}, {Name: "motd", Phase: proto.PhaseFirstboot}},
		Logs: []proto.LogInfo{{Name: "agent.log", Size: 1536}, {Name: "disks.log", Size: 211}, {Name: "hostname.log", Size: 0}, {Name: "otherpkgs.log", Size: 3 << 20}}}}
	seq := map[proto.Source]uint64{}
	add := func(ago string, e proto.Event) {
		seq[e.Source]++
		e.At, e.Seq, e.Node, e.Install = before(ago), seq[e.Source], "n2", id3
		l.Events = append(l.Events, e)
	}
	add("32m10s", proto.Event{Kind: proto.KindOrdered, Source: proto.SourceOperator, Stage: "ordered", Actor: "root", Message: "new image"})
	add("31m5s", proto.Event{Kind: proto.KindStage, Source: "log:dnsmasq", Stage: "dhcp-ack", Message: "10.0.0.2"})
	add("31m", proto.Event{Kind: proto.KindAttempt, Source: proto.SourceBoot, Stage: "bootscript-sent", Attempt: 1})
	add("30m58s", proto.Event{Kind: proto.KindStage, Source: proto.SourceBoot, Stage: "kernel-sent"})
	add("30m40s", proto.Event{Kind: proto.KindStage, Source: proto.SourceBoot, Stage: "initrd-sent"})
	add("30m2s", proto.Event{Kind: proto.KindAgentStart, Source: proto.SourceAgent, Stage: "agent-started", Message: "v0.2.0"})
	add("30m", proto.Event{Kind: proto.KindRunStart, Source: proto.SourceAgent, Phase: proto.PhasePre, Stage: "pre-started"})
	add("30m", proto.Event{Kind: proto.KindStepStart, Source: proto.SourceAgent, Phase: proto.PhasePre, Step: "disks", Try: 1})
	add("29m58s", proto.Event{Kind: proto.KindStepEnd, Source: proto.SourceAgent, Phase: proto.PhasePre, Step: "disks", Try: 1, Outcome: proto.OutcomeOK, DurationMS: 2140})
	add("29m58s", proto.Event{Kind: proto.KindRunEnd, Source: proto.SourceAgent, Phase: proto.PhasePre, Outcome: proto.OutcomeOK, Stage: "pre-done"})
	add("20m", proto.Event{Kind: proto.KindRunStart, Source: proto.SourceAgent, Phase: proto.PhasePost, Stage: "post-started"})
	add("20m", proto.Event{Kind: proto.KindStepEnd, Source: proto.SourceAgent, Phase: proto.PhasePost, Step: "hostname", Try: 1, Outcome: proto.OutcomeOK, DurationMS: 340})
	add("19m", proto.Event{Kind: proto.KindStepEnd, Source: proto.SourceAgent, Phase: proto.PhasePost, Step: "otherpkgs", Try: 1, Outcome: proto.OutcomeFailed, Exit: 1,
		DurationMS: 61000, Warning: true, Message: "Error: Failed to download metadata for repo 'appstream': Cannot download repomd.xml: Cannot download repodata/repomd.xml: All mirrors were tried"})
	add("14m12s", proto.Event{Kind: proto.KindStepStart, Source: proto.SourceAgent, Phase: proto.PhasePost, Step: "otherpkgs", Try: 2})
	add("9m", proto.Event{Kind: proto.KindStepEnd, Source: proto.SourceAgent, Phase: proto.PhasePost, Step: "otherpkgs", Try: 2, Outcome: proto.OutcomeFailed, Exit: 127,
		DurationMS: 312000, Message: "dnf: command not found", Log: "otherpkgs.log"})
	add("9m", proto.Event{Kind: proto.KindRunEnd, Source: proto.SourceAgent, Phase: proto.PhasePost, Outcome: proto.OutcomeFailed, Step: "otherpkgs", Exit: 127})
	add("8m58s", proto.Event{Kind: proto.KindHold, Source: proto.SourceAgent, Failed: true, Message: "otherpkgs failed with exit status 127"})
	return l
}

func olderInstall() proto.EventList {
	return proto.EventList{Schema: 1, Install: proto.Install{Schema: 1, ID: id2, Node: "n2", Ordinal: 2, Profile: "compute", Ordered: before("50h"),
		Status: proto.StatusBooted, Summary: "booted", Logs: []proto.LogInfo{{Name: "agent.log", Size: 21}}}, Events: []proto.Event{
		{Kind: proto.KindOrdered, Source: proto.SourceOperator, Stage: "ordered", Seq: 1, At: before("50h")},
		{Kind: proto.KindStage, Source: proto.SourceAgent, Stage: "booted", Seq: 1, At: before("26h")},
	}}
}

// many is a cluster of 200 nodes with more failures than one reads one by one.
func many() *fake {
	f := &fake{list: proto.NodeList{Schema: 1}}
	for i := range 200 {
		n := proto.Node{Schema: 1, Name: fmt.Sprintf("n%03d", i+1), Status: proto.StatusBooted, Stage: "booted", Since: before("1h"), BootAction: proto.BootDisk,
			Install: id3, Ordinal: 1, Attempt: 1, Groups: []string{fmt.Sprintf("rack%d", i/50+1)}}
		switch {
		case i < 38:
			n.Status, n.Summary, n.Waiting, n.Step, n.Stage = proto.StatusFailed, "failed(otherpkgs=127)", true, "otherpkgs", "post-started"
			n.Cause = &proto.Cause{Kind: proto.CauseStep, Name: "otherpkgs", Exit: 127, Log: "otherpkgs.log"}
		case i%50 == 40:
			n.Status, n.Summary, n.Stage = proto.StatusStalled, "stalled(dhcp-ack)", "dhcp-offer"
		case i == 60 || i == 62:
			n.Status, n.Summary, n.Stage = proto.StatusFailed, "failed(loop=1)", "kernel-sent"
		case i >= 150:
			n.Status, n.Stage, n.Deadline, n.LastSeen = proto.StatusInstalling, "packages-started", dead("packages-done", "5m"), before("10s")
		}
		if n.Summary == "" {
			n.Summary = string(n.Status)
		}
		f.list.Nodes = append(f.list.Nodes, n)
	}
	return f
}

// payloads are texts that would do something to a terminal, or to the order of what is read, if they reached it.
var payloads = []string{
	"\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x1bP+q544e\x1b\\", "over\rwritten", "\x07bell", "\x9b2J", "\u009b2J", "\u0085next", "\x7f\x08\x08",
	"user\u202egpj.exe", "\u2066iso\u2069", "zero\u200bwidth", "line\u2028sep", "tag\U000e0041", "bad\xff\xfe\xc3", "\xed\xa0\x80", "nul\x00", "soft\u00adhyphen", "\ufeffbom",
	"two\nlines", "<script>alert(1)</script>", "`id`", "$(id)", "%s%n", "ünïcödé 漢字 é",
}

// hostileWorld says something bad wherever a text can stand.
func hostileWorld() *fake {
	f := small()
	all := strings.Join(payloads, " ")
	f.list.Warnings = payloads
	n := f.node("n2")
	n.Name, n.Warnings, n.Stage, n.Summary, n.Label = "n2", payloads, "st"+all, "failed("+all+")", all
	c := *n.Cause
	c.Message, c.Tail, c.Name, c.Log = all, payloads, all, "otherpkgs.log"
	n.Cause = &c
	n.Attrs = map[string]string{"evil": all}
	n.Serial, n.Profile, n.Groups = all, all, payloads
	l := failedInstall(&c)
	l.Install.Reason, l.Install.Actor, l.Install.Label, l.Install.Profile = all, all, all, all
	for _, p := range payloads {
		l.Events = append(l.Events, proto.Event{Kind: proto.KindNote, Source: proto.Source("log:" + p), Message: p, At: before("1m"), Seq: 99},
			proto.Event{Kind: proto.Kind(p), Source: proto.SourceAgent, Stage: p, Actor: p, Step: p, At: before("1m"), Seq: 99})
	}
	l.Install.Logs = append(l.Install.Logs, proto.LogInfo{Name: "evil" + all, Size: 3})
	f.installs["n2"] = []proto.EventList{l}
	f.logs["n2/"+id3+"/otherpkgs.log"] = strings.Join(payloads, "\n") + "\ncut\xe2\x82"
	for i := range f.checks {
		f.checks[i].Name, f.checks[i].Detail, f.checks[i].Fix = all, all, all
	}
	for i := range f.history {
		e := &f.history[i]
		e.Order, e.Step, e.Actor, e.Reason, e.Detail, e.Label, e.Client = all, all, all, all, all, all, all
		for j := range e.Steps {
			e.Steps[j].Name, e.Steps[j].Digest = all, all
		}
	}
	f.profiles[0].Args, f.profiles[0].Steps[0].Script = all, all
	return f
}

// found has two machines that nobody has added.
func found() *fake {
	return &fake{list: proto.NodeList{Schema: 1, Nodes: []proto.Node{
		{Name: "52-54-00-00-00-01", Status: proto.StatusDiscovered, Summary: "discovered", MACs: []string{"52:54:00:00:00:01", "52:54:00:00:00:02"}, Serial: "SN7"},
		{Name: "n1", Status: proto.StatusDefined, Summary: "defined", MACs: []string{"52:54:00:00:00:03"}, Protected: true},
	}}}
}

// progress is a node that ends after a few looks, or never.
func progress(end string) *fake {
	f := &fake{list: proto.NodeList{Schema: 1, Nodes: []proto.Node{
		{Schema: 1, Name: "n1", Status: proto.StatusInstalling, Summary: "installing", Stage: "packages-started", LastSeen: before("5s"), Since: before("5m"), BootAction: "install"},
		{Schema: 1, Name: "n2", Status: proto.StatusBooted, Summary: "booted", Stage: "booted", Since: before("5m"), BootAction: "disk"}}}}
	f.onStatus = func(f *fake, n int) {
		if n == 3 && end != "" {
			f.list.Nodes[0].Status, f.list.Nodes[0].Summary, f.list.Nodes[0].Stage = proto.Status(end), end, "booted"
		}
	}
	return f
}

// retried is small with orders that no agent has carried out yet; that of n2 is at the fourth look, and fails no more.
func retried() *fake {
	f := small()
	n := f.node("n2")
	n.Orders = []proto.Pending{{Verb: proto.VerbForce, Step: "all", Since: before("10s")}, {Verb: proto.VerbRetry, Step: "otherpkgs", Since: before("5s"), Actor: "root (uid 0)"}}
	f.node("n3").Orders = []proto.Pending{{Verb: proto.VerbHold, Since: before("12s")}}
	f.node("n10").Orders = []proto.Pending{{Verb: proto.VerbAbort, Since: before("1h")}, {Verb: proto.VerbRetry}} // nobody is there to take it
	f.onStatus = func(f *fake, k int) {
		switch k {
		case 8:
			n := f.node("n2")
			n.Status, n.Summary, n.Waiting, n.Orders, n.Cause = proto.StatusPostinstall, "postinstall", false, nil, nil
		case 10:
			n := f.node("n2")
			n.Status, n.Summary = proto.StatusBooted, "booted"
		}
	}
	return f
}

// restarts is a collector that is away for two looks.
func restarts() *fake {
	f := progress("booted")
	f.onStatus = func(f *fake, n int) {
		switch n {
		case 2, 3, 4, 5: // a GET on a connection that was kept is repeated by net/http once
			panic(http.ErrAbortHandler)
		case 6:
			f.list.Nodes[0].Status, f.list.Nodes[0].Summary = proto.StatusBooted, "booted"
		}
	}
	return f
}

// follow is a log that grows by a line at each look, cut in the middle of a rune, until its install has ended.
func follow() *fake {
	f := small()
	n := f.node("n5")
	n.Waiting = false
	l := &f.installs["n5"][0]
	l.Install.Steps = []proto.StepInfo{{Name: "users", Phase: proto.PhasePost, Try: 1}}
	key := "n5/" + id3 + "/users.log"
	f.logs[key] = "one\ntw\xc3"
	f.onStatus = func(f *fake, n int) {
		switch n {
		case 2:
			f.logs[key] += "\xb6\nthree\x1b[0m\n"
		case 3:
			f.logs[key] += "four"
			f.node("n5").Status = proto.StatusBooted
		}
	}
	return f
}

// slowSince is a deadline whose wait is far longer than usual.
func slowSince(stage, since, in string) *proto.Deadline {
	d := deadSince(stage, since, in)
	d.Usual = &proto.Usual{MedianMS: 190_000, P90MS: 240_000, Installs: 50, SlowAt: before("4m40s")}
	return d
}
