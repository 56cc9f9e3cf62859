// SPDX-License-Identifier: Apache-2.0

// Package initrd holds what starts the agent in the initrds of the installers: scripts and configuration, each in the folder
// of what runs it. It is read by mkinitrd, and must never hold a decision: what the agent does is the agent's.
package initrd

import _ "embed"

// The files of the overlay, by where they go.
var (
	//go:embed dracut/90provost/start
	Start []byte // /usr/lib/provost/start, which all others call

	//go:embed dracut/90provost/provost-start.sh
	DracutHook []byte

	//go:embed debian-installer/startup
	DebianStartup []byte

	//go:embed debian-installer/finish-install
	DebianFinish []byte

	//go:embed initramfs-tools/provost
	InitramfsTools []byte

	//go:embed linuxrc/provost
	Linuxrc []byte
)
