// SPDX-License-Identifier: Apache-2.0

// Package registry is what the collector knows of every node and install, and the only place that decides about them:
// who is who, which install an agent speaks for, what a node gets to boot, which orders it has.
//
// Every decision is made by the store's writer, one after the other, against the model: the state with everything
// decided so far. A decision collects what it wants in a change, which is kept only if it succeeds. Readers see the
// published state, which follows the commits: nobody ever sees what is not on the disk.
//
// It must never decide anything outside of a change, nor let a superseded install change its node.
package registry
