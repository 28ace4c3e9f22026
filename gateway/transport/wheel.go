package transport

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// wheelTick is the precision of every timeout of a connection.
	wheelTick = 100 * time.Millisecond
	// wheelSlots is a power of two; with 51 s for a turn, most timers fire in
	// the turn they were set in.
	wheelSlots = 512
)

// wheel is the one timer of all connections (a hashed timing wheel): pings,
// timeouts and expiries cost a list entry each, no timer and no goroutine.
type wheel struct {
	epoch  time.Time    // when it was made
	paused atomic.Int64 // nanoseconds since then in which the process was stopped
	now    atomic.Int32 // ticks since then, but for those in pauses

	// After a pause, as many more control frames than usual may have queued up.
	pardon      atomic.Int32 // frames
	pardonUntil atomic.Int32 // tick

	due   []*timed // of the present tick; owned by run
	mu    sync.Mutex
	slots [wheelSlots]*timed // heads of lists
}

// timed is a connection's place in the wheel.
type timed struct {
	fire       func() // called by the wheel's goroutine when due; must not block
	due        int32
	set        bool
	next, prev *timed
}

// ticks converts a duration, rounding up and adding the tick that has begun:
// nothing fires early.
func ticks(d time.Duration) int32 {
	return int32((d+wheelTick-1)/wheelTick) + 1
}

const (
	// pauseLeast is how many ticks must be missed at once for a pause: the process was
	// stopped, or its machine, and nobody could be heard.
	pauseLeast = 10
	// pardonTicks is how long what has queued up in a pause may take to be read.
	pardonTicks = 50
)

func newWheel() *wheel { return &wheel{epoch: time.Now()} }

// missed returns how many ticks have gone by that were not turned.
func (w *wheel) missed() int32 {
	return int32((time.Since(w.epoch)-time.Duration(w.paused.Load()))/wheelTick) - w.now.Load()
}

// allowance returns how many more control frames than usual may come at once. It may
// be asked before the wheel itself has noticed a pause.
func (w *wheel) allowance() int32 {
	if missed := w.missed(); missed > pauseLeast {
		return missed
	}
	if w.now.Load() > w.pardonUntil.Load() {
		return 0
	}
	return w.pardon.Load()
}

// run turns the wheel until ctx is done. Ticks that were missed are made up for, but
// not a pause: after one, everything has as long to go as before.
func (w *wheel) run(ctx context.Context) {
	t := time.NewTicker(wheelTick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		missed := w.missed()
		if missed > pauseLeast {
			w.pardon.Store(missed)
			w.pardonUntil.Store(w.now.Load() + pardonTicks)
			w.paused.Add(int64(missed) * int64(wheelTick))
			continue
		}
		for range missed {
			w.turn()
		}
	}
}

// turn advances by one tick and fires what is due.
func (w *wheel) turn() {
	now := w.now.Add(1)
	due := w.due[:0]
	w.mu.Lock()
	for t := w.slots[now%wheelSlots]; t != nil; {
		next := t.next
		if t.due <= now {
			w.unlink(t)
			due = append(due, t)
		}
		t = next
	}
	w.mu.Unlock()
	for _, t := range due {
		t.fire()
	}
	clear(due)
	w.due = due
}

// schedule has t fire at a tick instead of when it would have. The tick is asked for
// under the wheel's lock: of two who schedule at the same time, the later one knows
// what the earlier one knew.
func (w *wheel) schedule(t *timed, tick func() int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.set {
		w.unlink(t)
	}
	t.due = max(tick(), w.now.Load()+1)
	slot := &w.slots[t.due%wheelSlots]
	t.set, t.prev, t.next = true, nil, *slot
	if t.next != nil {
		t.next.prev = t
	}
	*slot = t
}

// cancel has t not fire. It may be about to.
func (w *wheel) cancel(t *timed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.set {
		w.unlink(t)
	}
}

// unlink takes t out of its list. w.mu is held.
func (w *wheel) unlink(t *timed) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		w.slots[t.due%wheelSlots] = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.set, t.next, t.prev = false, nil, nil
}
