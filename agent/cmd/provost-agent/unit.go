// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Where systemd looks for units that last as long as the boot. /run is the one directory of an initrd that the system
// after switch_root has, too.
const (
	unitDir  = "/run/systemd/system"
	unitName = "provost-agent.service"
)

// unitText starts watch in an initrd and again in the system after it. systemd ends at switch_root what an initrd has
// started, even what the isolation of initrd-switch-root.target spared: IgnoreOnIsolate keeps it until that moment, and the
// failure that this end counts as brings it back. It does not come back after 0, when all is delivered, nor where a
// setting is wrong. There is no limit of starts: 2 s between them are more than systemd's 5 in 10 s.
const unitText = `# Written by provost-agent watch --unit.
[Unit]
Description=Provost: journal and reports of the install
DefaultDependencies=no
IgnoreOnIsolate=yes

[Service]
Type=simple
ExecStart=%s
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=64 78
KillMode=process
TimeoutStopSec=30
Delegate=yes
`

// writeUnit makes the unit that runs program with args, wanted by what every systemd boots through.
func writeUnit(program string, args []string) error {
	wants := filepath.Join(unitDir, "basic.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return fmt.Errorf("making the directory of units: %w", err)
	}
	words := []string{program}
	for _, a := range args {
		words = append(words, unitWord(a))
	}
	path := filepath.Join(unitDir, unitName)
	tmp := path + ".new" // no name of a unit: systemd passes over it
	if err := os.WriteFile(tmp, fmt.Appendf(nil, unitText, strings.Join(words, " ")), 0o644); err != nil {
		return fmt.Errorf("writing the unit: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("writing the unit: %w", err)
	}
	if err := os.Symlink("../"+unitName, filepath.Join(wants, unitName)); err != nil && !os.IsExist(err) {
		return fmt.Errorf("having the unit started: %w", err)
	}
	return nil
}

// unitWord quotes an argument as systemd.service(5) reads it: double quotes, and "$" and "%" twice.
func unitWord(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `$$`, `%`, `%%`, "\n", `\n`).Replace(s) + `"`
}
