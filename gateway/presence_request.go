package gateway

import (
	"context"
	"slices"

	"wssgateway/gateway/wire"
)

// presence answers who is on a channel.
func (c *conn) presence(ctx context.Context, r wire.Request) error {
	if err := checkChannel(r.Channel); err != nil {
		return err
	}
	if !c.grant.Load().maySubscribe(&c.gw.cfg, r.Channel) {
		return mistake(wire.Forbidden, "you may not subscribe to this channel")
	}
	if !c.gw.cfg.class(r.Channel).Presence {
		return mistake(wire.NotFound, "this class of channels has no presence")
	}
	if r.Ref == "" {
		return nil
	}
	now, err := c.gw.presence.rosters.ask(ctx, r.Channel)
	if err != nil {
		return mistake(wire.Unavailable, "temporarily unavailable; try again")
	}
	c.send(wire.NewObject("presence", r.Ref).Str("channel", r.Channel).
		Raw("members", now.members).Int("count", int64(now.count)))
	return nil
}

// enterPresence makes a session that has just connected a member of what it has
// entered, and no longer one of what it was on before. While both are under way
// the registry has it on all of them: should the node die, it leaves them all.
func (c *conn) enterPresence(ctx context.Context, before []string, outcomes []outcome) {
	var entered []string
	for _, out := range outcomes {
		if out.code == "" {
			entered = append(entered, out.name)
		}
	}
	left := slices.DeleteFunc(before, func(channel string) bool { return slices.Contains(entered, channel) })
	if !c.recordChannels(left...) {
		return
	}
	c.gw.presence.enter(ctx, c.session, entered...)
	c.gw.presence.leave(ctx, c.session, left...)
	c.recordChannels()
}
