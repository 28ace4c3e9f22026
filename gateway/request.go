package gateway

import (
	"context"
	"errors"
	"slices"
	"time"

	"wssgateway/gateway/wire"
)

// requestTimeout bounds what the requests of one frame, or of one call of the HTTP
// API, wait for Redis, however many they are: so that the client has its answers
// within the five seconds that the protocol promises.
const requestTimeout = 4500 * time.Millisecond

// handle handles one message of the client: its requests, in order.
func (c *conn) handle(binary bool, message []byte) {
	ctx, cancel, vain := c.frameContext()
	defer cancel()
	if cost := handlingCost * int64(len(message)); c.gw.budget.TryHandle(cost) {
		defer c.gw.budget.Handled(cost)
	} else {
		cancel() // what would wait for Redis is not to be had
	}
	if binary {
		r, err := wire.DecodeBinary(message)
		vain = c.respond(ctx, r, err) == wire.Unavailable || vain
	} else if requests, err := wire.Split(message); err != nil {
		c.respond(ctx, wire.Request{}, err)
	} else {
		vain = c.respondAll(ctx, requests) || vain
	}
	if (vain || ctx.Err() != nil) && c.socket.Pending() {
		deadline, _ := ctx.Deadline()
		c.late = &late{time.Now(), deadline}
	}
}

// handlingCost is what a message takes for each of its bytes while it waits for Redis:
// itself, the payload, and the command.
const handlingCost = 3

// late says that frames had come while one waited for Redis in vain.
type late struct{ at, deadline time.Time }

// lateFor is how soon after that a frame is handled if it is one of them: the reader
// is at it already.
const lateFor = 100 * time.Millisecond

// frameContext bounds what a frame waits for Redis. One that has come while the one
// before it waited in vain has the same deadline: else the last of many would be
// answered after minutes. vain says that it is one of these: so are those that have
// come with it.
func (c *conn) frameContext() (ctx context.Context, cancel context.CancelFunc, vain bool) {
	before := c.late
	c.late = nil
	if before == nil || time.Since(before.at) > lateFor {
		ctx, cancel = c.gw.requestContext()
		return ctx, cancel, false
	}
	ctx, cancel = context.WithDeadline(c.gw.life, before.deadline)
	return ctx, cancel, true
}

// respondAll handles the requests of an array. It reports whether one of them waited
// for Redis in vain.
func (c *conn) respondAll(ctx context.Context, requests [][]byte) (vain bool) {
	var failed unpublishable
	for _, raw := range requests {
		if c.socket.Cause() != nil {
			break
		}
		r, err := wire.Decode(raw)
		if err == nil {
			err = failed.refuse(r)
		}
		if c.respond(ctx, r, err) == wire.Unavailable {
			failed.add(r)
			vain = true
		}
	}
	return vain
}

// request handles a request that came with the handshake.
func (c *conn) request(r wire.Request, err error) {
	ctx, cancel := c.gw.requestContext()
	defer cancel()
	c.respond(ctx, r, err)
}

// unpublishable are the channels on which a message of an array was not published:
// none follows on it, so that repeating what failed keeps the order.
type unpublishable []string

func (u unpublishable) refuse(r wire.Request) error {
	if len(u) == 0 || r.Type != "publish" {
		return nil
	}
	if channel, err := target(r); err != nil || !slices.Contains(u, channel) {
		return nil // a mistake is told by publish
	}
	return mistake(wire.Unavailable, untried)
}

func (u *unpublishable) add(r wire.Request) {
	if channel, err := target(r); err == nil && r.Type == "publish" && !slices.Contains(*u, channel) {
		*u = append(*u, channel)
	}
}

// respond handles a request, or the mistake that was found in it. It returns the
// code of the error that the client was told, if any.
func (c *conn) respond(ctx context.Context, r wire.Request, err error) wire.Code {
	c.gw.metrics.requests.Inc()
	retry, ok := c.limiter.allow(time.Now(), c.gw.cfg.Limits.MessagesPerSecond)
	if !ok {
		c.rateLimited(r.Ref, err, retry)
		return wire.RateLimited
	}
	if err == nil {
		err = c.dispatch(ctx, r)
	}
	mistake := c.mistakeOf(r, err)
	if mistake == nil || mistake.Code != wire.BadRequest {
		c.badFrames = 0
	} else {
		c.badFrames++
	}
	if mistake != nil {
		c.sendError(mistake, 0)
	}
	if c.badFrames >= c.gw.cfg.Limits.BadFrames {
		c.fail(causeBadFrames)
	}
	if mistake == nil {
		return ""
	}
	return mistake.Code
}

// mistakeOf returns what the client is told of an error, or nil.
func (c *conn) mistakeOf(r wire.Request, err error) *wire.Error {
	var told *wire.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &told):
		told = &wire.Error{Code: wire.Internal, Message: "internal error"}
		c.gw.log.Error("request failed", "type", r.Type, "error", err)
	}
	if told.Ref == "" {
		told.Ref = r.Ref
	}
	return told
}

func (c *conn) rateLimited(ref wire.Ref, mistake error, retry time.Duration) {
	var e *wire.Error
	if errors.As(mistake, &e) {
		ref = e.Ref
	}
	c.sendError(&wire.Error{Ref: ref, Code: wire.RateLimited, Message: "too many requests"}, retry)
	if c.limiter.flooded() {
		c.fail(causeRate)
	}
}

func (c *conn) sendError(e *wire.Error, retry time.Duration) {
	c.gw.metrics.errors[e.Code].Inc()
	o := wire.NewObject("error", e.Ref).Str("code", string(e.Code)).Str("message", e.Message)
	if retry > 0 {
		o.Int("retry_after_ms", retry.Milliseconds())
	}
	c.send(o)
}

// send sends a frame of the server's own.
func (c *conn) send(o *wire.Object) {
	frame := c.packed(o.Frame())
	c.gw.metrics.bytesOut.Add(float64(len(frame)))
	c.socket.Send(frame)
}

// packed returns a frame as the connection wants it.
func (c *conn) packed(frame []byte) []byte {
	if c.deflates {
		return wire.Deflate(frame)
	}
	return frame
}

// mistake is an error that is told to the client.
func mistake(code wire.Code, message string) error {
	return &wire.Error{Code: code, Message: message}
}

// handlerOf returns what handles requests of a type, or nil. What it waits for
// Redis is bounded by the context, which is that of all requests of a frame.
func handlerOf(kind string) func(*conn, context.Context, wire.Request) error {
	switch kind {
	case "subscribe":
		return (*conn).subscribe
	case "unsubscribe":
		return (*conn).unsubscribe
	case "publish":
		return (*conn).publish
	case "history":
		return (*conn).history
	case "presence":
		return (*conn).presence
	case "refresh":
		return (*conn).refresh
	case "ack":
		return (*conn).ack
	case "call":
		return (*conn).call
	case "ping":
		return (*conn).ping
	case "connect":
		return (*conn).connect
	}
	return nil
}

// dispatch handles a request that could be decoded. An error is its reply.
func (c *conn) dispatch(ctx context.Context, r wire.Request) error {
	handler := handlerOf(r.Type)
	switch {
	case handler == nil:
		return mistake(wire.BadRequest, "type: is not known")
	case c.grant.Load() == nil && r.Type != "connect":
		return mistake(wire.Unauthorized, "connect first")
	}
	return handler(c, ctx, r)
}

func (c *conn) ping(_ context.Context, r wire.Request) error {
	if r.Ref != "" {
		c.send(wire.NewObject("pong", r.Ref))
	}
	return nil
}

// refresh puts a newer token in the place of the one the client connected with.
func (c *conn) refresh(ctx context.Context, r wire.Request) error {
	if r.Token == "" {
		return mistake(wire.BadRequest, "token: is required")
	}
	g, err := c.gw.verifier.verify(r.Token)
	switch {
	case err != nil:
		return mistake(wire.Unauthorized, err.Error())
	case g.user != c.grant.Load().user:
		return mistake(wire.Forbidden, "token is another user's")
	}
	g.client = c.grant.Load().client // the session is counted as what it is
	c.grant.Store(g)
	c.setAlarm()
	for _, m := range c.memberships() {
		if !g.maySubscribe(&c.gw.cfg, m.channel.name) {
			c.leaveChannel(m, wire.NewObject("unsubscribed", "").Str("channel", m.channel.name))
			c.gw.presence.leave(ctx, c.session, m.channel.name)
		}
	}
	c.recordChannels()
	if r.Ref != "" {
		o := wire.NewObject("refreshed", r.Ref)
		if !g.expires.IsZero() {
			o.Int("expires_at", g.expires.Unix())
		}
		g.describeEnd(o)
		c.send(o)
	}
	return nil
}
