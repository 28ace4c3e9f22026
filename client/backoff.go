package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff says how long is waited before the nth attempt after a failure: a
// random time up to Min doubled n times, and no longer than Max ("full jitter",
// AWS Architecture Blog, 2015). It begins anew after a good connection.
type Backoff struct{ Min, Max time.Duration }

// delay returns the wait before attempt n, from 0.
func (b Backoff) delay(n int) time.Duration { return rand.N(b.bound(n) + 1) }

// bound returns the longest wait before attempt n. A connection that has lasted
// longer than that was a good one.
func (b Backoff) bound(n int) time.Duration {
	bound := b.Min
	for range n {
		if bound *= 2; bound >= b.Max {
			return b.Max
		}
	}
	return min(bound, b.Max)
}

// sleep waits, and reports whether ctx lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
