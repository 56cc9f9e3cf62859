// SPDX-License-Identifier: Apache-2.0

package eventjson_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"provost/collector/internal/eventjson"
	"provost/proto"
)

// anyEvent fills every field that an event has, whatever they are.
func anyEvent(t *rapid.T) proto.Event {
	var e proto.Event
	v := reflect.ValueOf(&e).Elem()
	str := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "post", "ok", "step-07", "a\nb", "<&>", "\u2028\u00e9\x7f", "\xff\xfe", `"\`}))
	for i := range v.NumField() {
		switch f := v.Field(i); f.Interface().(type) {
		case time.Time:
			at := time.UnixMilli(rapid.Int64Range(-62135596800000, 253402300799000).Draw(t, "ms")).UTC()
			if rapid.Bool().Draw(t, "zero") {
				at = time.Time{}
			}
			f.Set(reflect.ValueOf(at))
		case []string:
			f.Set(reflect.ValueOf(rapid.SliceOfN(str, 0, 3).Draw(t, "list")))
		default:
			switch f.Kind() {
			case reflect.String:
				f.SetString(str.Draw(t, "text"))
			case reflect.Bool:
				f.SetBool(rapid.Bool().Draw(t, "bool"))
			case reflect.Int, reflect.Int64:
				f.SetInt(rapid.OneOf(rapid.Int64(), rapid.Just(int64(0))).Draw(t, "int"))
			case reflect.Uint64:
				f.SetUint(rapid.OneOf(rapid.Uint64(), rapid.Just(uint64(0))).Draw(t, "uint"))
			default:
				t.Fatalf("an event has a field of kind %s: Append and Decode have to learn it", f.Kind())
			}
		}
	}
	return e
}

func TestAppend(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyEvent(t)
		got, err := eventjson.Append([]byte("before"), &e)
		want, wantErr := json.Marshal(&e)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("Append(%+v) = %v, encoding/json says %v", e, err, wantErr)
		}
		if err == nil && string(got) != "before"+string(want) {
			t.Fatalf("Append = %s\nwant     %s", got, want)
		}
	})
	if _, err := eventjson.Append(nil, &proto.Event{Time: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)}); err == nil {
		t.Error("a year of five digits was encoded")
	}
}

// TestDecodeFields: every field is read, the usual ones without encoding/json.
func TestDecodeFields(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyEvent(t)
		raw, err := json.Marshal(&e)
		if err != nil {
			t.Fatal(err)
		}
		sameEvent(t, raw)
	})
	e := proto.Event{Kind: proto.KindStepEnd, Source: proto.SourceAgent, Seq: 7, Time: time.Date(2026, 11, 29, 1, 2, 3, 4e6, time.UTC), Phase: proto.PhasePost,
		Step: "x", Try: 1, Outcome: proto.OutcomeFailed, Exit: 4, Tail: []string{"a \"b\"", "\u00fc"}, Message: "no\tone",
		Revision: 12, Node: "n1", Attempt: 1, At: time.Date(2026, 11, 29, 1, 2, 3, 0, time.UTC), Topic: "t"}
	raw, err := json.Marshal(&e)
	if err != nil {
		t.Fatal(err)
	}
	if !eventjson.Fast(raw) {
		t.Errorf("%s needs encoding/json", raw)
	}
}

type fataler interface{ Fatalf(string, ...any) }

func sameEvent(t fataler, raw []byte) {
	var got, want proto.Event
	err, wantErr := eventjson.Decode(raw, &got), json.Unmarshal(raw, &want)
	if (err != nil) != (wantErr != nil) {
		t.Fatalf("Decode(%q) = %v, encoding/json says %v", raw, err, wantErr)
	}
	if d := cmp.Diff(want, got); err == nil && d != "" {
		t.Fatalf("Decode(%q) (-encoding/json +ours):\n%s", raw, d)
	}
}

var odd = []string{`{}`, ` { "kind" : "note" , "seq" : 1 } `, `{"seq":01}`, `{"seq":-1}`, `{"seq":1.0}`, `{"seq":1e3}`, `{"seq":99999999999999999999}`, `{"seq":null}`,
	`{"SEQ":2}`, `{"seq":1,"seq":2}`, `{"tail":[]}`, `{"tail":["a"],"tail":[]}`, `{"tail":null}`, `{"kind":"a\u0062"}`, `{"time":"2026-11-29T00:00:00Z"}`,
	`{"time":"2026-11-29T00:00:00,5Z"}`, `{"time":"x"}`, `{"offset_ms":- 1}`, `{"offset_ms":-}`, `{"failed":tru}`, `{"failed":truefalse}`, `{"try":1}x`, `{"try":1`, `{"message":"` + "\xff" + `"}`,
	`{"message":"\ud800"}`, `{"message":"\q"}`, "{\"message\":\"a\x01\"}", `{"message":"a\"}`, `{"node":"n1"}`, `{"nobody":{"a":[1,{"b":null}]}}`, `[]`, `"x"`, ``, `{,}`, `{"try":1,}`,
	`{"change":"c","order":"o","order_id":"i","plan":"p","actor":"a","again":true,"warning":false}`, "\ufeff{}"}

func FuzzDecode(f *testing.F) {
	for _, s := range odd {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { sameEvent(t, raw) })
}

func FuzzDecodeRequest(f *testing.F) {
	for _, s := range odd {
		f.Add([]byte(`{"schema":1,"install":"i","journal":"j","clock":{"boot":"b","offset_ms":5,"time":"2026-11-29T00:00:00Z"},"events":[` + s + `, {"a":[true,false,{}]}]}`))
		f.Add([]byte(s))
	}
	f.Add([]byte(`{"events":[],"clock":{},"run":"AAAA"}`))
	f.Add([]byte(`{"events":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}`))
	f.Add([]byte(`{"events":[1,-2,0,1.5,"\u00e9","\x"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var got, want proto.EventsRequest
		if !eventjson.DecodeRequest(body, &got) {
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("DecodeRequest(%q) gave up, and has set %+v", body, got)
			}
			return
		}
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatalf("DecodeRequest(%q) took what encoding/json refuses: %v", body, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("DecodeRequest(%q) (-encoding/json +ours):\n%s", body, d)
		}
	})
}

func TestDecodeRequestIsFast(t *testing.T) {
	e := `{"kind":"note","source":"agent","seq":1,"time":"2026-11-29T00:00:00Z","message":"` + strings.Repeat("x", 300) + `"}`
	body := []byte(`{"schema":1,"install":"i","journal":"j","clock":{"boot":"b","offset_ms":5,"time":"2026-11-29T00:00:00Z"},"events":[` + e + "," + e + `]}`)
	var q proto.EventsRequest
	if !eventjson.DecodeRequest(body, &q) || len(q.Events) != 2 || string(q.Events[1]) != e {
		t.Errorf("DecodeRequest(%s) = %+v", body, q)
	}
	if n := testing.AllocsPerRun(100, func() { eventjson.DecodeRequest(body, &q) }); n > 12 {
		t.Errorf("%.0f allocations for a request of two events", n)
	}
}
