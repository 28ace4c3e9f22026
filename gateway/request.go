package gateway

import (
	"errors"
	"time"

	"wssgateway/gateway/wire"
)

// requestTimeout bounds what one request waits for Redis, so that the client has
// its answer within the five seconds that the protocol promises.
const requestTimeout = 4500 * time.Millisecond

// handle handles one message of the client: its requests, in order.
func (c *conn) handle(binary bool, message []byte) {
	if binary {
		c.request(wire.DecodeBinary(message))
		return
	}
	requests, err := wire.Split(message)
	if err != nil {
		c.request(wire.Request{}, err)
		return
	}
	for _, raw := range requests {
		if c.ended.Load() != nil {
			return
		}
		c.request(wire.Decode(raw))
	}
}

// request handles one request, or the mistake that was found in it.
func (c *conn) request(r wire.Request, err error) {
	c.gw.metrics.requests.Inc()
	retry, ok := c.limiter.allow(time.Now(), c.gw.cfg.Limits.MessagesPerSecond)
	if !ok {
		c.rateLimited(r.Ref, err, retry)
		return
	}
	if err == nil {
		err = c.dispatch(r)
	}
	var mistake *wire.Error
	if err != nil && !errors.As(err, &mistake) {
		mistake = &wire.Error{Code: wire.Internal, Message: "internal error"}
		c.gw.log.Error("request failed", "type", r.Type, "error", err)
	}
	if mistake == nil || mistake.Code != wire.BadRequest {
		c.badFrames = 0
	} else {
		c.badFrames++
	}
	if mistake != nil {
		if mistake.Ref == "" {
			mistake.Ref = r.Ref
		}
		c.sendError(mistake, 0)
	}
	if c.badFrames >= c.gw.cfg.Limits.BadFrames {
		c.fail(causeBadFrames)
	}
}

func (c *conn) rateLimited(ref wire.Ref, mistake error, retry time.Duration) {
	var e *wire.Error
	if errors.As(mistake, &e) {
		ref = e.Ref
	}
	c.sendError(&wire.Error{Ref: ref, Code: wire.RateLimited, Message: "too many requests"}, retry)
	if c.limiter.refused >= maxRefused {
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
	c.socket.send(frame)
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

// dispatch handles a request that could be decoded. An error is its reply.
func (c *conn) dispatch(r wire.Request) error {
	handler, ok := map[string]func(*conn, wire.Request) error{
		"subscribe":   (*conn).subscribe,
		"unsubscribe": (*conn).unsubscribe,
		"publish":     (*conn).publish,
		"history":     (*conn).history,
		"presence":    (*conn).presence,
		"refresh":     (*conn).refresh,
		"ack":         (*conn).ack,
		"call":        (*conn).call,
		"ping":        (*conn).ping,
		"connect":     (*conn).connect,
	}[r.Type]
	switch {
	case !ok:
		return mistake(wire.BadRequest, "type: is not known")
	case c.grant.Load() == nil && r.Type != "connect":
		return mistake(wire.Unauthorized, "connect first")
	}
	return handler(c, r)
}

func (c *conn) ping(r wire.Request) error {
	if r.Ref != "" {
		c.send(wire.NewObject("pong", r.Ref))
	}
	return nil
}

// refresh puts a newer token in the place of the one the client connected with.
func (c *conn) refresh(r wire.Request) error {
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
	c.rearm()
	for _, m := range c.memberships() {
		if !g.maySubscribe(&c.gw.cfg, m.channel.name) {
			c.leaveChannel(m, wire.NewObject("unsubscribed", "").Str("channel", m.channel.name))
			c.gw.leavePresence(c.session, m.channel.name)
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
