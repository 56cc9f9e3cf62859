// SPDX-License-Identifier: Apache-2.0

// Package journey has tests in which the real agent, the real collector and the real command work together as processes, over
// many boots of a node: what a virtual machine would show too, in a hundredth of its time. A boot is a boot script that is
// fetched, an agent with another kernel command line and boot id, and a state directory that begins empty.
//
// It must not know more of the programs than their users do.
package journey
