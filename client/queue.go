package client

import (
	"crypto/rand"
	"encoding/base64"
	"sync"
)

// queueBound is how many events may wait for a handler. Then reading waits, and
// behind it the gateway, which in the end gives the connection up (4008).
const queueBound = 1024

// queue is what is to be told to handlers. One goroutine calls them, so that
// they may use the client and wait for its answers.
type queue struct {
	mu     sync.Mutex
	change sync.Cond
	events []func()
	closed bool
}

func (q *queue) init() { q.change.L = &q.mu }

// add queues an event; it waits while the queue is full.
func (q *queue) add(event func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.events) >= queueBound && !q.closed {
		q.change.Wait()
	}
	q.events = append(q.events, event)
	q.change.Broadcast()
}

// run calls what is queued until close, and then what is left.
func (q *queue) run() {
	for {
		q.mu.Lock()
		for len(q.events) == 0 && !q.closed {
			q.change.Wait()
		}
		events := q.events
		q.events = nil
		q.change.Broadcast()
		q.mu.Unlock()
		if len(events) == 0 {
			return
		}
		for _, event := range events {
			event()
		}
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.change.Broadcast()
}

// random returns text that nobody else has.
func random() string {
	b := make([]byte, 9)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}
