package transport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"wssgateway/gateway/wire"
)

// Conn is one WebSocket connection. It is embedded in what its owner keeps for it,
// and made by Accept.
//
// At rest it has no goroutine: a poller tells when there is something to read, takes
// in pings and pongs, and has a worker read the rest. What is sent is written at
// once if the kernel takes it, else by a goroutine that lives as long as the outbox
// is not empty. A timing wheel pings the peer. All methods may be called from several
// goroutines.
type Conn struct {
	// Static after Accept.
	transport *Transport
	handler   Handler
	nc        net.Conn
	raw       syscall.RawConn // nil where waiting is the only way: TLS, in memory
	poller    *poller

	polled     atomic.Bool // else park waits
	descriptor int32       // if polled

	// wakes is 0 at rest. Whoever takes it from there reads, and what comes meanwhile
	// only adds to it.
	wakes atomic.Int32
	busy  atomic.Bool // a message is being handled

	// Owned by the goroutine that reads.
	decoder   decoder
	in        *inbuf // nil while empty
	readErr   error  // why nothing more will come
	controls  int32  // tick up to which control frames have used their rate up
	parted    int32  // bytes charged for what has come in part
	partMark  int32  // bytes that had come in part at partAt
	discarded int32  // bytes; from 1 on, nothing is decoded any more

	timer    timed
	heard    atomic.Int32 // tick of the last sign of life
	timeout  atomic.Int32 // ticks of silence
	pingAt   atomic.Int32 // tick
	alarm    atomic.Int32 // tick; 0: none
	partAt   atomic.Int32 // tick since when next to nothing has come of a message; 0: none is under way
	deadline atomic.Int32 // tick at which it is cut; 0 until it has ended

	ended atomic.Pointer[Cause]
	exits atomic.Int32 // of reading and End, how many are over

	leaving bool         // it was given up for its memory; guarded by the budget's lock
	backlog atomic.Int64 // bytes charged to the budget; changed under its lock

	mu sync.Mutex // guards what follows; held during a write that cannot wait
	outbox
}

const (
	// closeWait is how long a peer has to answer a close frame.
	closeWait = 5 * time.Second
	// slowWait is the same for a peer that is too slow: the close frame only reaches
	// it once it has read what is before.
	slowWait = writeTimeout
	// shedWait is the same when what the peer holds up is needed for others.
	shedWait = time.Second
	// defaultTimeout is after how much silence a connection is dropped, until
	// SetTimeout says otherwise.
	defaultTimeout = time.Minute
)

// Adopt makes c the connection of a peer that was upgraded already, and of which
// early, maxEarly bytes at most, was read. Its events go to h once Start was called.
func (t *Transport) Adopt(nc net.Conn, early []byte, compresses bool, c *Conn, h Handler) {
	c.transport, c.handler, c.nc, c.raw = t, h, nc, rawConn(nc)
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(kernelBuffer) // one that is broken shows soon enough
	}
	c.poller = t.pollers[t.next.Add(1)%uint32(len(t.pollers))]
	c.decoder = decoder{limit: t.cfg.FrameSize, compresses: compresses}
	c.heard.Store(t.wheel.now.Load())
	c.timer.fire = c.onTimer
	c.timeout.Store(ticks(defaultTimeout))
	c.scheduleNextPing(ticks(defaultTimeout / 2))
	if len(early) > 0 {
		c.in = inbufs.Get().(*inbuf)
		c.in.head, c.in.tail = 0, copy(c.in.data[:], early)
	}
}

// Start calls first, if it is not nil, and then begins to read; it returns when the
// connection is at rest for the first time, or over. A panic of first ends the
// connection. Start is called once, by a worker.
func (c *Conn) Start(first func()) {
	c.wakes.Store(1)
	if first != nil {
		c.before(first)
	}
	c.polled.Store(c.poller.add(c))
	c.Do()
}

func (c *Conn) before(first func()) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked("starting a connection", v)
			c.discard()
		}
	}()
	first()
}

// Compresses reports whether the peer takes compressed frames.
func (c *Conn) Compresses() bool { return c.decoder.compresses }

// Cause returns why the connection ends, or nil if it does not.
func (c *Conn) Cause() *Cause { return c.ended.Load() }

// SetTimeout sets after how much silence the peer is given up. It is pinged at half
// of that; the first time after a random part of it, so that connections that come
// together are not pinged together.
func (c *Conn) SetTimeout(d time.Duration) {
	c.timeout.Store(ticks(d))
	c.scheduleNextPing(1 + rand.Int32N(ticks(d/2)))
	c.rearm()
}

// SetAlarm has Handler.Alarm called in d, once, instead of when it would have been.
// A d of 0 or less means as soon as can be.
func (c *Conn) SetAlarm(d time.Duration) {
	c.alarm.Store(c.transport.wheel.now.Load() + ticks(max(d, 0)))
	c.rearm()
}

// Fail ends the connection for a reason of the owner's. The first cause counts: Fail
// reports whether it was this one. It does not wait.
func (c *Conn) Fail(why *Cause) bool {
	if !c.ended.CompareAndSwap(nil, why) {
		return false
	}
	if why == Overloaded {
		c.transport.cfg.Budget.leave(c)
	}
	if why.Code == 0 {
		c.Cut()
	} else {
		dropped := c.shut(wire.Close(why.Code, why.Reason), why == Slow || why == Overloaded)
		if why == Overloaded && c.polled.Load() {
			c.ready() // to give back what has come in part
		}
		c.transport.metrics.dropped.Add(float64(dropped))
		wait := closeWait
		switch why {
		case Slow:
			wait = slowWait
		case Overloaded:
			wait = shedWait
		}
		c.setDeadline(wait)
	}
	go c.end(why)
	return true
}

// end tells the owner that the connection ends.
func (c *Conn) end(why *Cause) {
	defer c.exit()
	defer c.recovered("ending a connection")
	c.handler.End(why)
}

// exit ends reading or end; the owner is told when both are over.
func (c *Conn) exit() {
	defer c.recovered("forgetting a connection")
	if c.exits.Add(1) == 2 {
		c.handler.Gone()
	}
}

// recovered, deferred, keeps a panic from ending the node.
func (c *Conn) recovered(doing string) {
	if v := recover(); v != nil {
		c.panicked(doing, v)
	}
}

// panicked ends the connection for whose sake something panicked.
func (c *Conn) panicked(doing string, v any) {
	c.transport.log.Error("panic", "doing", doing, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	c.Fail(Panicked)
}

// finish is the end of reading: the connection is over.
func (c *Conn) finish(why *Cause) {
	if c.ended.CompareAndSwap(nil, why) {
		c.end(why)
	}
	c.poller.remove(c)
	c.decoder.part = nil
	c.chargePart()
	c.releaseInbuf()
	c.setDeadline(closeWait) // to send what is in the outbox
	if c.close() {
		c.transport.wheel.cancel(&c.timer)
	}
	c.exit()
}

// Abort closes a connection that was accepted and will not be started.
func (c *Conn) Abort() {
	c.transport.wheel.cancel(&c.timer)
	_ = c.nc.Close()
}

// Charge has memory that the owner holds for the connection's sake count as the
// connection's, or, if n is negative, not any more.
func (c *Conn) Charge(n int) {
	c.transport.cfg.Budget.charge(c, n, n)
	if n > 0 {
		c.transport.cfg.Budget.shed()
	}
}

// Cut closes the connection now. Nobody reads at rest, so somebody must see to its
// end.
func (c *Conn) Cut() {
	_ = c.nc.Close()
	if c.polled.Load() {
		c.ready()
	}
}

func (c *Conn) setDeadline(d time.Duration) {
	c.deadline.Store(c.transport.wheel.now.Load() + ticks(d))
	c.rearm()
}

func (c *Conn) scheduleNextPing(after int32) {
	c.pingAt.Store(c.transport.wheel.now.Load() + after)
}

// rearm sets the timer to the next thing that can be due.
func (c *Conn) rearm() { c.transport.wheel.schedule(&c.timer, c.nextDue) }

func (c *Conn) nextDue() int32 {
	next, deadline := c.pingAt.Load(), c.deadline.Load()
	if deadline != 0 {
		next = deadline
	} else if alarm := c.alarm.Load(); alarm != 0 {
		next = min(next, alarm)
	}
	return next
}

var pingFrame = wire.AppendHeader(nil, wire.OpPing, 0)

// onTimer does what is due. The wheel calls it.
func (c *Conn) onTimer() {
	defer c.recovered("handling a timeout")
	now := c.transport.wheel.now.Load()
	if deadline := c.deadline.Load(); deadline != 0 {
		if now >= deadline {
			c.Cut() // the peer has had its time to answer the close frame
		} else {
			c.rearm()
		}
		return
	}
	if alarm := c.alarm.Load(); alarm != 0 && now >= alarm && c.alarm.CompareAndSwap(alarm, 0) {
		c.handler.Alarm()
	}
	if now >= c.pingAt.Load() {
		c.keepAlive()
	}
	c.rearm()
}

// keepAlive pings the peer, or gives it up. A peer whose message is being handled
// cannot be heard.
func (c *Conn) keepAlive() {
	timeout := c.timeout.Load()
	silence := c.transport.wheel.now.Load() - c.heard.Load()
	if silence >= timeout && !c.busy.Load() {
		c.Fail(Silent)
		return
	}
	if since := c.partAt.Load(); since != 0 && c.transport.wheel.now.Load()-since >= timeout {
		c.Fail(Stalled)
		return
	}
	c.Send(pingFrame)
	next := timeout / 2
	if left := timeout - silence; left > 0 {
		next = min(next, left)
	}
	c.scheduleNextPing(max(next, 1))
}
