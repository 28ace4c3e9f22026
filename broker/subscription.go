package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Sink receives what arrives on one channel. Its methods are called one at a
// time, in order, must not block and must not call the Subscription.
type Sink interface {
	// Deliver takes the next message.
	Deliver(Message)
	// Reset says that messages are gone which nobody can bring back. What is
	// delivered next follows on last, which may be lower than the last id
	// delivered before.
	Reset(last ID)
}

// Doubter is a Sink that wants to know when what happened on the channel may
// have been lost, Redis's data among it. Nothing need have been. It is called
// like the methods of Sink.
type Doubter interface{ Doubted() }

// state says what a subscription does with a message from the link.
type state int

const (
	pending state = iota // not confirmed, or its channel's head not known yet: queue
	live                 // deliver, if it follows on the last one
	suspect              // something may be missing: queue until that is known
	closed               // drop
)

// Subscription is this node's interest in a channel.
type Subscription struct {
	name    string
	history bool
	sink    Sink
	lane    *lane

	// Guarded by lane.mu.
	sent      bool // SUBSCRIBE is on its way or confirmed, on the present link
	confirmed bool // it is confirmed

	mu        sync.Mutex // guards what follows; taken before any lock of the sink
	state     state
	ready     chan struct{} // closed when first live; then nil
	repairing bool
	last      ID // of the last message delivered
	queue     queue
	again     bool // doubt came up since Redis was last asked
}

// ErrSubscribed is returned by Subscribe for a channel that has a subscription.
var ErrSubscribed = errors.New("broker: channel is subscribed to already")

// Subscribe makes the node receive a channel. It returns once Redis has
// confirmed and the channel's last id is known; from then on no message is
// missed. A node has one subscription per channel at a time.
func (b *Broker) Subscribe(ctx context.Context, channel string, history bool, sink Sink) (*Subscription, error) {
	l := b.lane(channel)
	ready := make(chan struct{})
	s := &Subscription{name: channel, history: history, sink: sink, lane: l, ready: ready, queue: queue{backlog: &b.backlog}}
	if !l.add(s) {
		return nil, ErrSubscribed
	}
	select {
	case <-ready:
		return s, nil
	case <-ctx.Done():
		s.Close()
		return nil, fmt.Errorf("broker: subscribe: %w", ctx.Err())
	}
}

// Close ends the subscription. The sink gets nothing more once it has returned.
func (s *Subscription) Close() {
	s.lane.remove(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = closed
	s.queue.drop()
}

// Last returns the id of the last message that was delivered, or that was there
// before the subscription.
func (s *Subscription) Last() ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// receive takes a message from the link.
func (s *Subscription) receive(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state == closed:
	case m.ID.IsZero() || !s.history:
		s.sink.Deliver(m) // live only: nothing to be in order with
	case s.state != live:
		s.queue.add(m)
	case m.ID.Compare(s.last) <= 0: // a repair was faster
	case m.Prev == s.last:
		s.deliver(m)
	default:
		s.queue.add(m)
		s.startRepair(repairGap)
	}
}

// deliver hands a message to the sink. s.mu is held.
func (s *Subscription) deliver(m Message) {
	s.last = m.ID
	s.sink.Deliver(m)
}

// reset gives up what lies between the last message and last. s.mu is held.
func (s *Subscription) reset(last ID) {
	s.last = last
	s.lane.b.metrics.resets.Inc()
	s.sink.Reset(last)
}

// drain delivers what is queued as far as it follows on the last message, and
// reports whether that was all. s.mu is held.
func (s *Subscription) drain() bool {
	for i, m := range s.queue.messages {
		switch {
		case m.ID.Compare(s.last) <= 0:
		case m.Prev == s.last:
			s.deliver(m)
		default:
			s.queue.skip(i)
			return false
		}
	}
	s.queue.drop()
	return !s.queue.overflow
}

// resetToBase gives up what lies before the base, if the last message does: of
// that nobody can tell what is gone. s.mu is held.
func (s *Subscription) resetToBase() {
	if _, base := s.lane.life.known(); s.history && s.last.Compare(base) < 0 {
		s.reset(base)
	}
}

// doubt stops delivery until settle has compared the channel with Redis.
func (s *Subscription) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == live {
		s.state = suspect
	}
	s.again = true
	if d, ok := s.sink.(Doubter); ok && s.state != pending {
		d.Doubted()
	}
}

// ask is called before Redis is asked where the channel stands, for settle: an
// answer to a question from before a doubt does not remove it.
func (s *Subscription) ask() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.repairing {
		s.again = false
	}
}

// settle takes in where the channel stands in Redis, read after the link had
// confirmed the subscription.
func (s *Subscription) settle(h head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.again: // queued once more
		return
	case s.state == pending:
		s.last = h.id
		close(s.ready) // who waits sees the state once s.mu is free
		s.ready = nil
		s.state = suspect
	case s.state != suspect || s.repairing:
		return
	default:
		s.resetToBase()
	}
	if s.lost(s.last, h) {
		return // until the loss has its epoch, with which it is settled anew
	}
	behind := h.id.Compare(s.last) < 0
	if s.drain() && !behind && h.id.Compare(s.last) <= 0 { // the queue may have led past the head
		s.state = live
		return
	}
	s.startRepair(repairSuspect)
}

// compare looks at a live channel in passing: seen is where it stood before
// Redis was asked for h. It reports whether Redis is ahead, which may only be a
// message still on its way.
func (s *Subscription) compare(seen ID, h head) (ahead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state != live:
	case h.id.Compare(s.last) > 0:
		return true
	case !s.lost(seen, h) && h.id.Compare(seen) < 0 && s.last == seen:
		s.startRepair(repairSuspect)
	}
	return false
}

// lost reports whether Redis has lost a message that was there, at an id, before
// it said that the channel stands at h. Then the lane begins a new epoch, and has
// every channel settled. A channel of which Redis knows nothing is its own trouble,
// and none if it is old enough to be forgotten. s.mu is held.
func (s *Subscription) lost(at ID, h head) bool {
	if h.id.Compare(at) >= 0 {
		return false
	}
	b := s.lane.b
	age := b.clock.redis(time.Now()).Sub(time.UnixMilli(int64(at.MS)))
	if !h.exists {
		if age >= leastMemory && s.last == at {
			s.last = h.id // nothing that was not delivered
		}
		return false
	}
	return age > -floorAhead && s.lane.life.missing(at)
}

// recheck is compare once more, a while later: whoever still has not seen head
// has missed something.
func (s *Subscription) recheck(head ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == live && s.last.Compare(head) < 0 {
		s.startRepair(repairSuspect)
	}
}

const (
	repairPage  = 200       // messages read at a time, and
	repairBytes = 512 << 10 // bytes at which a page ends
	// repairTries bounds how often a queued message that the stream does not
	// have is looked for: it was published before Redis lost it.
	repairTries = 3
	repairPause = 50 * time.Millisecond
	repairRetry = 500 * time.Millisecond // after an error of Redis
)

// startRepair fills the gap after the last message from the stream, once for
// all who subscribe. s.mu is held.
func (s *Subscription) startRepair(reason repairReason) {
	s.state = suspect
	if s.repairing {
		return
	}
	s.repairing = true
	s.lane.b.metrics.repairs[reason].Inc()
	s.lane.work.Go(s.repair)
}

// repair reads the stream until the subscription is live again.
func (s *Subscription) repair() {
	for fruitless := 0; ; {
		head, page, err := s.missing(s.lane.ctx)
		if err != nil {
			if !s.lane.pause(repairRetry) {
				return
			}
			continue
		}
		switch s.apply(head, page, fruitless >= repairTries) {
		case repaired:
			return
		case progress:
			fruitless = 0
		case fruitlessly:
			if fruitless++; !s.lane.pause(repairPause) {
				return
			}
		}
	}
}

// missing reads where the channel stands, and then what comes after the last
// message delivered: in this order, all up to the head is in the page or gone.
func (s *Subscription) missing(ctx context.Context) (ID, Page, error) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	last := s.Last()
	head, err := s.lane.b.Head(ctx, s.name, last)
	if err != nil {
		return ID{}, Page{}, err
	}
	page, err := s.lane.b.ReadPage(ctx, s.name, last, repairPage, repairBytes)
	return head.Last, page, err
}

type repairResult int

const (
	repaired    repairResult = iota // live, or closed
	progress                        // there is more to read
	fruitlessly                     // what is queued does not follow, and the stream has nothing new
)

// apply delivers what a repair has read. giveUp: what is queued is not in the
// stream and will not come.
func (s *Subscription) apply(head ID, page Page, giveUp bool) repairResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == closed {
		s.repairing = false
		return repaired
	}
	s.resetToBase()
	if _, base := s.lane.life.known(); s.lost(s.last, standing(page.Messages, head, base)) {
		return fruitlessly // until the loss has its epoch
	}
	for _, m := range page.Messages {
		if m.ID.Compare(s.last) <= 0 {
			continue // before the base
		}
		if m.Prev != s.last {
			s.reset(m.Prev)
		}
		s.deliver(m)
	}
	if head.Compare(s.last) > 0 && !page.More || len(page.Messages) == 0 && head != s.last {
		s.reset(head)
	}
	drained := s.drain()
	switch {
	case s.queue.overflow || s.again || page.More:
		s.queue.overflow, s.again = false, false
		return progress
	case drained:
		s.repairing, s.state = false, live
		return repaired
	case len(page.Messages) > 0:
		return progress
	case giveUp:
		s.queue.drop() // what of it is stored after all, the stream has
		s.reset(s.last)
		return progress
	}
	return fruitlessly
}

// standing returns where the channel stood when the first message after the last
// one was stored: a message that follows on an older one was stored by a Redis
// that had lost the last one.
func standing(page []Message, last, base ID) head {
	if len(page) > 0 {
		last = page[0].Prev
	}
	return head{id: last, exists: last != base}
}
