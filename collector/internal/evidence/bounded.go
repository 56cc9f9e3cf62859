// SPDX-License-Identifier: Apache-2.0

package evidence

// bounded is a map that forgets its oldest keys, so that what hostile lines make it hold stays small.
type bounded[K comparable, V any] struct {
	max   int
	m     map[K]V
	order []K // ring, once it is full
	next  int
}

func newBounded[K comparable, V any](max int) *bounded[K, V] {
	return &bounded[K, V]{max: max, m: map[K]V{}}
}

func (b *bounded[K, V]) get(k K) (V, bool) {
	v, ok := b.m[k]
	return v, ok
}

// put sets k. A key that is set again keeps its age. It gives the key that it forgot for it, if any.
func (b *bounded[K, V]) put(k K, v V) (old K, evicted bool) {
	if _, ok := b.m[k]; !ok {
		if len(b.order) < b.max {
			b.order = append(b.order, k)
		} else {
			old, evicted = b.order[b.next], true
			delete(b.m, old)
			b.order[b.next] = k
			b.next = (b.next + 1) % b.max
		}
	}
	b.m[k] = v
	return old, evicted
}
