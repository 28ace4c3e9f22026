package broker

import "sync/atomic"

// Bounds of what is queued while subscriptions are not live, for one of them and
// for all together, as the memory it takes. Beyond them a subscription's queue is
// dropped: the stream has it all.
const (
	queueMessages = 1024
	queueBytes    = 4 << 20
	backlogBytes  = 64 << 20
	messageBytes  = 192 // of a queued message beside its payload, and its share of the slice
)

// backlog counts what all subscriptions of a Broker have queued. Its methods may
// be called from several goroutines.
type backlog struct{ bytes atomic.Int64 }

// take reports whether there is room for n bytes more, and takes it.
func (b *backlog) take(n int) bool {
	if b.bytes.Add(int64(n)) <= backlogBytes {
		return true
	}
	b.bytes.Add(-int64(n))
	return false
}

func (b *backlog) give(n int) { b.bytes.Add(-int64(n)) }

// queue holds the messages of one subscription until it is live. The
// subscription's lock guards it.
type queue struct {
	backlog  *backlog
	messages []Message
	bytes    int
	overflow bool // it was dropped, and stays empty until the stream was read
}

func cost(m Message) int { return len(m.Payload) + messageBytes }

func (q *queue) add(m Message) {
	n := cost(m)
	switch {
	case q.overflow:
	case len(q.messages) == queueMessages, q.bytes+n > queueBytes, !q.backlog.take(n):
		q.drop()
		q.overflow = true
	default:
		q.messages = append(q.messages, m)
		q.bytes += n
	}
}

// skip removes the first n messages.
func (q *queue) skip(n int) {
	if n == len(q.messages) {
		q.drop()
		return
	}
	for _, m := range q.messages[:n] {
		q.bytes -= cost(m)
		q.backlog.give(cost(m))
	}
	clear(q.messages[:n]) // let the payloads go
	q.messages = q.messages[n:]
}

// drop removes all.
func (q *queue) drop() {
	q.backlog.give(q.bytes)
	q.messages, q.bytes = nil, 0
}
