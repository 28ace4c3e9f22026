package transport

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Budget bounds the memory that a node spends on what its clients have sent or have yet
// to take: outboxes and messages that have come in part, messages that are being handled,
// and pages of the history on their way to an outbox. All methods may be called from
// several goroutines.
//
// Each of these has a part of its own, so that who fills one takes nothing of another.
// Outboxes never wait. They are charged after the fact, bytes that several of them
// share once; when their part of the budget is spent, the largest is given up
// (Conn.Fail with Overloaded). Messages that are being handled are refused when there
// is no room for them; pages wait in turn.
type Budget struct {
	outboxes int64 // bytes they may hold
	held     atomic.Int64
	shared   [16]sharedBytes // by address

	handling int64 // bytes that messages may hold while they are handled
	handled  atomic.Int64

	mu      sync.Mutex // guards what follows
	pages   int64      // bytes they may hold
	paging  int64      // bytes they hold
	waiting []*waiter  // in order

	holders  holders
	shedding sync.Mutex // held by the one goroutine that sheds
}

// TryHandle takes n bytes for a message that is being handled, and reports whether they
// were there. Handled must follow if they were. One that is larger than all that messages
// may hold is let through alone.
func (b *Budget) TryHandle(n int64) bool {
	if all := b.handled.Add(n); all > b.handling && all > n {
		b.handled.Add(-n)
		return false
	}
	return true
}

// Handled gives back what TryHandle took.
func (b *Budget) Handled(n int64) { b.handled.Add(-n) }

// sharedBytes counts who keeps which bytes.
type sharedBytes struct {
	mu   sync.Mutex
	kept map[*byte]kept
}

type kept struct{ refs, size int }

// waiter is an Acquire that waits.
type waiter struct {
	n     int64
	ready chan struct{} // closed when it has got n
}

const (
	// pageShare is the part of a budget for pages, and handlingShare that for messages
	// that are being handled.
	pageShare     = 8
	handlingShare = 4
	// fullShare is the part of what outboxes may hold beyond which a node takes no
	// new connections: what is left is for those that are there.
	fullShare = 0.9
)

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget {
	b := &Budget{pages: limit / pageShare, handling: limit / handlingShare}
	b.outboxes = limit - b.pages - b.handling
	for i := range b.shared {
		b.shared[i].kept = make(map[*byte]kept)
	}
	b.holders.all = make(map[*Conn]struct{})
	return b
}

// Used returns how many bytes are spent.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held.Load() + b.handled.Load() + b.paging
}

// Limit returns how many bytes may be spent.
func (b *Budget) Limit() int64 { return b.outboxes + b.handling + b.pages }

// Full reports whether new connections are to be refused.
func (b *Budget) Full() bool { return b.held.Load() > int64(fullShare*float64(b.outboxes)) }

// Acquire takes n bytes for a page, in turn with other pages, and waits until they
// are there or ctx is done, whose error it returns. If it returns nil, Release must
// follow. A page that is larger than all that pages may hold is let through alone.
func (b *Budget) Acquire(ctx context.Context, n int64) error {
	b.mu.Lock()
	if len(b.waiting) == 0 && b.take(n) {
		b.mu.Unlock()
		return nil
	}
	w := &waiter{n, make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, w)
	if i < 0 {
		return nil // it got its turn meanwhile
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	b.wake() // the next one may need less
	return ctx.Err()
}

// Release gives back what Acquire took.
func (b *Budget) Release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paging -= n
	b.wake()
}

// take takes n bytes if there is room for them. b.mu is held.
func (b *Budget) take(n int64) bool {
	if b.paging > 0 && b.paging+n > b.pages {
		return false
	}
	b.paging += n
	return true
}

// wake lets those in who wait and have room. b.mu is held.
func (b *Budget) wake() {
	for len(b.waiting) > 0 && b.take(b.waiting[0].n) {
		close(b.waiting[0].ready)
		b.waiting = b.waiting[1:]
	}
}

func (b *Budget) sharedOf(first *byte) *sharedBytes {
	return &b.shared[uintptr(unsafe.Pointer(first))>>6%uintptr(len(b.shared))]
}

// keep charges bytes that an outbox keeps, unless another one does already.
func (b *Budget) keep(frames []byte) {
	first := unsafe.SliceData(frames)
	s := b.sharedOf(first)
	s.mu.Lock()
	k := s.kept[first]
	if k.refs++; k.refs == 1 {
		k.size = cap(frames)
		b.held.Add(int64(k.size))
	}
	s.kept[first] = k
	s.mu.Unlock()
}

// forget takes keep back.
func (b *Budget) forget(frames []byte) {
	first := unsafe.SliceData(frames)
	s := b.sharedOf(first)
	s.mu.Lock()
	k := s.kept[first]
	if k.refs--; k.refs > 0 {
		s.kept[first] = k
	} else {
		delete(s.kept, first)
		b.held.Add(-int64(k.size))
	}
	s.mu.Unlock()
}

// holders are the connections for which something is held.
type holders struct {
	mu      sync.Mutex // guards what follows, and Conn.leaving
	all     map[*Conn]struct{}
	leaving int64 // bytes held for those that were given up, which will soon be given back
}

// charge notes that a connection holds n bytes more, spent of which are its alone.
func (b *Budget) charge(c *Conn, n, spent int) {
	b.held.Add(int64(spent))
	b.holders.mu.Lock()
	defer b.holders.mu.Unlock()
	if c.leaving {
		b.holders.leaving += int64(n)
	}
	if c.backlog.Add(int64(n)) > 0 {
		b.holders.all[c] = struct{}{}
	} else {
		delete(b.holders.all, c)
	}
}

// leave takes in that a connection was given up for its memory, which will be given
// back within shedWait.
func (b *Budget) leave(c *Conn) {
	b.holders.mu.Lock()
	defer b.holders.mu.Unlock()
	if !c.leaving {
		c.leaving = true
		b.holders.leaving += c.backlog.Load()
	}
}

// excess returns how much more is held than may be, but for what will be given back.
func (b *Budget) excess() int64 {
	held := b.held.Load() - b.outboxes
	if held <= 0 {
		return held
	}
	b.holders.mu.Lock()
	defer b.holders.mu.Unlock()
	return held - b.holders.leaving
}

// holding is how much is held for a connection.
type holding struct {
	conn  *Conn
	bytes int64
}

// largest returns the connections that were not given up, those with most first.
func (h *holders) largest() []holding {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]holding, 0, len(h.all))
	for c := range h.all {
		if !c.leaving {
			all = append(all, holding{c, c.backlog.Load()})
		}
	}
	slices.SortFunc(all, func(a, b holding) int { return cmp.Compare(b.bytes, a.bytes) })
	return all
}

// shed gives up outboxes, the largest first, until what is held is not too much. It
// does not wait: a goroutine does it, one at a time.
func (b *Budget) shed() {
	if b.held.Load() <= b.outboxes || b.excess() <= 0 || !b.shedding.TryLock() {
		return
	}
	go func() {
		defer b.shedding.Unlock()
		all := b.holders.largest()
		for _, h := range all { // first those that only have a close frame to send
			if h.conn.Cause() != nil && b.excess() > 0 {
				b.leave(h.conn)
				h.conn.Cut()
			}
		}
		for _, h := range all {
			if b.excess() <= 0 {
				return
			}
			h.conn.Fail(Overloaded)
		}
	}()
}
