// SPDX-License-Identifier: Apache-2.0

package eventjson_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"provost/collector/internal/eventjson"
	"provost/proto"
)

// BenchmarkEvent is what an event costs here and with encoding/json: read, and written again.
func BenchmarkEvent(b *testing.B) {
	e := proto.Event{Kind: proto.KindStepEnd, Source: proto.SourceAgent, Seq: 7, Time: time.Now().UTC(), Boot: "0123abcd-0000-4000-8000-0123456789ab", OffsetMS: 59000,
		Phase: proto.PhasePost, Step: "step-07", Try: 1, Outcome: proto.OutcomeOK, DurationMS: 1532, Log: "step-07.log", Message: strings.Repeat("+ systemctl enable chronyd; ok  ", 8)}
	raw, err := json.Marshal(&e)
	if err != nil {
		b.Fatal(err)
	}
	for _, way := range []struct {
		name string
		fn   func() error
	}{
		{"ours", func() error {
			var e proto.Event
			err := eventjson.Decode(raw, &e)
			if err == nil {
				_, err = eventjson.Append(make([]byte, 0, 1024), &e)
			}
			return err
		}},
		{"encoding-json", func() error {
			var e proto.Event
			err := json.Unmarshal(raw, &e)
			if err == nil {
				_, err = json.Marshal(&e)
			}
			return err
		}},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if err := way.fn(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
