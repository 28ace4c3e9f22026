package gateway

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"wssgateway/gateway/wire"
	"wssgateway/session"
)

// hello is what the handshake said of the client.
type hello struct {
	grant   *grant        // nil without a token
	connect *wire.Request // the connect request, if it was in the query string
}

// connect makes a session of the connection. A refused token, too many
// connections and an unreachable Redis end it.
func (c *conn) connect(ctx context.Context, r wire.Request) error {
	if c.grant.Load() != nil {
		return mistake(wire.BadRequest, "connected already")
	}
	asked, err := c.asked(r)
	if err != nil {
		return err
	}
	g, err := c.authenticate(r.Token)
	if err != nil {
		c.sendError(&wire.Error{Ref: r.Ref, Code: wire.Unauthorized, Message: err.Error()}, 0)
		c.fail(causeBadToken)
		return nil
	}
	c.deadline.Store(0) // it has said who it is in time
	claimed, err := c.gw.sessions.Claim(ctx, session.Claim{
		User: g.user, Wanted: r.Session, Device: r.Device, Client: g.client, IP: c.ip,
		Limit: c.gw.cfg.Limits.Clients[g.client].Connections, Holder: c,
	})
	if err != nil {
		c.refuseClaim(r.Ref, err)
		return nil
	}
	if !c.own(claimed.Session, g) {
		return nil
	}
	c.goOnFromAck(claimed, asked)
	c.welcome(ctx, r, claimed, asked)
	if claimed.Previous != nil {
		if err := c.gw.control.tell(ctx, opEvict, *claimed.Previous); err != nil {
			c.gw.log.Warn("old connection of a session not told", "session", claimed.Session.ID, "error", err)
		}
	}
	return nil
}

// asked returns the channels that a connect request names, with positions. A name
// that cannot be one costs its channel alone: see enterAll.
func (c *conn) asked(r wire.Request) (map[string]position, error) {
	asked := make(map[string]position, len(r.Channels))
	for name, since := range r.Channels {
		p, ok := parsePosition(since)
		if !ok {
			return nil, mistake(wire.BadRequest, "channels: not a position: "+since)
		}
		asked[name] = p
	}
	return asked, nil
}

// authenticate returns what the client's token grants, be it from the handshake
// or from the connect request.
func (c *conn) authenticate(token string) (*grant, error) {
	if token == "" {
		if c.hello.grant == nil {
			return nil, errors.New("token is missing")
		}
		return c.hello.grant, nil
	}
	g, err := c.gw.verifier.verify(token)
	if err != nil {
		return nil, err
	}
	if c.hello.grant != nil && c.hello.grant.user != g.user {
		return nil, errors.New("token is another user's than the handshake's")
	}
	return g, nil
}

func (c *conn) refuseClaim(ref wire.Ref, err error) {
	if errors.Is(err, session.ErrLimit) {
		c.sendError(&wire.Error{Ref: ref, Code: wire.LimitExceeded, Message: "too many connections"}, 0)
		c.fail(causeConnections)
		return
	}
	c.gw.log.Debug("session not claimed", "error", err)
	c.sendError(&wire.Error{Ref: ref, Code: wire.Unavailable, Message: "cannot connect now, try again"}, 0)
	c.fail(causeUnavailable)
}

// own takes a claimed session. It reports false if the connection has gone
// meanwhile; then the session is left.
func (c *conn) own(s *session.Session, g *grant) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		s.Leave(c.gw.cfg.ResumeWindow, c.socket.Cause().Label)
		return false
	}
	c.session = s
	c.grant.Store(g)
	c.hello = nil
	return true
}

// outcome is what became of a channel of a connect request.
type outcome struct {
	name    string
	since   position
	channel *channel // opened, and not entered yet
	entry   entry
	code    wire.Code // "" if it was entered
	acked   string    // the position, if it is the device's and not the client's
}

// welcome enters all channels of the session, tells where each stands, and then
// begins them: nothing is delivered before the reply.
func (c *conn) welcome(ctx context.Context, r wire.Request, claimed session.Claimed, asked map[string]position) {
	outcomes := c.enterAll(ctx, asked)
	c.enterPresence(ctx, claimed.Session.Channels(), outcomes)
	o := wire.NewObject("connected", r.Ref).
		Str("session", claimed.Session.ID).
		Str("user", claimed.Session.User).
		Str("node", c.gw.cfg.NodeName).
		Bool("resumed", claimed.Resumed).
		Int("ping", int64(c.timeout().Seconds()/2))
	c.grant.Load().describeEnd(o)
	o.Object("channels", func(o *wire.Object) {
		for _, out := range outcomes {
			o.Object(out.name, func(o *wire.Object) {
				if out.code != "" {
					o.Str("error", string(out.code))
					return
				}
				out.entry.recovery.describe(o, out.entry.member.channel)
				if out.acked != "" {
					o.Str("since", out.acked)
				}
			})
		}
	})
	c.send(o)
	for _, out := range outcomes {
		if out.code == "" {
			c.begin(out.entry)
		}
	}
	c.age.Store(int64(c.gw.retireAt()))
	c.socket.SetTimeout(c.timeout())
	c.setAlarm()
	c.welcomeOver()
}

// enterAll enters what was asked for, and what every session and this token
// subscribe to. Channels new to the node are waited for side by side.
func (c *conn) enterAll(ctx context.Context, asked map[string]position) []outcome {
	g := c.grant.Load()
	own := []string{wire.Inbox(g.user), wire.Broadcast}
	for _, name := range slices.Concat(own, g.join) {
		if _, ok := asked[name]; !ok {
			asked[name] = position{}
		}
	}
	names := slices.Sorted(maps.Keys(asked))
	outcomes := make([]outcome, len(names))
	free := c.gw.cfg.Limits.Subscriptions
	for i, name := range names {
		out := &outcomes[i]
		out.name, out.since = name, asked[name]
		chosen := !slices.Contains(own, name)
		switch {
		case !ValidChannel(name):
			out.code = wire.BadRequest
		case !g.maySubscribe(&c.gw.cfg, name):
			out.code = wire.Forbidden
		case chosen && free == 0:
			out.code = wire.LimitExceeded
		default:
			if chosen {
				free--
			}
			out.channel = c.gw.hub.open(name, c.gw.cfg.class(name))
		}
	}
	c.enterOpened(ctx, outcomes)
	return outcomes
}

// enterOpened enters the channels that were opened: those that need Redis side by
// side.
func (c *conn) enterOpened(ctx context.Context, outcomes []outcome) {
	var slow []*outcome
	for i := range outcomes {
		switch out := &outcomes[i]; {
		case out.channel == nil:
		case c.gw.hub.standsAt(out.channel, out.since):
			out.enter(ctx, c)
		default:
			slow = append(slow, out)
		}
	}
	var wg sync.WaitGroup
	for i, out := range slow {
		if i == len(slow)-1 {
			out.enter(ctx, c)
		} else {
			wg.Go(func() { out.enter(ctx, c) })
		}
	}
	wg.Wait()
}

func (out *outcome) enter(ctx context.Context, c *conn) {
	if out.since.acked {
		out.acked = out.since.id.String()
	}
	var err error
	if out.entry, err = c.enter(ctx, out.name, out.since, out.channel); err != nil {
		out.code = wire.Unavailable
	}
	out.channel = nil
}
