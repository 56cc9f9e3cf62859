# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Before the disks are touched: the agent, if it did not come with the initrd's hook, and the steps of phase pre.
agent=/run/provost/bin/provost-agent
$agent watch --detach
$agent report installer-started
$agent run --phase pre || task_error 900
