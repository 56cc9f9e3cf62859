// SPDX-License-Identifier: Apache-2.0

package eventjson

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"provost/proto"
)

// Append appends an event as json.Marshal writes it. Its only error is a time that RFC 3339 has no place for.
func Append(b []byte, e *proto.Event) ([]byte, error) {
	b = appendText(append(b, `{"kind":`...), string(e.Kind))
	b = field(b, `,"source":`, string(e.Source))
	b = field(b, `,"install":`, e.Install)
	b = field(b, `,"journal":`, e.Journal)
	b = strconv.AppendUint(append(b, `,"seq":`...), e.Seq, 10)
	b, err := appendTime(append(b, `,"time":`...), e.Time)
	if err != nil {
		return nil, err
	}
	b = field(b, `,"boot":`, e.Boot)
	b = number(b, `,"offset_ms":`, e.OffsetMS)
	b = field(b, `,"phase":`, string(e.Phase))
	b = field(b, `,"step":`, e.Step)
	b = number(b, `,"try":`, int64(e.Try))
	b = field(b, `,"stage":`, e.Stage)
	b = flag(b, `,"failed":true`, e.Failed)
	b = field(b, `,"outcome":`, string(e.Outcome))
	b = number(b, `,"exit":`, int64(e.Exit))
	b = field(b, `,"signal":`, e.Signal)
	b = number(b, `,"duration_ms":`, e.DurationMS)
	b = field(b, `,"message":`, e.Message)
	if len(e.Tail) > 0 {
		b = append(b, `,"tail":[`...)
		for i, line := range e.Tail {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendText(b, line)
		}
		b = append(b, ']')
	}
	b = field(b, `,"log":`, e.Log)
	b = field(b, `,"cause":`, string(e.Cause))
	b = flag(b, `,"warning":true`, e.Warning)
	b = field(b, `,"topic":`, e.Topic)
	b = flag(b, `,"again":true`, e.Again)
	b = field(b, `,"order":`, e.Order)
	b = field(b, `,"order_id":`, e.OrderID)
	b = field(b, `,"plan":`, e.Plan)
	b = field(b, `,"actor":`, e.Actor)
	b = field(b, `,"then":`, string(e.Then))
	b = field(b, `,"change":`, e.Change)
	if e.Revision != 0 {
		b = strconv.AppendUint(append(b, `,"revision":`...), e.Revision, 10)
	}
	b = field(b, `,"node":`, e.Node)
	b = number(b, `,"attempt":`, int64(e.Attempt))
	if !e.At.IsZero() {
		if b, err = appendTime(append(b, `,"at":`...), e.At); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func field(b []byte, key, v string) []byte {
	if v == "" {
		return b
	}
	return appendText(append(b, key...), v)
}

func number(b []byte, key string, v int64) []byte {
	if v == 0 {
		return b
	}
	return strconv.AppendInt(append(b, key...), v, 10)
}

func flag(b []byte, text string, v bool) []byte {
	if !v {
		return b
	}
	return append(b, text...)
}

func appendTime(b []byte, t time.Time) ([]byte, error) {
	b, err := t.AppendText(append(b, '"'))
	if err != nil {
		return nil, fmt.Errorf("encoding a time: %w", err)
	}
	return append(b, '"'), nil
}

// appendText quotes a string; encoding/json does it where anything has to be escaped.
func appendText(b []byte, v string) []byte {
	for i := range len(v) {
		switch c := v[i]; {
		case c < ' ', c >= 0x7f, c == '"', c == '\\', c == '<', c == '>', c == '&':
			quoted, err := json.Marshal(v)
			if err != nil { // there is no such string
				quoted = []byte(`""`)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), v...), '"')
}
