// SPDX-License-Identifier: Apache-2.0

package profile

// Recall gives a profile of which only KernelArgs may be used: that of an install that was ordered earlier, from the
// name, args and vars that were kept of it. An edit of the profile since then does not matter.
func Recall(name, args string, vars map[string]string) (*Profile, error) {
	t, err := parseArgs(name, args)
	if err != nil {
		return nil, err
	}
	return &Profile{Name: name, Args: args, Vars: vars, args: t}, nil
}
