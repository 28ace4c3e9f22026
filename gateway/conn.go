package gateway

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"wssgateway/gateway/transport"
	"wssgateway/session"
)

// conn is a client: one WebSocket connection, and what the protocol makes of it. It
// is the handler of its transport's events.
type conn struct {
	// Static after accept.
	gw       *Gateway
	deflates bool // compression was agreed upon
	shard    *shard
	ip       string

	socket transport.Conn

	// Owned by the goroutine that handles messages.
	hello     *hello // what the handshake said; nil once connected
	limiter   limiter
	badFrames int   // in a row
	late      *late // nil unless the last frame waited for Redis in vain

	// Times of the transport's clock; 0 for none.
	deadline atomic.Int64 // at which the present phase must be over
	age      atomic.Int64 // at which it is to be asked to move

	grant   atomic.Pointer[grant] // nil until connected
	session *session.Session      // set with grant

	mu       sync.Mutex // guards what follows
	members  []*member  // the channels it is subscribed to
	farewell *farewell  // nil unless it was asked to move
	gone     bool       // torn down: nothing is added any more
	welcomed bool       // it has its connected frame

	calling int32 // calls without a reply; guarded by calls.mu

	paging sync.Mutex // held while a page of a replay is in memory

	round []byte // owned by the shard's goroutine: what this round has for the connection
}

// start begins the life of a connection that was accepted.
func (c *conn) start() {
	c.socket.SetTimeout(c.timeout())
	c.setDeadline(c.gw.cfg.AuthTimeout)
	var first func()
	if request := c.hello.connect; request != nil {
		first = func() { c.request(*request, nil) }
	}
	c.socket.Start(first)
}

// Message implements transport.Handler.
func (c *conn) Message(binary bool, message []byte) {
	c.gw.metrics.bytesIn.Add(float64(len(message)))
	c.handle(binary, message)
}

// End implements transport.Handler.
func (c *conn) End(why cause) { c.teardown(why) }

// Gone implements transport.Handler. The node knows the connection until then, so
// that nothing is left to be done when it has none.
func (c *conn) Gone() { c.gw.conns.remove(c) }

// fail ends the connection. The first cause counts: fail reports whether it was
// this one. It does not wait and may be called from anywhere.
func (c *conn) fail(why cause) bool { return c.socket.Fail(why) }

// teardown takes the connection out of everything that knows it.
func (c *conn) teardown(why cause) {
	c.mu.Lock()
	c.gone = true
	members := c.members
	c.members = nil
	grant := c.grant.Load()
	c.mu.Unlock()
	for _, m := range members {
		c.gw.hub.leave(m, nil)
	}
	if grant != nil {
		c.leaveSession(why)
	}
	c.gw.metrics.ended[why].Inc()
	if c.gw.log.Enabled(context.Background(), slog.LevelDebug) {
		attrs := []any{"cause", why.Label, "ip", c.ip}
		if grant != nil {
			attrs = append(attrs, "user", grant.user, "session", c.session.ID)
		}
		c.gw.log.Debug("connection ended", attrs...)
	}
}

// leaveSession says what becomes of the session that the connection held.
func (c *conn) leaveSession(why cause) {
	const reloadWindow = 10 * time.Second // a page that reloads is soon back
	switch why {
	case causeMoved:
		// It is another connection's now.
	case transport.Closed, causeDisconnected:
		c.session.End(why.Label)
	case transport.Away:
		c.session.Leave(min(reloadWindow, c.gw.cfg.ResumeWindow), why.Label)
	default:
		c.session.Leave(c.gw.cfg.ResumeWindow, why.Label)
	}
}

// timeout returns after how much silence the connection is dropped.
func (c *conn) timeout() time.Duration {
	kind := clientDefault
	if g := c.grant.Load(); g != nil {
		kind = g.client
	}
	return c.gw.cfg.Limits.Clients[kind].Timeout
}

// setDeadline has the present phase end in d.
func (c *conn) setDeadline(d time.Duration) {
	c.deadline.Store(int64(c.gw.transport.Clock() + d))
	c.setAlarm()
}

// alarmMost bounds how far ahead an alarm is set: tokens expire by the time of day,
// which may be changed.
const alarmMost = time.Minute

// setAlarm sets the alarm to the next thing that can be due.
func (c *conn) setAlarm() {
	next, now := alarmMost, c.gw.transport.Clock()
	if d := c.deadline.Load(); d != 0 {
		next = min(next, time.Duration(d)-now)
	}
	if age := c.age.Load(); age != 0 {
		next = min(next, time.Duration(age)-now)
	}
	if g := c.grant.Load(); g != nil && !g.expires.IsZero() {
		next = min(next, time.Until(g.expires.Add(tokenLeeway)))
	}
	c.socket.SetAlarm(next)
}

// Alarm implements transport.Handler: it does what is due.
func (c *conn) Alarm() {
	now, g := int64(c.gw.transport.Clock()), c.grant.Load()
	switch d := c.deadline.Load(); {
	case d != 0 && now >= d && g == nil:
		c.fail(causeNoConnect)
		return
	case d != 0 && now >= d:
		c.fail(causeRebalance) // it was asked to move, and has not
		return
	case g != nil && !g.expires.IsZero() && time.Now().After(g.expires.Add(tokenLeeway)):
		c.fail(causeExpired)
		return
	}
	if age := c.age.Load(); age != 0 && now >= age && c.age.CompareAndSwap(age, 0) {
		c.retire()
	}
	c.setAlarm()
}
