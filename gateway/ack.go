package gateway

import (
	"context"
	"time"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
	"wssgateway/session"
)

// ack keeps how far the client's device has read its inbox.
func (c *conn) ack(ctx context.Context, r wire.Request) error {
	if err := checkChannel(r.Channel); err != nil {
		return err
	}
	if r.Channel != wire.Inbox(c.session.User) {
		return mistake(wire.BadRequest, "channel: only the own inbox can be acknowledged")
	}
	if c.session.Device == "" {
		return mistake(wire.BadRequest, "connect with a device to acknowledge")
	}
	id, err := broker.ParseID(r.ID)
	if err != nil {
		return mistake(wire.BadRequest, "id: is not the id of a message")
	}
	issued, err := c.gw.issued(ctx, r.Channel, id)
	if err == nil && !issued {
		return mistake(wire.BadRequest, "id: is newer than every message of the inbox")
	}
	if err == nil {
		err = c.gw.sessions.Ack(ctx, c.session.User, c.session.Device, id.String())
	}
	if err != nil {
		c.gw.log.Debug("not acknowledged", "error", err)
		return mistake(wire.Unavailable, "not known whether it was kept; try again")
	}
	if r.Ref != "" {
		c.send(wire.NewObject("acked", r.Ref))
	}
	return nil
}

// clockAhead is how far ahead of this node's clock that of Redis may be.
const clockAhead = time.Hour

// issued reports whether an id may be that of a message: nothing would ever come after
// one of the far future. Only those are looked at, as Redis may have had another clock
// when it issued them; of what is older the channel may have forgotten how far it was.
func (g *Gateway) issued(ctx context.Context, channel string, id broker.ID) (bool, error) {
	if id.MS <= uint64(time.Now().Add(clockAhead).UnixMilli()) {
		return true, nil
	}
	head, err := g.broker.Head(ctx, channel, id)
	return id.Compare(head.Last) <= 0, err
}

// goOnFromAck has the inbox replayed from where the device has read it, unless
// the client says from where itself.
func (c *conn) goOnFromAck(claimed session.Claimed, asked map[string]position) {
	inbox := wire.Inbox(claimed.Session.User)
	if claimed.Acked == "" || asked[inbox].given {
		return
	}
	if p, ok := parsePosition(claimed.Acked); ok {
		p.acked = true
		asked[inbox] = p
	}
}
