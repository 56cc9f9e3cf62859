// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"provost/proto/prototest/agentsuite"
)

// suiteCommand is this agent for the suite: watch reports, run carries out the steps, both with the bounds that they have.
const suiteCommand = `
export ` + hastyEnv + `=1
set -- --state "$PROVOST_SUITE_STATE" --url "$PROVOST_SUITE_URL" --ca "$PROVOST_SUITE_CA" --token-file "$PROVOST_SUITE_TOKEN_FILE"
if [ "$PROVOST_SUITE_DO" = run ]; then
	(
		provost-agent run --phase pre --plan-wait "$PROVOST_SUITE_PLAN_WAIT" "$@"
		echo $? > "$PROVOST_SUITE_DONE.new"
		mv "$PROVOST_SUITE_DONE.new" "$PROVOST_SUITE_DONE"
	) &
fi
exec provost-agent watch "$@"
`

// TestAgentSuite: nothing that a collector or a network does changes what the steps do, or loses what they did.
func TestAgentSuite(t *testing.T) {
	t.Parallel()
	agentsuite.Run(t, suiteCommand)
}
