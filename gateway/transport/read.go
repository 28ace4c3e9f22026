package transport

import (
	"errors"
	"io"
	"math"
	"sync"

	"wssgateway/gateway/wire"
)

// inbuf is what was read and not yet decoded. It is on loan while it is needed.
type inbuf struct {
	head, tail int
	data       [maxEarly]byte
}

// maxEarly is how much may have come with the handshake: what net/http reads at a
// time.
const maxEarly = 4096

var inbufs = sync.Pool{New: func() any { return new(inbuf) }}

func (c *Conn) buffered() []byte {
	if c.in == nil {
		return nil
	}
	return c.in.data[c.in.head:c.in.tail]
}

// room returns where the next bytes go.
func (c *Conn) room() []byte {
	if c.in == nil {
		c.in = inbufs.Get().(*inbuf)
		c.in.head, c.in.tail = 0, 0
	}
	return c.in.data[c.in.tail:]
}

// releaseInbuf gives the buffer back, and with it what is in it.
func (c *Conn) releaseInbuf() {
	if c.in != nil {
		inbufs.Put(c.in)
		c.in = nil
	}
}

// took takes in that n bytes came.
func (c *Conn) took(n int) {
	c.in.tail += n
	c.heard.Store(c.transport.wheel.now.Load())
}

const (
	// pollerReads is how often the poller's goroutine reads one connection: a pong,
	// and that nothing comes after it. Who sends pings without end is a worker's.
	pollerReads = 2
	workerReads = math.MaxInt
)

// ready is told by the poller that there is something to read, or never will be.
func (c *Conn) ready() {
	defer c.rescue()
	if c.wakes.Add(1) == 1 && c.look(pollerReads) {
		c.transport.workers.take(c)
	}
}

// look takes in what has come, without waiting, in so many reads at most. It reports
// whether there is something to decode, the end, or more to be read; if not, the
// connection is at rest.
func (c *Conn) look(reads int) bool {
	for ; reads > 0; reads-- {
		before := c.wakes.Load()
		came, err := c.readNow()
		if err != nil {
			c.readErr = err
			return true
		}
		if came {
			if !c.takeControls() {
				return true
			}
			continue
		}
		c.chargePart()
		if c.wakes.CompareAndSwap(before, 0) {
			return false
		}
	}
	return true
}

// takeControls takes in pings and pongs, as long as nothing else comes, and reports
// whether nothing is left.
func (c *Conn) takeControls() bool {
	b := c.buffered()
	whole := 0 // bytes of whole pings and pongs
	for c.decoder.idle() && c.discarded == 0 && headerSize(b[whole:]) <= len(b)-whole {
		h := parseHeader(b[whole:])
		end := whole + h.size + int(min(h.payload, maxControl+1))
		if h.op != wire.OpPing && h.op != wire.OpPong || end > len(b) {
			break
		}
		whole = end
	}
	if whole < len(b) {
		return false
	}
	c.decode()
	return true
}

// Do implements Task: it reads and handles what has come, until the connection is at
// rest, or over.
func (c *Conn) Do() {
	defer c.rescue()
	for c.readErr == nil {
		if why := c.decode(); why != nil {
			c.finish(why)
			return
		}
		if !c.polled.Load() {
			c.chargePart()
			go c.park()
			return
		}
		if !c.look(workerReads) {
			return
		}
	}
	c.finish(Lost)
}

// rescue, deferred, ends the connection whose reader panicked, not the node: a worker
// reads on until the peer has closed.
func (c *Conn) rescue() {
	if v := recover(); v != nil {
		c.panicked("reading a connection", v)
		c.discard()
		c.transport.workers.take(c)
	}
}

// park waits for the next bytes where there is no poller: in a goroutine whose stack
// has never grown.
func (c *Conn) park() {
	c.readErr = c.wait()
	c.transport.workers.take(c)
}

// wait waits for bytes. It holds no buffer meanwhile, if that can be.
func (c *Conn) wait() error {
	if c.raw == nil {
		n, err := c.nc.Read(c.room())
		if n > 0 {
			c.took(n)
			return nil
		}
		c.releaseInbuf()
		return err
	}
	var failed error
	err := c.raw.Read(func(fd uintptr) bool {
		var came bool
		came, failed = c.readFrom(fd)
		return came || failed != nil
	})
	return errors.Join(err, failed)
}

// decode decodes what has come and handles it. The cause is that of a peer that has
// closed. Of the pings among it the last one is answered.
func (c *Conn) decode() (closed *Cause) {
	b := c.buffered()
	var ping [maxControl]byte
	pinged := -1 // bytes of it
	for len(b) > 0 && closed == nil {
		if c.discarded > 0 {
			c.discardMore(len(b))
			break
		}
		c.decoder.skims = c.ended.Load() != nil // all that counts is the answer to the close frame
		f, rest, why := c.decoder.next(b)
		if why == nil && f.event > eventMessage && !c.allowControl() {
			why = Flood
		}
		if why != nil {
			c.Fail(why)
			c.discard()
			continue
		}
		b = rest
		switch f.event {
		case eventMessage:
			c.partAt.Store(0)
			if pinged >= 0 { // handling may take its time
				c.sendPong(ping[:pinged])
				pinged = -1
			}
			c.in.head = c.in.tail - len(b)
			c.handle(f)
		case eventPing:
			pinged = copy(ping[:], f.data)
		case eventClose:
			c.shut(closeEcho(f.code), false)
			closed = causeOfClose(f.code)
		}
	}
	if pinged >= 0 {
		c.sendPong(ping[:pinged])
	}
	c.releaseInbuf()
	return closed
}

// handle hands a message on. After the connection has ended the peer's are dropped:
// it may not have seen the close frame yet.
func (c *Conn) handle(f found) {
	if c.decoder.skims || c.ended.Load() != nil {
		return
	}
	c.busy.Store(true)
	c.handler.Message(f.binary, f.data)
	c.heard.Store(c.transport.wheel.now.Load())
	c.busy.Store(false)
}

// closeEcho returns the answer to a close frame (RFC 6455, section 5.5.1).
func closeEcho(code wire.CloseCode) []byte {
	if code == wire.CloseNoStatus {
		return wire.AppendHeader(nil, wire.OpClose, 0)
	}
	return wire.Close(code, "")
}

const (
	// controlBurst is how many control frames may come at once; then one a tick, which
	// is ten a second.
	controlBurst = 50
	// discardLimit is how many bytes are read on behind a violation, so that the peer
	// sees the close frame rather than a reset connection.
	discardLimit = 4 << 20
)

// allowControl reports whether a control frame is within the rate.
func (c *Conn) allowControl() bool {
	now := c.transport.wheel.now.Load()
	c.controls = max(c.controls, now) + 1
	over := c.controls - now - controlBurst - 1 // 1: the tick that has begun
	return over <= 0 || over <= c.transport.wheel.allowance()
}

// discard has everything that still comes thrown away, until the peer has closed. It
// is told that nothing follows, and so does not wait for the end either.
func (c *Conn) discard() {
	c.discarded = 1
	c.busy.Store(false)
	c.decoder.part = nil
	c.halfClose()
}

func (c *Conn) discardMore(n int) {
	if c.discarded += int32(n); c.discarded > discardLimit {
		c.Cut()
	}
}

// stallPiece is how much of a message must come within the timeout, if not its end.
const stallPiece = 16 << 10

// chargePart charges the budget for what has come in part, and notes since when that
// does not go on.
func (c *Conn) chargePart() {
	p := c.decoder.part
	if p != nil && c.ended.Load() != nil {
		p.message = nil // it will not be handled any more
	}
	n := int32(c.decoder.size())
	switch {
	case p == nil:
		c.partAt.Store(0)
	case c.partAt.Load() == 0 || n >= c.partMark+stallPiece:
		c.partAt.Store(max(1, c.transport.wheel.now.Load()))
		c.partMark = n
	}
	if n != c.parted {
		c.transport.cfg.Budget.charge(c, int(n-c.parted), int(n-c.parted))
		c.parted = n
		c.transport.cfg.Budget.shed()
	}
}

// readNow reads what is there, and reports whether that is anything.
func (c *Conn) readNow() (bool, error) {
	r := rawReads.Get().(*rawRead)
	r.conn = c
	err := c.raw.Read(r.do)
	came, failed := r.came, r.err
	*r = rawRead{do: r.do}
	rawReads.Put(r)
	if err == nil {
		err = failed
	}
	return came, err
}

// rawRead is one read through a RawConn. It is pooled with the closure that RawConn
// wants, so that a read allocates nothing.
type rawRead struct {
	conn *Conn
	came bool
	err  error
	do   func(uintptr) bool // r.read, made once
}

var rawReads = sync.Pool{New: func() any {
	r := new(rawRead)
	r.do = r.read
	return r
}}

func (r *rawRead) read(fd uintptr) bool {
	r.came, r.err = r.conn.readFrom(fd)
	return true
}

// readFrom is one read(2).
func (c *Conn) readFrom(fd uintptr) (came bool, err error) {
	n, err := readNow(fd, c.room())
	switch {
	case n > 0:
		c.took(n)
		return true, nil
	case err == nil:
		err = io.EOF
	case wouldBlock(err):
		err = nil
	}
	c.releaseInbuf()
	return false, err
}
