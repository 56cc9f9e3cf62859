// SPDX-License-Identifier: Apache-2.0

package probe

import "time"

// Generic is the family of which nothing is known.
const Generic = "generic"

// waitFile is how an operator at the node stops any install (Stacki's convention); run honours it.
const waitFile = "/tmp/wait"

// Words of Known that stand in no sequence: they say how it is, not how far.
const (
	stageWait    = "wait"
	stageStalled = "stalled"
)

// waiting is in every family's table, and is all of the generic one's.
var waiting = row{stageWait, []sign{{path: waitFile, empty: true}}}

// tables is what is known of each family. The first whose marks are there is taken: debian-installer before the others,
// since it has the smallest system around it.
var tables = []table{debian, suse, ubuntu, redhat}

// Targets are the places where the families' installers mount the system that they install.
func Targets() []string {
	var out []string
	for _, t := range tables {
		for _, r := range t.stages {
			for _, s := range r.signs {
				if s.mount != "" {
					out = append(out, s.mount)
				}
			}
		}
	}
	return out
}

const diSyslog = "/var/log/syslog"

// debian is debian-installer. Its main-menu selects an item and then runs what that one depends on: "Menu item
// 'finish-install' selected" may stand before the first package is unpacked, so that only what an item itself says counts.
var debian = table{
	family: "debian",
	marks:  [][]string{{"/usr/share/debconf", "/bin/main-menu"}, {"/usr/share/debconf", "/usr/bin/main-menu"}},
	logs:   []logFile{{diSyslog, syslogLine, debconfTalk}},
	stages: []row{
		{"installer-started", []sign{process("main-menu"), line(diSyslog, "main-menu: INFO: Menu item '")}},
		{"ssh-open", []sign{port(22)}}, // network-console
		{"autoinst-present", []sign{line(diSyslog, "preseed: successfully loaded preseed file")}},
		{"partitioned", []sign{mount("/target")}},
		{"packages-started", []sign{process("debootstrap"), line(diSyslog, "debootstrap: "), line(diSyslog, "", "/usr/lib/base-installer.d/")}},
		{"packages-done", []sign{line(diSyslog, "", "/usr/lib/finish-install.d/")}},
		{"rebooting", []sign{line(diSyslog, "finish-install: ", "/usr/lib/finish-install.d/99reboot")}},
	},
	failures: []sign{
		line(diSyslog, "main-menu: WARNING **: Configuring '", "' failed with error code"),
		line(diSyslog, "main-menu: WARNING **: Menu item '", "' failed"),
		line(diSyslog, "anna: WARNING **: package retrieval failed"),
	},
	errors: []string{"WARNING **: ", ": error: ", ": E: ", "exiting on error", "debootstrap: W: ", "tasksel: "},
	// With DEBCONF_DEBUG=developer on the kernel command line cdebconf logs what it is asked (debconf-devel(7)), and nothing
	// is answered after the last GO. A screen that nobody sees is never answered.
	stall: stall{diSyslog, "--> GO", time.Minute, debconfQuestions},
}

const (
	anacondaLog  = "/tmp/anaconda.log"
	packagingLog = "/tmp/packaging.log"
	programLog   = "/tmp/program.log"
)

// redhat is Anaconda. The target is /mnt/sysroot, on RHEL 7 /mnt/sysimage. Lines are "TIME LEVEL PREFIX: TEXT"
// (anaconda_logging.py); what a script of the kickstart ends with is logged as ERR and ends the install only with
// --erroronfail, which leaves an exception report as everything fatal does.
var redhat = table{
	family: "redhat",
	marks:  [][]string{{"/usr/sbin/anaconda"}, {"/run/anaconda"}},
	logs:   []logFile{{anacondaLog, timedLine, nil}, {packagingLog, timedLine, nil}, {programLog, timedLine, nil}},
	stages: []row{
		{"installer-started", []sign{process("anaconda"), file(anacondaLog)}},
		{"ssh-open", []sign{port(22)}}, // inst.sshd
		{"autoinst-present", []sign{file("/run/install/ks.cfg")}},
		{"partitioned", []sign{mount("/mnt/sysroot"), mount("/mnt/sysimage")}},
		{"packages-started", []sign{
			file("/mnt/sysroot/var/lib/rpm"), file("/mnt/sysimage/var/lib/rpm"), file("/mnt/sysroot/usr/lib/sysimage/rpm"),
			line(anacondaLog, "", "Task started: Install the payload"), line(anacondaLog, "", "Starting package installation process"),
		}},
		{"packages-done", []sign{
			line(anacondaLog, "", "Task completed: Install the payload"), line(anacondaLog, "", "Task started: Install the bootloader"),
			line(anacondaLog, "", ": Installing boot loader"),
		}},
	},
	failures: []sign{
		report("/tmp/anaconda-tb-*", exception),
		// the end of every message after which a kickstart install goes no further (errors.py): a package, the payload, a
		// script with --erroronfail
		line(anacondaLog, "", "fatal error and installation will be aborted"),
		line(anacondaLog, "CRT ", "Traceback (most recent call last)").then(traceback),
		line(anacondaLog, "CRIT ", "Traceback (most recent call last)").then(traceback),
	},
	errors: []string{"ERR ", "ERROR ", "CRT ", "CRIT ", "The following error occurred", "There was an error"},
}

const (
	y2log        = "/var/log/YaST2/y2log"
	ludicrousLog = "/var/log/ludicrous-client-debug.log"
)

// suse is AutoYaST, also as Stacki drives it. Levels of y2log are 3 for an error, 5 for an internal one.
var suse = table{
	family: "suse",
	marks:  [][]string{{"/usr/lib/YaST2"}, {"/etc/YaST2"}},
	logs:   []logFile{{y2log, y2Line, nil}},
	stages: []row{
		{"installer-started", []sign{process("y2base"), process("y2start"), file(y2log)}},
		{"ssh-open", []sign{port(22), port(2200)}},
		{"autoinst-present", []sign{file("/tmp/profile/autoinst.xml")}},
		{"partitioned", []sign{mount("/mnt")}},
		{"packages-started", []sign{file("/mnt/var/lib/rpm"), file("/mnt/usr/lib/sysimage/rpm"), file(ludicrousLog)}},
		{"packages-done", []sign{line(y2log, "", "Call client inst_finish"), line(y2log, "", "starting autoinst_scripts1_finish")}},
	},
	failures: []sign{
		line(y2log, "<5> "),
		line(y2log, "<3> ", "Client ", " failed with '"),
	},
	errors: []string{"<3> ", "<5> "},
	// A dialog with a button is open and nobody presses it.
	stall: stall{y2log, "YPushButton.cc", 120 * time.Second, nil},
}

const (
	subiquityLog = "/var/log/installer/subiquity-server-debug.log"
	curtinLog    = "/var/log/installer/curtin-install.log"
)

// ubuntu is subiquity, which runs curtin. Lines are "DATE TIME LEVEL LOGGER:LINE start|finish: CONTEXT: …".
var ubuntu = table{
	family: "ubuntu",
	marks:  [][]string{{"/snap/subiquity"}, {"/snap/ubuntu-desktop-bootstrap"}, {"/var/lib/snapd/seed/snaps/subiquity_*.snap"}},
	logs:   []logFile{{subiquityLog, timedLine, nil}, {curtinLog, plain, nil}},
	stages: []row{
		{"installer-started", []sign{args("subiquity.cmd.server"), file(subiquityLog)}},
		{"autoinst-present", []sign{
			file("/autoinstall.yaml"), file("/run/subiquity/cloud.autoinstall.yaml"), file("/var/log/installer/autoinstall-user-data"),
		}},
		{"partitioned", []sign{mount("/target"), line(subiquityLog, "", "cmd-install/stage-partitioning: SUCCESS")}},
		{"packages-started", []sign{line(subiquityLog, "", "start: subiquity/Install/install/", "cmd-install/stage-extract")}},
		{"packages-done", []sign{line(subiquityLog, "", "finish: subiquity/Install/install: SUCCESS"), line(subiquityLog, "", "start: subiquity/Late/run")}},
	},
	failures: []sign{
		line(curtinLog, "curtin: Installation failed").then(command),
		line(subiquityLog, "", "finish: subiquity/Install/install: FAIL"),
		line(subiquityLog, "ERROR ", "top level error").then(traceback),
	},
	errors: []string{"ERROR ", "curtin: Installation failed", "Command: ", "Exit code: ", "Reason: ", "Stderr: ", ": FAIL: ", "Unexpected error"},
}
