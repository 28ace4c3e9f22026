package broker

import (
	"math"
	"sync"
	"time"
)

// hearing says for how long a lane has not heard its probe although it could
// have: while the link's reader is held up by those it hands messages to, and
// while the whole node stands still, silence proves nothing. It goes by the
// monotonic clock, which nobody sets.
//
// Its methods may be called from several goroutines.
type hearing struct {
	mu   sync.Mutex
	at   time.Time // when the probe was heard, later by what does not count; zero: never
	busy time.Time // since when the reader hands on; zero: it is free
}

// heard takes in that the probe has come back.
func (h *hearing) heard() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = time.Now()
}

// handOn is called when the reader begins to hand on what it has read.
func (h *hearing) handOn(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy = now
}

// handedOn is called when the reader is free again.
func (h *hearing) handedOn() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.later(time.Since(h.busy))
	h.busy = time.Time{}
}

// stoodStill takes in that the node was not running for a while.
func (h *hearing) stoodStill(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.later(d)
}

// later has the silence begin later. h.mu is held.
func (h *hearing) later(d time.Duration) {
	if !h.at.IsZero() {
		h.at = h.at.Add(d)
	}
}

// silence returns for how long the probe has not been heard.
func (h *hearing) silence() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.at.IsZero():
		return math.MaxInt64
	case !h.busy.IsZero():
		return h.busy.Sub(h.at)
	}
	return time.Since(h.at)
}
