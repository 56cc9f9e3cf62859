// SPDX-License-Identifier: Apache-2.0

// Package boot answers machines that start from the network: it renders their boot scripts and serves kernels, initrds
// and other images, over plain HTTP.
//
// What a machine gets is decided elsewhere, by a Decider. The package must never decide by itself that an installer is
// booted, serve a file from outside of the images directory, or let a word of its data become a command of a script.
package boot
