// SPDX-License-Identifier: Apache-2.0

package probe

// StagesOf lists the stages of a family's table.
func StagesOf(family string) []string {
	var out []string
	for _, r := range New(family).table.stages {
		out = append(out, r.stage)
	}
	return out
}
