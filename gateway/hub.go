package gateway

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
)

// hub knows which connections of this node are subscribed to which channels. It
// is cut into shards, as many as there are processors; each connection belongs
// to one. A channel is subscribed to in Redis while anybody here is.
//
// Lock order: hub.mu, then the broker's locks, then channel.mu, then shard.mu,
// then that of a transport.Conn.
type hub struct {
	broker  *broker.Broker
	metrics *metrics
	log     *slog.Logger
	shards  []*shard
	next    atomic.Uint32        // the shard of the next connection
	tracing *tracing             // nil: off
	packs   bool                 // some connections may compress
	doubted func(channel string) // its members may be lost; called with locks held; may be nil
	changed func(channel string) // its members are others; called with locks held; may be nil

	mu       sync.Mutex // guards what follows
	channels map[string]*channel
}

func newHub(b *broker.Broker, m *metrics, log *slog.Logger) *hub {
	h := &hub{broker: b, metrics: m, log: log, channels: make(map[string]*channel)}
	for range runtime.GOMAXPROCS(0) {
		h.shards = append(h.shards, newShard(h))
	}
	return h
}

// run runs the shards until ctx is done.
func (h *hub) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range h.shards {
		wg.Go(func() { s.run(ctx) })
	}
	wg.Wait()
}

// shardFor returns the shard that a new connection belongs to.
func (h *hub) shardFor() *shard {
	return h.shards[h.next.Add(1)%uint32(len(h.shards))]
}

// channel is a channel that connections of this node are subscribed to. It is
// the broker's sink.
type channel struct {
	name    string
	history bool
	hub     *hub

	feed *feed // of who comes and goes; nil without presence

	// Guarded by hub.mu.
	refs    int      // members, and those about to be
	opening *opening // nil once the subscription stands
	sub     *broker.Subscription

	mu     sync.Mutex // guards what follows; orders what the shards are handed
	last   broker.ID  // of the last message
	shards []*shard   // that have had members
}

// opening is a subscription that does not stand yet, or never will.
type opening struct {
	done chan struct{} // closed when that is known
	err  error         // set before done is closed
}

// member is a connection's subscription to a channel.
type member struct {
	conn    *conn
	channel *channel

	sending sync.Mutex  // guards left, and of catchUp what it says; held while a replay sends, taken before that of a transport.Conn
	left    atomic.Bool // set under sending: a replay sends nothing any more

	// Owned by the shard's goroutine until a barrier after its leave.
	place    int32     // in shard.members, from 1 on; 0 unless attached
	after    broker.ID // what is delivered comes after it
	*catchUp           // nil unless it is held
}

// catchUp is what a member needs while it is held: a replay is under way, and what
// arrives is kept.
type catchUp struct {
	// Guarded by member.sending.
	sent    broker.ID // where the replay has got
	follows bool      // the next message of the replay must follow on sent

	// Owned as the member is.
	kept     []item // a reset, if any, is the first
	bytes    int
	overflow bool      // too much was kept: what came after from, up to after, was given up
	missed   bool      // what was given up had frames that no replay has
	replaces *member   // until it is attached; nil for none
	from     broker.ID // what is kept follows on it
}

// attached reports whether the shard has it: between join and leave.
func (m *member) attached() bool { return m.place != 0 }

// held reports whether what arrives is kept.
func (m *member) held() bool { return m.catchUp != nil }

// leave has nothing more come from a replay.
func (m *member) leave() {
	m.sending.Lock()
	defer m.sending.Unlock()
	m.left.Store(true)
}

// got notes where the replay has got.
func (m *member) got(sent broker.ID, follows bool) {
	m.sending.Lock()
	defer m.sending.Unlock()
	m.sent, m.follows = sent, follows
}

// open returns a channel that is subscribed to in Redis, or will be: await must
// follow, and then each open needs a drop, or the leave of a member.
func (h *hub) open(name string, class Class) *channel {
	h.mu.Lock()
	defer h.mu.Unlock()
	ch := h.channels[name]
	if ch == nil {
		ch = &channel{name: name, history: class.History.Size > 0, hub: h, opening: &opening{done: make(chan struct{})}}
		if class.Presence {
			ch.feed = &feed{channel: ch}
		}
		h.channels[name] = ch
		h.metrics.channels.Inc()
		go h.subscribe(ch)
	}
	ch.refs++
	return ch
}

// await waits until a channel that was opened stands; if it returns an error, the
// channel was dropped.
func (h *hub) await(ctx context.Context, ch *channel) error {
	o := h.openingOf(ch)
	if o == nil {
		return nil
	}
	select {
	case <-o.done:
	case <-ctx.Done():
		h.drop(ch)
		return ctx.Err()
	}
	if o.err != nil {
		h.drop(ch)
	}
	return o.err
}

func (h *hub) openingOf(ch *channel) *opening {
	h.mu.Lock()
	defer h.mu.Unlock()
	return ch.opening
}

// standsAt reports whether the channel stands, and a client that is at a position
// has missed nothing.
func (h *hub) standsAt(ch *channel, p position) bool {
	if h.openingOf(ch) != nil {
		return false
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return !p.given || p.id == ch.last
}

// subscribe subscribes to a channel on behalf of all who wait for it.
func (h *hub) subscribe(ch *channel) {
	o := h.openingOf(ch)
	defer close(o.done)
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	sub, err := h.broker.Subscribe(ctx, ch.name, ch.history, ch)
	if err == nil && ch.feed != nil {
		if err = ch.feed.subscribe(ctx); err != nil {
			sub.Close()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		o.err = err
		h.forget(ch) // the next who opens it tries again
		return
	}
	ch.sub, ch.opening = sub, nil
	last := sub.Last() // takes the broker's lock, which comes before channel.mu
	ch.mu.Lock()
	if ch.last.IsZero() { // nothing was delivered yet
		ch.last = last
	}
	ch.mu.Unlock()
	if ch.refs == 0 {
		h.forget(ch)
	}
}

// drop takes one reference back.
func (h *hub) drop(ch *channel) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ch.refs--; ch.refs == 0 {
		h.forget(ch)
	}
}

// forget closes a channel that nobody needs. h.mu is held. A subscription that
// does not stand yet is closed when it does.
func (h *hub) forget(ch *channel) {
	if ch.sub != nil {
		ch.sub.Close()
		ch.sub = nil
		if ch.feed != nil {
			ch.feed.sub.Close()
		}
	} else if ch.opening != nil && ch.opening.err == nil {
		return
	}
	if h.channels[ch.name] == ch {
		delete(h.channels, ch.name)
		h.metrics.channels.Dec()
	}
}

// withFeed returns the channels of the node that have presence.
func (h *hub) withFeed() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name, ch := range h.channels {
		if ch.feed != nil {
			names = append(names, name)
		}
	}
	return names
}

// count returns how many channels the node is subscribed to.
func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.channels)
}

// hold makes a connection a member of a channel that it has joined, but keeps
// what arrives until release. It returns where the channel stands: what is kept
// comes after it. old, if any, is the membership that this one replaces; it has
// delivered all up to there when hold returns.
func (h *hub) hold(c *conn, ch *channel, old *member) (*member, broker.ID) {
	m := &member{conn: c, channel: ch, catchUp: &catchUp{replaces: old}}
	at := ch.attach(m, old)
	if old != nil {
		old.leave()
		c.shard.await()
	}
	return m, at
}

// attach puts a member, in the place of old, between the messages that the
// shard has been handed and those to come.
func (ch *channel) attach(m, old *member) broker.ID {
	s := m.conn.shard
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if !slices.Contains(ch.shards, s) {
		ch.shards = append(ch.shards, s)
	}
	m.after, m.from = ch.last, ch.last
	if old != nil {
		s.enqueue(item{kind: itemLeave, channel: ch, member: old})
	}
	s.enqueue(item{kind: itemJoin, channel: ch, member: m})
	return ch.last
}

// release has a member get what was kept after a position, and what comes.
func (h *hub) release(m *member, after broker.ID) {
	m.conn.shard.enqueue(item{kind: itemRelease, channel: m.channel, member: m, id: after})
}

// leave ends a membership. last, if any, is the frame after which the
// connection gets nothing of the channel; it has been sent when leave returns,
// so that what answers a later request comes after it.
func (h *hub) leave(m *member, last []byte) {
	h.detach(m, last)
	h.drop(m.channel)
	if last != nil {
		m.conn.shard.await()
	}
}

// detach is leave for a member whose reference to the channel is another's.
func (h *hub) detach(m *member, last []byte) {
	m.leave()
	m.conn.shard.enqueue(item{kind: itemLeave, channel: m.channel, member: m, frame: last})
}

// Deliver implements broker.Sink.
func (ch *channel) Deliver(m broker.Message) {
	payload := m.Payload
	if m.Foreign {
		var err error
		if payload, err = foreignPayload(m.Payload); err != nil {
			ch.hub.refuse(ch.name, err)
			return
		}
	}
	frame, err := messageFrame(ch.name, m.ID, payload)
	if err != nil {
		ch.hub.refuse(ch.name, err)
	}
	it := item{kind: itemFrame, channel: ch, id: m.ID, frame: frame, at: m.At, traced: ch.hub.tracing.receive(payload)}
	if ch.hub.packs {
		it.packed = new(packed)
	}
	ch.enqueue(it)
}

// refuse tells of a message that cannot be delivered to anybody.
func (h *hub) refuse(channel string, err error) {
	h.metrics.malformed.Inc()
	h.log.Warn("message dropped", "channel", channel, "error", err)
}

// Reset implements broker.Sink.
func (ch *channel) Reset(last broker.ID) {
	ch.enqueue(item{kind: itemReset, channel: ch, id: last, frame: resetFrame(ch, last)})
}

// resetFrame returns the frame that says that something is lost. A channel
// without history has no position to go on from.
func resetFrame(ch *channel, last broker.ID) []byte {
	o := wire.NewObject("reset", "").Str("channel", ch.name)
	if ch.history {
		o.Str("last", last.String())
	}
	return o.Frame()
}

// enqueue hands an item to every shard that has had members, in one step with
// taking in its id: whoever looks at last finds all up to it in the queues.
func (ch *channel) enqueue(it item) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if !it.id.IsZero() || it.kind == itemReset {
		ch.last = it.id
	}
	for _, s := range ch.shards {
		s.enqueue(it)
	}
}
