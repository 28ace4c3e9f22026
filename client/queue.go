package client

import (
	"errors"
	"sync"
	"time"
)

const (
	// queueEvents and queueBytes are how much may wait for a handler. Then reading
	// waits, and behind it the gateway.
	queueEvents = 1024
	queueBytes  = 4 << 20
	// queueLimit is how much may wait while somebody waits for an answer, which
	// may be a handler, and behind all that the answer.
	queueLimit = 64 << 20
	// eventCost is what an event takes in memory, besides the frame it is from.
	eventCost = 512
	// queuePatience is how long a handler may take for one event, at the limit,
	// before it is taken for one that waits for an answer in vain.
	queuePatience = 5 * time.Second
)

// ErrBehind is the end of a request for whose answer nothing could be read any
// more: 64 MiB of events wait for the handler, which has done nothing for 5
// seconds, perhaps because it waits for just this answer. Whether the gateway has
// done what was asked is not known.
var ErrBehind = errors.New("client: handlers are too far behind to wait for an answer")

// queue is what is to be told to handlers. One goroutine calls them, so that
// they may use the client and wait for its answers.
type queue struct {
	mu      sync.Mutex // guards what follows
	change  sync.Cond
	events  []event
	bytes   int
	handled uint64        // events
	waiting int           // callers of the client who wait for the gateway
	jam     chan struct{} // closed and replaced when these are to wait no longer
	closed  bool          // nothing more comes
	ending  bool          // nobody waits for a handler any more
	dropped bool          // what is left is not handled
}

// event is a call of a handler.
type event struct {
	call func()
	size int // of the frame it is from
}

func (q *queue) init() {
	q.change.L = &q.mu
	q.jam = make(chan struct{})
}

// add queues an event. It waits while too much waits already.
func (q *queue) add(e event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.full() && !q.ending {
		q.awaitChange()
	}
	if q.full() {
		return // it is over, and there are more than it would get through
	}
	q.events = append(q.events, e)
	q.bytes += e.size + eventCost
	q.change.Broadcast()
}

func (q *queue) full() bool {
	if q.waiting > 0 {
		return q.bytes >= queueLimit
	}
	return q.bytes >= queueBytes || len(q.events) >= queueEvents
}

// awaitChange waits until something has changed. If nothing does, those who wait
// for the gateway are told to give up: one of them may be the handler.
func (q *queue) awaitChange() {
	handled := q.handled
	late := time.AfterFunc(queuePatience, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.handled == handled && q.bytes >= queueLimit {
			close(q.jam)
			q.jam = make(chan struct{})
		}
	})
	defer late.Stop()
	q.change.Wait()
}

// wait says that somebody waits for the gateway, until done is called, and returns
// a channel that is closed if it is in vain.
func (q *queue) wait() (jam <-chan struct{}, done func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting++
	q.change.Broadcast()
	return q.jam, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.waiting--
	}
}

// run calls what is queued until close, and then what is left.
func (q *queue) run() {
	for {
		e, ok := q.next()
		if !ok {
			return
		}
		e.call()
	}
}

func (q *queue) next() (event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.events) == 0 && !q.closed {
		q.change.Wait()
	}
	if len(q.events) == 0 || q.dropped {
		return event{}, false
	}
	e := q.events[0]
	q.events[0] = event{}
	q.events = q.events[1:]
	q.bytes -= e.size + eventCost
	q.handled++
	q.change.Broadcast()
	return e, true
}

// end has nobody wait for a handler any more.
func (q *queue) end() { q.set(&q.ending) }

// close ends run, after what is queued.
func (q *queue) close() { q.set(&q.closed) }

// drop ends run, after the handler that is at work.
func (q *queue) drop() { q.set(&q.dropped) }

func (q *queue) set(what *bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	*what = true
	q.change.Broadcast()
}
