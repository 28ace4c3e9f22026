package gateway

import (
	"context"
	"time"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
)

// replayRetry is waited after Redis has failed. A replay goes on as long as its
// connection does.
const replayRetry = 500 * time.Millisecond

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
	for from.Compare(to) < 0 && !m.left.Load() {
		s, err := c.replayPage(m, from, to, follows)
		if err != nil {
			time.Sleep(replayRetry)
			continue
		}
		from, follows = s.at, s.follows
	}
	c.socket.AwaitDrained() // make room for what was kept
	c.gw.hub.release(m, from)
}

// replayPage sends one page once the socket has taken all before: a replay is as
// slow as its reader. It returns what was sent. A connection is about one page at a
// time, however many channels it comes back to, and has none in memory while it
// waits: one for which there is no room, as other channels have taken it meanwhile,
// is read again.
func (c *conn) replayPage(m *member, from, to broker.ID, follows bool) (stretch, error) {
	nothing := stretch{at: from, follows: follows}
	c.paging.Lock()
	defer c.paging.Unlock()
	c.socket.AwaitDrained()
	free, err := c.gw.reserve(c.gw.life, c.gw.pageCost())
	if err != nil {
		return nothing, err
	}
	defer free()
	if m.left.Load() {
		return nothing, nil
	}
	ctx, cancel := c.gw.requestContext()
	defer cancel()
	page, err := c.gw.readPage(ctx, m.channel.name, from, pageMessages, int(c.gw.cfg.Limits.Outbox)/4)
	if err != nil {
		return nothing, err
	}
	s := c.stretchOf(m.channel, page.Messages, from, to, follows)
	if !m.sendReplay(s) {
		return nothing, nil
	}
	c.gw.metrics.replayed.Add(float64(s.messages))
	c.gw.metrics.replayGaps.Add(float64(s.gaps))
	c.gw.metrics.bytesOut.Add(float64(len(s.frames)))
	return s, nil
}

// stretch is a part of a replay: what a page comes to.
type stretch struct {
	frames   []byte
	messages int
	gaps     int       // that are told
	at       broker.ID // where the next one begins
	follows  bool      // and its first message must follow on that
}

// stretchOf returns what a page of what comes after from comes to, up to and with to.
func (c *conn) stretchOf(ch *channel, page []broker.Message, from, to broker.ID, follows bool) stretch {
	s := stretch{at: from, follows: follows}
	size := 0
	for i := range page {
		size += frameSize(ch.name, page[i].Payload)
	}
	s.frames = make([]byte, 0, size) // one that grows is charged for its room
	gap := func(last broker.ID) {
		s.frames = append(s.frames, resetFrame(ch, last)...)
		s.gaps++
	}
	if len(page) == 0 { // trimmed or expired, perhaps since the replay began
		if follows {
			gap(to)
		}
		s.at, s.follows = to, true
	}
	for i := 0; i < len(page) && s.at != to; i++ {
		msg := &page[i]
		if s.follows && msg.Prev != s.at {
			gap(earlier(msg.Prev, to))
		}
		if msg.ID.Compare(to) > 0 { // the hub has it
			s.at, s.follows = to, true
			break
		}
		s.at, s.follows = msg.ID, true
		frame, err := messageFrame(ch.name, msg.ID, msg.Payload)
		if err != nil {
			c.gw.hub.refuse(ch.name, err)
			continue
		}
		s.frames = append(s.frames, c.packed(frame)...)
		s.messages++
	}
	return s
}

// sendReplay sends the next part of a replay, but nothing to a member that has
// left. It reports false if there is no room for it.
func (m *member) sendReplay(s stretch) bool {
	m.sending.Lock()
	defer m.sending.Unlock()
	if m.left.Load() {
		return true
	}
	if len(s.frames) > 0 && !m.conn.socket.SendIfRoom(s.frames) {
		return false
	}
	m.sent, m.follows = s.at, s.follows
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
