// SPDX-License-Identifier: Apache-2.0

// Package sftp serves files to one client of the SSH File Transfer Protocol, version 3 (draft-ietf-secsh-filexfer-02):
// what scp and sftp of OpenSSH need to copy, list, rename and remove. pkg/sftp costs 1.3 MB of the agent's 9; this is
// 49 kB.
//
// The client is a person who has a root shell already: nothing is forbidden to him. It must never hold more than a few
// packets in memory, wait for anything but a disk (a pipe or a terminal is refused), or go on after a client that makes
// no sense. It runs in a process of its own, which ends with its session.
package sftp
