package gateway

import (
	"sync"
	"time"
)

// refusals are what was refused and not logged yet.
type refusals struct {
	mu     sync.Mutex // guards what follows
	count  int
	logged time.Time
}

// add counts one, and returns how many are to be logged, if they are now: once in every
// at most.
func (r *refusals) add(now time.Time, every time.Duration) (count int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	if !r.logged.IsZero() && now.Sub(r.logged) < every {
		return 0, false
	}
	count, r.count, r.logged = r.count, 0, now
	return count, true
}
