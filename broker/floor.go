package broker

import "sync"

// floor is the newest id that was seen on a lane. Every new id is asked to come
// after it: a Redis that took over without the last messages, or with a slower
// clock, would issue ids again that clients already have.
//
// Its methods may be called from several goroutines.
type floor struct {
	mu sync.Mutex
	id ID
}

// raise takes in an id that Redis has issued; never one that a client names.
func (f *floor) raise(id ID) {
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
