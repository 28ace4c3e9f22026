package redistest

import (
	"sync"
	"testing"
	"time"
)

// TimeStolen watches the clock while a test runs. The function it returns says how long
// the process has been kept from running until now: a bound that is a promise holds on a
// machine that does run, and a test adds to it what it was not given.
func TimeStolen(t testing.TB) func() time.Duration {
	const tick = 5 * time.Millisecond
	var mu sync.Mutex // guards what follows
	seen, lost := time.Now(), time.Duration(0)
	look := func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		lost += max(0, now.Sub(seen)-tick)
		seen = now
		return lost
	}
	go func() {
		every := time.NewTicker(tick)
		defer every.Stop()
		for {
			select {
			case <-t.Context().Done():
				return
			case <-every.C:
				look()
			}
		}
	}()
	return look
}
