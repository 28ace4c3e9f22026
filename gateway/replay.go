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

// replay sends a held member the messages after from, up to and with to, as the
// socket takes them, and then releases it. follows: the first message must follow
// on from; else what is gone before it was told already. A gap that turns up on
// the way is told with reset.
func (c *conn) replay(m *member, from, to broker.ID, follows bool) {
	count := replayPage
	for from.Compare(to) < 0 {
		page, err := c.readPage(m.channel.name, from, count)
		if m.left.Load() {
			return
		}
		if err != nil {
			time.Sleep(replayRetry)
			continue
		}
		from, count = c.sendPage(m, page, from, to, follows)
		follows = true
	}
	c.gw.hub.release(m, from)
}

func (c *conn) readPage(channel string, after broker.ID, count int) ([]broker.Message, error) {
	ctx, cancel := c.gw.requestContext()
	defer cancel()
	return c.gw.broker.Read(ctx, channel, after, count)
}

// sendPage sends a page, a chunk at a time, each when the socket has taken the
// one before. It returns where the next page begins and how long it should be.
func (c *conn) sendPage(m *member, page []broker.Message, from, to broker.ID, follows bool) (broker.ID, int) {
	if len(page) == 0 { // trimmed or expired since the replay began
		c.gw.metrics.replayGaps.Inc()
		c.socket.send(resetFrame(m.channel.name, to))
		return to, replayPage
	}
	var chunk []byte
	total := 0
	for i := range page {
		msg := &page[i]
		if msg.ID.Compare(to) > 0 { // the hub has it
			from = to
			break
		}
		if follows && msg.Prev != from {
			c.gw.metrics.replayGaps.Inc()
			chunk = append(chunk, resetFrame(m.channel.name, msg.Prev)...)
		}
		from, follows = msg.ID, true
		frame, err := messageFrame(m.channel.name, msg.ID, msg.Payload)
		if err != nil {
			c.gw.hub.refuse(m.channel.name, err)
			continue
		}
		c.gw.metrics.replayed.Inc()
		total += len(frame)
		if chunk = append(chunk, frame...); len(chunk) >= replayBytes {
			c.sendWhenDrained(chunk)
			chunk = nil
		}
	}
	if len(chunk) > 0 {
		c.sendWhenDrained(chunk)
	}
	return from, min(replayPage, max(1, len(page)*replayBytes/max(1, total)))
}

// sendWhenDrained sends once the socket has taken all before: a replay is as
// slow as its reader, and never too much for the outbox.
func (c *conn) sendWhenDrained(frames []byte) {
	c.socket.awaitDrained()
	c.socket.send(frames)
	c.gw.metrics.bytesOut.Add(float64(len(frames)))
}

// position is where a client wants to go on on a channel.
type position struct {
	given bool      // else: live from now
	all   bool      // "0": everything kept
	id    broker.ID // the last message seen
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

// begin has a member get what it has missed, then what comes.
func (c *conn) begin(e entry) {
	switch r := e.recovery; {
	case r.from.Compare(e.held) < 0:
		go c.replay(e.member, r.from, e.held, r.follows)
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
