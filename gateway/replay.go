package gateway

import (
	"context"
	"time"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
)

const (
	// replayPage is how many messages are read at a time, at first and at most.
	replayPage = 100
	// replayBytes is how much of a page should be in memory, and in the outbox,
	// at a time; the page shrinks where messages are large.
	replayBytes = 128 << 10
	// replayRetry is waited after Redis has failed. A replay goes on as long as
	// its connection does.
	replayRetry = 500 * time.Millisecond
)

// startReplay starts replay.
func (c *conn) startReplay(m *member, from, to broker.ID, follows bool) {
	m.got(from, follows)
	go c.replay(m, from, to, follows)
}

// replay sends a held member the messages after from, up to and with to, as the
// socket takes them, and then releases it. follows: the first message must follow
// on from; else what is gone before it was told already. A gap that turns up on
// the way is told with reset.
func (c *conn) replay(m *member, from, to broker.ID, follows bool) {
	count := replayPage
	for from.Compare(to) < 0 && !m.left.Load() {
		next, err := c.replayPage(m, &count, from, to, follows)
		if err != nil {
			time.Sleep(replayRetry)
			continue
		}
		from, follows = next, true
	}
	c.socket.AwaitDrained() // make room for what was kept
	c.gw.hub.release(m, from)
}

// replayPage reads and sends one page, and returns where the next one begins. A
// connection has one page in memory, however many channels it comes back to.
func (c *conn) replayPage(m *member, count *int, from, to broker.ID, follows bool) (broker.ID, error) {
	c.paging.Lock()
	defer c.paging.Unlock()
	page, err := c.readPage(m.channel.name, from, *count)
	if err != nil {
		return from, err
	}
	from, *count = c.sendPage(m, page, from, to, follows)
	return from, nil
}

func (c *conn) readPage(channel string, after broker.ID, count int) ([]broker.Message, error) {
	ctx, cancel := c.gw.requestContext()
	defer cancel()
	return c.gw.broker.Read(ctx, channel, after, count)
}

// sendPage sends a page, a chunk at a time, each when the socket has taken the
// one before. It returns where the next page begins and how long it should be.
func (c *conn) sendPage(m *member, page []broker.Message, from, to broker.ID, follows bool) (broker.ID, int) {
	var chunk []byte
	if len(page) == 0 { // trimmed or expired, perhaps since the replay began
		if follows {
			chunk = c.replayGap(m, to)
		}
		from = to
	}
	total := 0
	for i := 0; i < len(page) && from != to; i++ {
		msg := &page[i]
		beyond := msg.ID.Compare(to) > 0 // the hub has it
		if follows && msg.Prev != from {
			chunk = append(chunk, c.replayGap(m, earlier(msg.Prev, to))...)
		}
		if beyond {
			from = to
			break
		}
		from, follows = msg.ID, true
		frame, err := messageFrame(m.channel.name, msg.ID, msg.Payload)
		if err != nil {
			c.gw.hub.refuse(m.channel.name, err)
			continue
		}
		frame = c.packed(frame)
		c.gw.metrics.replayed.Inc()
		total += len(frame)
		if chunk = append(chunk, frame...); len(chunk) >= min(replayBytes, int(c.gw.cfg.Limits.Outbox)/4) {
			c.sendWhenDrained(m, chunk, from)
			chunk = nil
		}
	}
	if len(chunk) > 0 {
		c.sendWhenDrained(m, chunk, from)
	}
	return from, min(replayPage, max(1, len(page)*replayBytes/max(1, total)))
}

// replayGap returns the frame that tells that messages up to last are gone.
func (c *conn) replayGap(m *member, last broker.ID) []byte {
	c.gw.metrics.replayGaps.Inc()
	return resetFrame(m.channel, last)
}

// sendWhenDrained sends once the socket has taken all before: a replay is as
// slow as its reader, and never too much for the outbox. It sends nothing to a
// member that has left. at is where the replay has got with it.
func (c *conn) sendWhenDrained(m *member, frames []byte, at broker.ID) {
	for done := false; !done; {
		c.socket.AwaitDrained()
		done = m.sendReplay(frames, at)
	}
	c.gw.metrics.bytesOut.Add(float64(len(frames)))
}

// sendReplay reports false if it is not the moment: the outbox is not empty.
func (m *member) sendReplay(frames []byte, at broker.ID) bool {
	m.sending.Lock()
	defer m.sending.Unlock()
	if m.left.Load() {
		return true
	}
	if !m.conn.socket.SendIfDrained(frames) {
		return false
	}
	m.sent, m.follows = at, true
	return true
}

// position is where a client wants to go on on a channel.
type position struct {
	given bool      // else: live from now
	all   bool      // "0": everything kept
	id    broker.ID // the last message seen
	acked bool      // it is that of the device, and not the client's
}

// parsePosition parses a since: "", "0" or an id.
func parsePosition(s string) (position, bool) {
	switch s {
	case "":
		return position{}, true
	case "0":
		return position{given: true, all: true}, true
	}
	id, err := broker.ParseID(s)
	return position{given: true, id: id}, err == nil
}

// recovery is what a client that comes back is told, and what is done for it.
type recovery struct {
	recovered bool
	last      broker.ID // where the client is once it has what was missed
	from      broker.ID // where the replay begins
	follows   bool      // from is a position that is vouched for
}

// recover says whether nothing is gone between a position and last, where the
// hub goes on.
func (c *conn) recover(ctx context.Context, ch *channel, p position, last broker.ID) (recovery, error) {
	nothing := recovery{recovered: true, last: last, from: last, follows: true}
	switch {
	case !p.given:
		return nothing, nil
	case !ch.history:
		nothing.recovered = p.all
		return nothing, nil
	case p.all:
		return recovery{recovered: true, last: last}, nil
	case p.id == last && !last.IsZero():
		return nothing, nil
	}
	head, err := c.gw.broker.Head(ctx, ch.name, p.id)
	if err != nil {
		return recovery{}, err
	}
	r := recovery{recovered: head.Recovered, last: last, from: p.id, follows: head.Recovered}
	if r.follows && p.id.Compare(last) > 0 {
		r.last = p.id // the client has seen what this node is about to
	}
	return r, nil
}

// goOn returns what a member still has to get, which has left, and which another
// one replaces at held.
func (c *conn) goOn(left *member, held broker.ID) recovery {
	r := recovery{recovered: true, last: held, from: held, follows: true}
	if !left.held() {
		r.from = later(held, left.after)
		return r
	}
	if reset := left.resetKept(); reset != nil {
		c.socket.Send(reset[0].frame)
		r.from = left.from
		return r
	}
	left.sending.Lock()
	defer left.sending.Unlock()
	r.from, r.follows = left.sent, left.follows
	return r
}

// begin has a member get what it has missed, then what comes.
func (c *conn) begin(e entry) {
	switch r := e.recovery; {
	case r.from.Compare(e.held) < 0:
		c.startReplay(e.member, r.from, e.held, r.follows)
	case r.follows:
		c.gw.hub.release(e.member, r.from)
	default:
		c.gw.hub.release(e.member, e.held)
	}
}

// describe adds to a reply where a channel stands.
func (r recovery) describe(o *wire.Object, ch *channel) *wire.Object {
	if ch.history {
		o.Str("last", r.last.String())
	}
	return o.Bool("recovered", r.recovered)
}

func earlier(a, b broker.ID) broker.ID {
	if a.Compare(b) < 0 {
		return a
	}
	return b
}

func later(a, b broker.ID) broker.ID {
	if a.Compare(b) > 0 {
		return a
	}
	return b
}
