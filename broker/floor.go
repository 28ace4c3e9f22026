package broker

import (
	"sync"
	"time"
)

// floor is the newest id that was seen on a lane. Every new id is asked to come
// after it: a Redis that took over without the last messages, or with a slower
// clock, would issue ids again that clients already have.
//
// Its methods may be called from several goroutines.
type floor struct {
	mu sync.Mutex
	id ID
}

// floorAhead is how far ahead of Redis's clock an id may be and still count: more
// than servers' clocks differ. Who can publish in Redis by hand cannot push all
// ids to the end of time.
const floorAhead = time.Hour

// raise takes in an id that Redis has issued; never one that a client names. Now
// is Redis's time.
func (f *floor) raise(id ID, now time.Time) {
	if id.MS > uint64(now.Add(floorAhead).UnixMilli()) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if id.Compare(f.id) > 0 {
		f.id = id
	}
}

func (f *floor) get() ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.id
}
