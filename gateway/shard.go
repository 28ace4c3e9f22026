package gateway

import (
	"context"
	"slices"
	"sync"
	"time"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
)

// itemKind says what a shard is to do.
type itemKind uint8

const (
	itemFrame   itemKind = iota // deliver frame to the members of channel
	itemReset                   // the same, and go on from id
	itemJoin                    // member is one of channel's, held
	itemRelease                 // member is not held any more
	itemLeave                   // member is none any more; frame, if any, is its last
	itemBarrier                 // all before has been done: close done
)

// item is an entry of a shard's queue.
type item struct {
	kind    itemKind
	channel *channel
	member  *member
	id      broker.ID
	frame   []byte
	packed  *packed   // nil unless there may be connections that compress
	except  string    // user who does not get it; "" for none
	at      time.Time // when the message was published
	traced  *traced   // nil unless its way is followed
	done    chan struct{}
}

// packed is a frame compressed, once for all who want it so.
type packed struct {
	once  sync.Once
	frame []byte
}

// bytes returns the frame as a connection wants it.
func (it *item) bytes(deflated bool) []byte {
	if !deflated || it.packed == nil {
		return it.frame
	}
	it.packed.once.Do(func() {
		it.packed.frame = wire.Deflate(it.frame)
		it.channel.hub.metrics.deflated.Inc()
	})
	return it.packed.frame
}

// shard delivers to its connections. It works in rounds: it takes everything
// that has queued up since the last one, joins the frames of each channel once,
// and writes to each connection once. What comes meanwhile is the next round, or
// several if it is much. Nothing waits for a timer: idle, a message leaves at once;
// under load, rounds grow by themselves.
type shard struct {
	hub *hub

	mu      sync.Mutex // guards what follows
	queue   []item
	waiting int           // bytes of memory that waits to be delivered
	wake    chan struct{} // size 1: queue is not empty
	drains  sync.Cond     // waiting has become less

	// Owned by run.
	members map[*channel][]*member
	rounds  []round // what this round has, by channel
	index   map[*channel]int
	writes  []*conn       // connections that have something in conn.round
	copied  int           // bytes that were allocated for what they have
	kept    map[*conn]int // bytes of memory that are kept for held members, by connection
}

// round is what a round has for one channel.
type round struct {
	channel    *channel
	items      []item
	selective  bool      // some are not for everybody
	deliveries int       // of all items
	bytes      int       // of all deliveries
	joined     [2][]byte // all items in one piece, plain and deflated, if anybody wanted it
}

const (
	// queueLimit bounds the memory of what waits for a shard. Whoever brings more
	// waits: a shard never waits for a client, so that is for the processor only, and
	// no longer than one round takes. Meanwhile Redis keeps what comes, in the buffer
	// of the link (client-output-buffer-limit pubsub).
	queueLimit = 8 << 20
	// roundLimit bounds a round, so that other channels get their turn and what is
	// copied for connections with several channels is small.
	roundLimit = 256 << 10
	// copyLimit bounds what is copied for all connections before it is written.
	copyLimit = 4 << 20
	// itemCost is the memory of an item besides its frame: 128 bytes, in slices that
	// have room for twice as many, and what the frame's allocation wastes.
	itemCost = 288
	// queueRoom is for how many items a queue keeps its room when it is empty.
	queueRoom = 8192
)

// cost returns the memory that an item takes.
func (it *item) cost() int { return cap(it.frame) + itemCost }

func newShard(h *hub) *shard {
	s := &shard{
		hub: h, wake: make(chan struct{}, 1),
		members: make(map[*channel][]*member), index: make(map[*channel]int), kept: make(map[*conn]int),
	}
	s.drains.L = &s.mu
	return s
}

// enqueue hands an item to the shard. Only a frame may have to wait: of the others
// there are no more than clients that ask for something.
func (s *shard) enqueue(it item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for it.kind == itemFrame && s.waiting > queueLimit {
		s.drains.Wait()
	}
	s.queue = append(s.queue, it)
	s.waiting += it.cost()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// await waits until what is in the queue has been done.
func (s *shard) await() {
	done := make(chan struct{})
	s.enqueue(item{kind: itemBarrier, done: done})
	<-done
}

func (s *shard) run(ctx context.Context) {
	var queue []item
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		queue, s.queue = s.queue, queue[:0]
		s.mu.Unlock()
		for rest := queue; len(rest) > 0; {
			n, bytes := nextRound(rest)
			s.deliver(rest[:n])
			clear(rest[:n]) // let the frames go
			rest = rest[n:]
			s.delivered(bytes)
		}
		if cap(queue) > queueRoom {
			queue = nil
		}
	}
}

// nextRound returns how many of the items make a round, and the memory they take.
func nextRound(items []item) (n, bytes int) {
	for n < len(items) && bytes < roundLimit {
		bytes += items[n].cost()
		n++
	}
	return n, bytes
}

// delivered makes room for what waits to be let into the queue.
func (s *shard) delivered(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting -= bytes
	s.drains.Broadcast()
}

// deliver is one round. What changes a membership, and a reset, stands between
// the frames before and after it.
func (s *shard) deliver(queue []item) {
	for _, it := range queue {
		if it.kind == itemFrame {
			s.add(it)
			continue
		}
		s.flush()
		switch it.kind {
		case itemReset:
			s.add(it)
			s.flush()
		case itemJoin:
			s.join(it.member)
		case itemRelease:
			s.release(it.member, it.id)
		case itemLeave:
			s.leave(it.member, it.frame)
		case itemBarrier:
			close(it.done)
		}
	}
	s.flush()
}

// join begins a membership. What was kept for the one that it replaces is gone.
func (s *shard) join(m *member) {
	members := append(s.members[m.channel], m)
	s.members[m.channel] = members
	m.place = int32(len(members))
	if !m.held() || m.replaces == nil {
		return
	}
	if old := m.replaces; old.held() {
		m.missed = old.missed || slices.ContainsFunc(old.kept, item.isEvent)
	}
	m.replaces = nil
}

// add puts an item into the round.
func (s *shard) add(it item) {
	if it.frame == nil {
		return // it could not be read, but its id counts
	}
	i, ok := s.index[it.channel]
	if !ok {
		i = len(s.rounds)
		s.index[it.channel] = i
		if i < cap(s.rounds) {
			s.rounds = s.rounds[:i+1] // with the room of an earlier round
		} else {
			s.rounds = append(s.rounds, round{})
		}
		s.rounds[i].channel = it.channel
	}
	s.rounds[i].items = append(s.rounds[i].items, it)
	s.rounds[i].selective = s.rounds[i].selective || it.except != ""
}

// flush delivers what was added.
func (s *shard) flush() {
	for i := range s.rounds {
		r := &s.rounds[i]
		for _, m := range s.members[r.channel] {
			s.deliverTo(m, r)
		}
	}
	s.writeAll()
	for i := range s.rounds {
		r := &s.rounds[i]
		s.hub.metrics.delivered(r.items, r.deliveries, r.bytes)
		s.hub.tracing.delivered(r)
		clear(r.items)
		*r = round{items: r.items[:0]}
	}
	s.rounds = s.rounds[:0]
	clear(s.index)
}

// frames returns all items in one piece.
func (r *round) frames(deflated bool) []byte {
	i := 0
	if deflated {
		i = 1
	}
	if r.joined[i] == nil {
		r.joined[i] = joinFrames(r.items, deflated)
	}
	return r.joined[i]
}

// joinFrames returns the frames of items in one piece.
func joinFrames(items []item, deflated bool) []byte {
	if len(items) == 1 {
		return items[0].bytes(deflated)
	}
	size := 0
	for i := range items {
		size += len(items[i].bytes(deflated))
	}
	frames := make([]byte, 0, size)
	for i := range items {
		frames = append(frames, items[i].bytes(deflated)...)
	}
	return frames
}

// deliverTo gives a member what the round has for it.
func (s *shard) deliverTo(m *member, r *round) {
	items := r.items
	if r.selective {
		items = m.meant(items)
	}
	if m.held() {
		for _, it := range items {
			s.keep(m, it)
		}
		return
	}
	items = m.unseen(items)
	if len(items) == 0 {
		return
	}
	frames := r.frames(m.conn.deflates)
	if len(items) < len(r.items) {
		frames = joinFrames(items, m.conn.deflates)
	}
	s.addWrite(m.conn, frames)
	r.deliveries += len(items)
	r.bytes += len(frames)
}

// meant returns those of items that are for the member's user.
func (m *member) meant(items []item) []item {
	user := m.conn.session.User
	others := func(it item) bool { return it.except == user }
	if !slices.ContainsFunc(items, others) {
		return items
	}
	return slices.DeleteFunc(slices.Clone(items), others)
}

// unseen returns those of items that the member has not got yet, nor gets from a
// replay. What has no id was never seen. Ids ascend, so if the first one is new,
// all are.
func (m *member) unseen(items []item) []item {
	if len(items) > 0 && items[0].kind == itemReset {
		m.after = items[0].id
		return items
	}
	seen := func(it item) bool { return !it.id.IsZero() && it.id.Compare(m.after) <= 0 }
	first := slices.IndexFunc(items, func(it item) bool { return !it.id.IsZero() })
	if first < 0 || !seen(items[first]) {
		return items
	}
	return slices.DeleteFunc(slices.Clone(items), seen)
}

// addWrite notes what a connection gets in this round: the frames as they are
// if it is one channel's, else a copy.
func (s *shard) addWrite(c *conn, frames []byte) {
	if c.round == nil {
		c.round = slices.Clip(frames) // others have it too
		s.writes = append(s.writes, c)
		return
	}
	room := cap(c.round)
	c.round = append(c.round, frames...)
	if cap(c.round) == room {
		return
	}
	if s.copied += cap(c.round); s.copied > copyLimit {
		s.writeAll()
	}
}

// writeAll writes to each connection what there is for it.
func (s *shard) writeAll() {
	for _, c := range s.writes {
		frames := c.round
		c.round = nil
		c.socket.Send(frames)
	}
	clear(s.writes)
	s.writes, s.copied = s.writes[:0], 0
}

// leave forgets a member; in a constant time, as all of a large channel may go at
// once.
func (s *shard) leave(m *member, last []byte) {
	if m.held() {
		s.released(m) // who replaces it still looks at what was kept
	}
	if m.attached() {
		members := s.members[m.channel]
		end := len(members) - 1
		members[m.place-1] = members[end]
		members[m.place-1].place = m.place
		members[end] = nil
		if end == 0 {
			delete(s.members, m.channel)
		} else {
			s.members[m.channel] = members[:end]
		}
		m.place = 0
	}
	if last != nil {
		m.conn.socket.Send(last)
	}
}
