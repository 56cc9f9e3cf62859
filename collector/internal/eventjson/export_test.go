// SPDX-License-Identifier: Apache-2.0

package eventjson

import "provost/proto"

// Fast reports whether an event is read without encoding/json.
func Fast(raw []byte) bool {
	s := scanner{b: raw}
	return s.event(&proto.Event{}) && s.end()
}
