package session

import (
	"context"
	"sync"
	"time"
)

const (
	backoffFirst = 50 * time.Millisecond
	backoffLast  = time.Second // how late Redis's return is noticed at most
)

// backoff is the pause before the next attempt: longer each time.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, backoffFirst), backoffLast)
	return b.last
}

func (b *backoff) reset() { b.last = 0 }

// warnEvery is how often a failure that repeats itself is logged: what is wrong may
// have changed meanwhile.
const warnEvery = time.Minute

// warning is of something that may fail again and again. Its method may be called
// from several goroutines.
type warning struct {
	mu   sync.Mutex
	last time.Time // guarded by mu
}

// due reports whether it is to be logged now.
func (w *warning) due() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.last.IsZero() && time.Since(w.last) < warnEvery {
		return false
	}
	w.last = time.Now()
	return true
}

// sleep reports whether d passed before ctx was done.
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
