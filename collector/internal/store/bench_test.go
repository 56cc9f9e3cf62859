// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"provost/collector/internal/store"
)

// BenchmarkUpdate appends one event of 500 bytes per call.
func BenchmarkUpdate(b *testing.B) {
	for _, callers := range []int{1, 256, 2000} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s, err := store.Open(filepath.Join(b.TempDir(), "provost.db"), store.Options{Group: 4096})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			event := []byte(strings.Repeat("e", 500))
			b.SetParallelism(max(1, callers/2))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := s.Update(context.Background(), func(tx *store.Tx) error { tx.Append(event); return nil }); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkMany is a decision about 100,000 nodes: as many new keys in one transaction, in no order.
func BenchmarkMany(b *testing.B) {
	const keys = 100_000
	s, err := store.Open(filepath.Join(b.TempDir(), "provost.db"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for n := 0; b.Loop(); n++ {
		err := s.Update(b.Context(), func(tx *store.Tx) error {
			for _, i := range rand.Perm(keys) {
				tx.Put(store.Installs, fmt.Sprintf("%04d-%06d", n, i), make([]byte, 500))
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
