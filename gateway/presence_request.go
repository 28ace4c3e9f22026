package gateway

import (
	"context"
	"maps"
	"slices"
	"strconv"

	"wssgateway/gateway/wire"
)

// presenceListed bounds the members that a reply lists: with names of usual
// length it fits in an outbox several times. The count counts all.
const presenceListed = 10_000

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
	users, err := c.gw.broker.Users(ctx, presenceChannel(r.Channel))
	if err != nil {
		return mistake(wire.Unavailable, "cannot be asked now, try again")
	}
	names := slices.Sorted(maps.Keys(users))
	o := wire.NewObject("presence", r.Ref).Str("channel", r.Channel)
	o.Raw("members", presenceMembers(names[:min(len(names), presenceListed)], users))
	c.send(o.Int("count", int64(len(names))))
	return nil
}

// presenceMembers returns the array of a reply.
func presenceMembers(names []string, users map[string]int) string {
	b := []byte{'['}
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = wire.AppendString(append(b, `{"user":`...), name)
		b = strconv.AppendInt(append(b, `,"sessions":`...), int64(users[name]), 10)
		b = append(b, '}')
	}
	return string(append(b, ']'))
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
