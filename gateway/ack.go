package gateway

import (
	"context"

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
	if err := c.gw.sessions.Ack(ctx, c.session.User, c.session.Device, id.String()); err != nil {
		c.gw.log.Debug("not acknowledged", "error", err)
		return mistake(wire.Unavailable, "not known whether it was kept; try again")
	}
	if r.Ref != "" {
		c.send(wire.NewObject("acked", r.Ref))
	}
	return nil
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
