// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"provost/collector/internal/registry"
)

func TestEach(t *testing.T) {
	t.Parallel()
	seen := make([]atomic.Int32, 1000)
	if err := registry.Each(ctx, len(seen), func(i int) error { seen[i].Add(1); return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range seen {
		if n := seen[i].Load(); n != 1 {
			t.Errorf("%d was called %d times", i, n)
		}
	}
	if err := registry.Each(ctx, 0, func(int) error { return errors.New("called") }); err != nil {
		t.Error(err)
	}

	var calls atomic.Int32
	fails := errors.New("it fails")
	err := registry.Each(ctx, 1_000_000, func(i int) error {
		calls.Add(1)
		if i >= 10 {
			return fmt.Errorf("%d: %w", i, fails)
		}
		return nil
	})
	if n := calls.Load(); !errors.Is(err, fails) || n > 1000 {
		t.Errorf("Each = %v after %d calls", err, n)
	}

	gone, cancel := context.WithCancel(ctx)
	calls.Store(0)
	err = registry.Each(gone, 1_000_000, func(int) error {
		if calls.Add(1) == 10 {
			cancel()
		}
		return nil
	})
	if n := calls.Load(); !errors.Is(err, context.Canceled) || n > 1000 {
		t.Errorf("Each = %v after %d calls, and its context had ended", err, n)
	}
}
