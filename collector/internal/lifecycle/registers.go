// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// Registers are a small map, in JSON too: its entries by key, in a slice. A fold has some dozens of stages and steps, and there
// are ten thousand folds: maps would take three times the room.
type Registers[V any] []Entry[V]

// Entry is a value with its key.
type Entry[V any] struct {
	Key   string
	Value V
}

func (r Registers[V]) find(key string) (int, bool) {
	return slices.BinarySearchFunc(r, key, func(e Entry[V], key string) int { return strings.Compare(e.Key, key) })
}

// Get gives the value of a key, the zero one if there is none.
func (r Registers[V]) Get(key string) (v V, ok bool) {
	i, ok := r.find(key)
	if ok {
		v = r[i].Value
	}
	return v, ok
}

// Put sets the value of a key.
func (r *Registers[V]) Put(key string, v V) {
	i, ok := r.find(key)
	if ok {
		(*r)[i].Value = v
		return
	}
	if len(*r) == cap(*r) { // by a few: append would double it
		*r = append(make(Registers[V], 0, len(*r)+4), *r...)
	}
	*r = slices.Insert(*r, i, Entry[V]{key, v})
}

// MarshalJSON gives an object, as of a map.
func (r Registers[V]) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for i, e := range r {
		b.WriteByte("{,"[min(i, 1)])
		if err := enc.Encode(e.Key); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := enc.Encode(e.Value); err != nil {
			return nil, err
		}
	}
	if len(r) == 0 {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads one.
func (r *Registers[V]) UnmarshalJSON(b []byte) error {
	var m map[string]V
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*r = make(Registers[V], 0, len(m))
	for key, v := range m {
		*r = append(*r, Entry[V]{key, v})
	}
	slices.SortFunc(*r, func(a, b Entry[V]) int { return strings.Compare(a.Key, b.Key) })
	return nil
}
