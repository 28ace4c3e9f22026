package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"wssgateway/gateway/wire"
	"wssgateway/session"
)

// conn is one WebSocket connection.
//
// At rest it has no goroutine: the poller tells when there is something to read.
// Pings and pongs, which come as long as nothing else does, the poller's goroutine
// takes in; for a frame, one of the crew reads and handles it, and what else has
// come. Everything else that has to do with the connection happens elsewhere: the
// hub writes to it, the wheel pings it.
type conn struct {
	// Static after accept.
	gw       *Gateway
	deflates bool // compression was agreed upon
	shard    *shard
	ip       string

	socket     socket
	timer      timed
	watched    atomic.Bool // by the poller; else park waits
	descriptor int32       // if watched

	// wakes is 0 at rest. Whoever takes it from there reads, and what comes
	// meanwhile only adds to it.
	wakes atomic.Int32

	// Owned by the goroutine that reads.
	hello     *hello // what the handshake said; nil once connected
	limiter   limiter
	badFrames int   // in a row
	readErr   error // why nothing more will come

	deadline atomic.Int32 // tick at which the present phase must be over; 0: none
	age      atomic.Int32 // tick at which it is to be asked to move; 0: never
	ended    atomic.Pointer[cause]
	over     atomic.Int32 // of reading and teardown, how many are

	grant   atomic.Pointer[grant] // nil until connected
	session *session.Session      // set with grant

	mu       sync.Mutex // guards what follows
	members  []*member  // the channels it is subscribed to
	gone     bool       // torn down: nothing is added any more
	welcomed bool       // it has its connected frame
	farewell *farewell  // nil unless it was asked to move

	calling int // calls without a reply; guarded by calls.mu

	paging sync.Mutex // held while a page of a replay is in memory

	round []byte // owned by the shard's goroutine: what this round has for the connection
}

const (
	// closeWait is how long a peer has to answer a close frame.
	closeWait = 5 * time.Second
	// slowWait is the same for a peer that is too slow: the close frame only
	// reaches it once it has read what is before.
	slowWait = writeTimeout
)

// start begins the life of a connection that was accepted.
func (c *conn) start() {
	c.timer.fire = c.onTimer
	c.socket.heard.Store(c.gw.wheel.now.Load())
	c.setDeadline(c.gw.cfg.AuthTimeout)
	c.rearm()
	c.wakes.Store(1)
	c.watched.Store(c.shard.poller.add(c))
	if request := c.hello.connect; request != nil {
		c.request(*request, nil)
	}
	c.serve()
}

// ready is told by the poller that there is something to read, or never will be.
func (c *conn) ready() {
	if c.wakes.Add(1) == 1 && c.look(pollerReads) {
		c.gw.crew.take(c)
	}
}

const (
	// pollerReads is how often the poller's goroutine reads one connection: a
	// pong, and that nothing comes after it. Who sends pings without end is the
	// crew's.
	pollerReads = 2
	crewReads   = math.MaxInt
)

// look takes in what has come, without waiting, in so many reads at most. It
// reports whether there is a frame to be handled, the end, or more to be read; if
// not, the connection is at rest.
func (c *conn) look(reads int) bool {
	for ; reads > 0; reads-- {
		before := c.wakes.Load()
		came, err := c.socket.readNow()
		if c.readErr = err; err != nil || c.socket.next() {
			return true
		}
		if !came && c.wakes.CompareAndSwap(before, 0) {
			return false
		}
	}
	return true
}

// do implements job.
func (c *conn) do() { c.serve() }

// serve reads and handles what has come, until the connection is at rest.
func (c *conn) serve() {
	for c.readErr == nil {
		for c.socket.next() {
			if err := c.readMessage(); err != nil {
				c.finish(err)
				return
			}
		}
		if !c.watched.Load() {
			go c.park()
			return
		}
		if !c.look(crewReads) {
			return
		}
	}
	c.finish(c.readErr)
}

// park waits for the next frame where there is no poller: in a goroutine whose
// stack has never grown.
func (c *conn) park() {
	for c.readErr == nil && !c.socket.next() {
		c.readErr = c.socket.wait()
	}
	c.gw.crew.take(c)
}

// cut closes the connection. Nobody reads at rest, so somebody must see to its
// end.
func (c *conn) cut() {
	c.socket.cut()
	if c.watched.Load() {
		c.ready()
	}
}

// messageBufs are for messages while they are read and handled.
var messageBufs = sync.Pool{New: func() any { b := make([]byte, 4096); return &b }}

func (c *conn) readMessage() error {
	buf := messageBufs.Get().(*[]byte)
	defer messageBufs.Put(buf)
	kind, message, err := c.nextMessage(buf)
	if err != nil {
		return err
	}
	c.gw.metrics.bytesIn.Add(float64(len(message)))
	if c.ended.Load() != nil {
		return nil // the close frame is on its way; the peer may not have seen it
	}
	if kind == websocket.MessageText && !utf8.Valid(message) {
		c.fail(causeInvalidText)
		return nil
	}
	c.handle(kind == websocket.MessageBinary, message)
	return nil
}

// nextMessage reads a message into buf, which grows as it must.
func (c *conn) nextMessage(buf *[]byte) (websocket.MessageType, []byte, error) {
	codecs := c.gw.codecs(c.deflates)
	k := codecs.lend(&c.socket)
	kind, r, err := k.ws.Reader(context.Background())
	var message []byte
	if err == nil {
		message, err = readAll(r, buf)
	}
	if err != nil {
		k.drop()
		return 0, nil, err
	}
	codecs.back(k)
	return kind, message, nil
}

// readAll reads r to its end into buf, which grows as it must.
func readAll(r io.Reader, buf *[]byte) ([]byte, error) {
	b := (*buf)[:0]
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, len(b))
			*buf = b
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// fail ends the connection for a reason of the server's. The first cause
// counts: fail reports whether it was this one. It does not wait and may be
// called from anywhere.
func (c *conn) fail(why cause) bool {
	if !c.ended.CompareAndSwap(nil, &why) {
		return false
	}
	if e, ok := endings[why]; ok {
		dropped := c.socket.shut(wire.Close(e.code, e.reason), why == causeSlow)
		c.gw.metrics.dropped.Add(float64(dropped))
		if why == causeSlow {
			c.setDeadline(slowWait)
		} else {
			c.setDeadline(closeWait)
		}
		c.rearm()
	} else {
		c.cut()
	}
	go c.teardown(why)
	return true
}

// finish is the end of reading: the connection is over.
func (c *conn) finish(err error) {
	why := causeOfRead(err)
	if _, ok := endings[why]; ok {
		// The peer broke a rule. Closing with bytes unread would reset the
		// connection before it has seen the close frame.
		c.fail(why)
		c.socket.discard()
	} else if c.ended.CompareAndSwap(nil, &why) {
		c.teardown(why)
	}
	c.shard.poller.remove(c)
	_ = c.socket.Close() // once it has sent what is in its outbox
	c.part()
	if c.socket.idle() {
		c.gw.wheel.cancel(&c.timer)
		return
	}
	c.setDeadline(closeWait)
	c.rearm()
}

// part ends reading or teardown. The node knows the connection until both are
// over, so that nothing is left to be done when it has none.
func (c *conn) part() {
	if c.over.Add(1) == 2 {
		c.gw.conns.remove(c)
	}
}

// causeOfRead says why a connection could not be read any more.
func causeOfRead(err error) cause {
	switch status := websocket.CloseStatus(err); status {
	case -1:
	case websocket.StatusNormalClosure:
		return causeClient
	case websocket.StatusGoingAway:
		return causeAway
	default:
		return causeLost
	}
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return causeTooBig
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return causeLost
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return causeLost
	}
	if _, ok := errors.AsType[*os.SyscallError](err); ok {
		return causeLost
	}
	return causeProtocol
}

// causeOfWrite says why a connection could not be written any more.
func causeOfWrite(err error) cause {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return causeSlow
	}
	return causeLost
}

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
	defer c.part()
	if c.gw.log.Enabled(context.Background(), slog.LevelDebug) {
		attrs := []any{"cause", string(why), "ip", c.ip}
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
	case causeClient, causeDisconnected:
		c.session.End(string(why))
	case causeAway:
		c.session.Leave(min(reloadWindow, c.gw.cfg.ResumeWindow), string(why))
	default:
		c.session.Leave(c.gw.cfg.ResumeWindow, string(why))
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

func (c *conn) setDeadline(d time.Duration) {
	c.deadline.Store(c.gw.wheel.now.Load() + ticks(d))
}

// rearm sets the timer to the next thing that can be due: a deadline, the
// token's end, a ping. Pings go out at half the timeout.
func (c *conn) rearm() { c.rearmWithin(ticks(c.timeout() / 2)) }

// spreadPings is rearm for the first ping. Connections that come together, as
// after a restart, are not to be pinged together.
func (c *conn) spreadPings() { c.rearmWithin(1 + rand.Int32N(ticks(c.timeout()/2))) }

func (c *conn) rearmWithin(next int32) {
	now := c.gw.wheel.now.Load()
	if d := c.deadline.Load(); d != 0 {
		next = min(next, d-now)
	}
	if age := c.age.Load(); age != 0 {
		next = min(next, age-now)
	}
	if g := c.grant.Load(); g != nil && !g.expires.IsZero() {
		if left := time.Until(g.expires.Add(tokenLeeway)); left < c.timeout() {
			next = min(next, ticks(left))
		}
	}
	c.gw.wheel.schedule(&c.timer, next)
}

// old reports, once, that the connection has reached its age.
func (c *conn) old(now int32) bool {
	age := c.age.Load()
	return age != 0 && now >= age && c.age.CompareAndSwap(age, 0)
}

var pingFrame = wire.AppendHeader(nil, wire.OpPing, 0)

// onTimer does what is due. The wheel calls it.
func (c *conn) onTimer() {
	now := c.gw.wheel.now.Load()
	g := c.grant.Load()
	switch d := c.deadline.Load(); {
	case c.ended.Load() != nil:
		if now >= d {
			c.cut() // the peer has had its time to answer the close frame
			return
		}
	case d != 0 && now >= d && g == nil:
		c.fail(causeNoConnect)
		return
	case d != 0 && now >= d:
		c.fail(causeRebalance) // it was asked to move, and has not
		return
	case g != nil && !g.expires.IsZero() && time.Now().After(g.expires.Add(tokenLeeway)):
		c.fail(causeExpired)
		return
	case now-c.socket.heard.Load() >= ticks(c.timeout()):
		c.fail(causeSilent)
		return
	case c.old(now):
		c.retire()
	default:
		c.socket.send(pingFrame)
	}
	c.rearm()
}
