// SPDX-License-Identifier: Apache-2.0

// Package evidence is what a frontend's own logs say about nodes that boot over the network: parsers of the lines of
// DHCP, TFTP and web servers, the mapping of what they name to nodes, followers that lose no line, and the timeline
// that is drawn from whole files when there is no collector.
//
// Everything it reads was written by machines that nobody vouches for. No line may stop it, make it panic, or cost more
// than time linear in its length; texts are kept as they came and must be escaped by whoever shows them. It must never
// change a log, never decide that a node has booted or failed, and never name a node by anything but the resolver's
// word, a MAC address, or a lease.
package evidence
