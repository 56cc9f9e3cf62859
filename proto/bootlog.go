// SPDX-License-Identifier: Apache-2.0

package proto

import (
	"regexp"
	"strings"
	"time"
)

// bootLogPart is what stands between a boot log's base and ".log": the time of its beginning, which orders them, and the
// beginning of the kernel's boot id, which keeps them apart where clocks do not.
var bootLogPart = regexp.MustCompile(`^-[0-9]{8}-[0-9]{6}-[0-9a-f]{8}$`)

// BootLog names a log that an installer begins anew with each of its boots: base "agent" or "installer". The collector keeps
// what it has of a log by offset, so that two boots must not share a name. begin is the node's own time.
func BootLog(base string, begin time.Time, boot string) string {
	id := strings.ReplaceAll(strings.ToLower(boot), "-", "") + "00000000"
	return base + begin.UTC().Format("-20060102-150405-") + id[:8] + ".log"
}

// IsBootLog reports whether name is a BootLog of base, of any boot.
func IsBootLog(name, base string) bool {
	stem, ok := strings.CutSuffix(name, ".log")
	part, of := strings.CutPrefix(stem, base)
	return ok && of && bootLogPart.MatchString(part)
}

// LastBootLog gives the last BootLog of base among names, in any order; "" if there is none.
func LastBootLog(names []string, base string) string {
	last := ""
	for _, n := range names {
		if IsBootLog(n, base) && n > last {
			last = n
		}
	}
	return last
}
