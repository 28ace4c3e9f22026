package gateway

import (
	"context"
	"errors"
	"slices"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
)

// checkChannel returns the mistake in a channel's name, if there is one.
func checkChannel(name string) error {
	switch {
	case name == "":
		return mistake(wire.BadRequest, "channel: is required")
	case !ValidChannel(name):
		return mistake(wire.BadRequest, "channel: is not the name of a channel")
	}
	return nil
}

// subscribe subscribes the session to a channel, or has what follows a position
// replayed on one that it is subscribed to.
func (c *conn) subscribe(ctx context.Context, r wire.Request) error {
	if err := checkChannel(r.Channel); err != nil {
		return err
	}
	p, ok := parsePosition(r.Since)
	if !ok {
		return mistake(wire.BadRequest, "since: is not a position")
	}
	if !c.grant.Load().maySubscribe(&c.gw.cfg, r.Channel) {
		return mistake(wire.Forbidden, "you may not subscribe to this channel")
	}
	if c.member(r.Channel) == nil && c.chosen() >= c.gw.cfg.Limits.Subscriptions {
		return mistake(wire.LimitExceeded, "too many subscriptions")
	}
	e, err := c.enter(ctx, r.Channel, p, nil)
	if err != nil {
		return mistake(wire.Unavailable, "cannot subscribe now, try again")
	}
	if c.recordChannels() {
		c.gw.presence.enter(ctx, c.session, r.Channel)
	}
	o := wire.NewObject("subscribed", r.Ref).Str("channel", r.Channel)
	c.send(e.recovery.describe(o, e.member.channel))
	c.begin(e)
	return nil
}

// entry is a channel that a connection has entered, and not begun to receive.
type entry struct {
	member   *member
	held     broker.ID // where the hub began to keep what comes
	recovery recovery
}

var errGone = errors.New("connection is gone")

// enter makes the connection a member of a channel, and finds out what it has
// missed. Nothing is delivered before begin. The channel may have been opened.
func (c *conn) enter(ctx context.Context, name string, p position, ch *channel) (entry, error) {
	old := c.member(name)
	if old != nil {
		ch = old.channel
	} else {
		if ch == nil {
			ch = c.gw.hub.open(name, c.gw.cfg.class(name))
		}
		if err := c.gw.hub.await(ctx, ch); err != nil {
			return entry{}, err
		}
	}
	m, held := c.gw.hub.hold(c, ch, old)
	if !c.admit(m, old) {
		return entry{}, errGone
	}
	if !p.given && old != nil {
		return entry{m, held, c.goOn(old, held)}, nil
	}
	r, err := c.recover(ctx, ch, p, held)
	if err != nil {
		if old == nil {
			c.leaveChannel(m, nil)
		} else {
			c.begin(entry{m, held, c.goOn(old, held)}) // as it was
		}
		return entry{}, err
	}
	if p.given {
		c.gw.metrics.recoveries(r.recovered).Inc()
	}
	return entry{m, held, r}, nil
}

// admit adds a membership in the place of old, whose reference to the channel
// it takes over. It reports false if the connection is gone.
func (c *conn) admit(m, old *member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		if old == nil {
			c.gw.hub.leave(m, nil)
		} else {
			c.gw.hub.detach(m, nil)
		}
		return false
	}
	if i := slices.Index(c.members, old); old != nil && i >= 0 {
		c.members[i] = m
	} else {
		c.members = append(c.members, m)
	}
	return true
}

// unsubscribe ends a subscription. One that there is not has ended already.
func (c *conn) unsubscribe(ctx context.Context, r wire.Request) error {
	if err := checkChannel(r.Channel); err != nil {
		return err
	}
	if own := c.grant.Load().user; r.Channel == wire.Inbox(own) || r.Channel == wire.Broadcast {
		return mistake(wire.Forbidden, "every session is subscribed to this channel")
	}
	var reply *wire.Object
	if r.Ref != "" {
		reply = wire.NewObject("unsubscribed", r.Ref).Str("channel", r.Channel)
	}
	m := c.member(r.Channel)
	if m == nil {
		if reply != nil {
			c.send(reply)
		}
		return nil
	}
	c.leaveChannel(m, reply)
	c.gw.presence.leave(ctx, c.session, r.Channel)
	c.recordChannels()
	return nil
}

// leaveChannel ends a membership; last is the last frame of it, if any.
func (c *conn) leaveChannel(m *member, last *wire.Object) {
	c.mu.Lock()
	i := slices.Index(c.members, m)
	if i < 0 { // the connection is being torn down
		c.mu.Unlock()
		return
	}
	c.members = slices.Delete(c.members, i, i+1)
	c.mu.Unlock()
	var frame []byte
	if last != nil {
		frame = last.Frame()
	}
	c.gw.hub.leave(m, frame)
}

// member returns the connection's membership of a channel, or nil.
func (c *conn) member(channel string) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.members {
		if m.channel.name == channel {
			return m
		}
	}
	return nil
}

// memberships returns all that the connection is subscribed to.
func (c *conn) memberships() []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.members)
}

// chosen returns how many channels there are besides inbox and broadcast.
func (c *conn) chosen() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, len(c.members)-2)
}

// recordChannels has the registry know the session's channels, and more if they
// are still to be left. It reports false, having done nothing, if the connection
// is being torn down: what was known before is what the session leaves then.
func (c *conn) recordChannels(more ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return false
	}
	names := slices.Clone(more)
	for _, m := range c.members {
		names = append(names, m.channel.name)
	}
	slices.Sort(names)
	c.session.SetChannels(names)
	return true
}
