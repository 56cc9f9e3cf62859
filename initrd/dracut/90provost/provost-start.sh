#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# dracut sources this in two hooks (dracut.modules(7)): initqueue/online, once for each network interface that is up, and
# pre-pivot, for a system whose network comes up after the initrd only. A hook must never exit: it would end dracut's shell.
/usr/lib/provost/start </dev/null || echo 'provost: the agent does not run: its message is above' >/dev/console
return 0
