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
func (b Backoff) delay(n int) time.Duration {
	bound := b.Max
	if shifted := b.Min << min(n, 32); shifted > 0 && shifted < bound && n < 32 {
		bound = shifted
	}
	return rand.N(bound + 1)
}

// goodConnection is how long a connection must have lasted to be a good one.
const goodConnection = 10 * time.Second

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
