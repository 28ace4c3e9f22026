package gateway

import (
	"context"
	"errors"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
)

// publish publishes a message of the client's, to a channel or to a user.
func (c *conn) publish(ctx context.Context, r wire.Request) error {
	channel, err := target(r)
	if err != nil {
		return err
	}
	if r.Data == nil {
		return mistake(wire.BadRequest, "data: is required")
	}
	if r.HasKey && r.Key == "" {
		return mistake(wire.BadRequest, "key: must have 1 to 128 bytes")
	}
	g := c.grant.Load()
	if !g.mayPublish(&c.gw.cfg, channel) {
		return mistake(wire.Forbidden, "you may not publish to this channel")
	}
	id, err := c.gw.publish(ctx, channel, &message{
		event: r.Event, from: g.user, to: r.To, data: r.Data, binary: r.Binary,
	}, r.Key, wire.Inbox(g.user))
	if err != nil {
		return mistake(wire.Unavailable, unpublished(err))
	}
	if r.Ref != "" {
		o := wire.NewObject("published", r.Ref).Str("channel", channel)
		if !id.IsZero() {
			o.Str("id", id.String())
		}
		c.send(o)
	}
	return nil
}

// untried is said of a message that was not published because one before it, of
// the same array and on the same channel, was not.
const untried = "not published: one before it on its channel was not; try again with the same key"

// unpublished says what is known of a message after an error of publish.
func unpublished(err error) string {
	if errors.Is(err, broker.ErrNotReplicated) {
		return "published, but no replica has it, so that it may still be lost; try again with the same key"
	}
	return "not known whether it was published; try again with the same key"
}

// target returns the channel that a request publishes to.
func target(r wire.Request) (string, error) {
	switch {
	case r.Channel != "" && r.To != "":
		return "", mistake(wire.BadRequest, "channel and to: give one of them")
	case r.To == "":
		return r.Channel, checkChannel(r.Channel)
	case !ValidUser(r.To):
		return "", mistake(wire.BadRequest, "to: is not the name of a user")
	}
	return wire.Inbox(r.To), nil
}

// backendScope is where the idempotency keys of backends count. No user's inbox
// has this name.
const backendScope = "backend"

// publish publishes a message. scope says whose key it is. After an error it is
// not known whether the message was published.
func (g *Gateway) publish(ctx context.Context, channel string, m *message, key, scope string) (broker.ID, error) {
	class := g.cfg.class(channel)
	published := g.hub.tracing.publish(channel, m)
	id, err := g.broker.Publish(ctx, broker.Publication{
		Channel:   channel,
		Payload:   m.payload(),
		Retention: broker.Retention{Size: class.History.Size, TTL: class.History.TTL},
		Key:       key,
		Scope:     scope,
		Durable:   class.Durable,
	})
	published(id, err)
	if err != nil {
		g.log.Debug("not published", "channel", channel, "error", err)
	}
	return id, err
}
