// SPDX-License-Identifier: Apache-2.0

// Package answer makes the answer files of installers: kickstart, AutoYaST, preseed and autoinstall. They are templates
// with a node's variables and the hooks that call the agent.
//
// Nothing that stands in a variable may change the structure of a file. So a template can put out a value only through a
// function that quotes it for its place, which is checked when the template is read, and no function opens a file, asks
// the network or runs a program. A secret must never be part of an error or of a masked file.
package answer
