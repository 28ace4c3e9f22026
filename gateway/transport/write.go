package transport

import (
	"errors"
	"os"
	"slices"
	"time"

	"wssgateway/gateway/wire"
)

// outbox is what the kernel did not take. It is guarded by Conn.mu.
type outbox struct {
	out      [][]byte // each a run of whole frames
	own      bool     // the last of them is this outbox's alone, and may grow
	pong     []byte   // goes out before the next of them; nil for none
	outPos   int      // bytes of out[0] that are written
	inflight int      // outPos after the write under way
	memory   int      // bytes that out takes
	flushing bool     // a goroutine sends out
	refused  bool     // frames did not fit: none but the close frame may follow
	shutting bool     // a close frame was sent, or will be: nothing may follow
	ending   bool     // say that nothing follows once out is empty
	closing  bool     // close once out is empty
	drained  chan struct{}
}

const (
	// flushPiece is how much is written under one deadline: a peer that takes this
	// much in writeTimeout is slow, but alive.
	flushPiece   = 16 << 10
	writeTimeout = 30 * time.Second
	// kernelBuffer is how much the kernel may take for a peer that does not read.
	// Linux would grow it to four megabytes, which no limit of ours counts, and behind
	// which a ping waits longer than a peer may be silent.
	kernelBuffer = 128 << 10
	// entryMemory is what an entry of an outbox takes besides its bytes: its place in
	// a slice that doubles, and in the budget.
	entryMemory = 128
	// ownFrames is up to which size frames are copied together, and ownMemory how
	// much of them.
	ownFrames = 512
	ownMemory = 4096
)

// memoryOf returns how much memory an outbox takes for frames.
func memoryOf(frames []byte) int { return cap(frames) + entryMemory }

// Send sends a run of whole frames, in order with all others. It does not wait: what
// the kernel does not take goes to the outbox; if there is no room for it, the
// connection ends as Slow. The bytes must not change any more; connections may share
// them.
func (c *Conn) Send(frames []byte) {
	c.mu.Lock()
	if c.shutting || c.refused {
		c.mu.Unlock()
		return
	}
	full := c.flushing && c.memory+memoryOf(frames) > c.transport.cfg.Outbox
	if c.refused = full; !full {
		c.write(frames)
	}
	queued := c.flushing
	c.mu.Unlock()
	if full {
		c.Fail(Slow)
	} else if queued {
		c.transport.cfg.Budget.shed()
	}
}

// sendPong answers a ping: at once, or, as long as frames wait, with the next of
// them. A ping that was not answered yet needs no answer any more (RFC 6455, section
// 5.5.3).
func (c *Conn) sendPong(payload []byte) {
	pong := append(wire.AppendHeader(make([]byte, 0, 2+len(payload)), wire.OpPong, len(payload)), payload...)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.shutting || c.refused:
	case c.flushing:
		c.pong = pong
	default:
		if n := c.tryWrite(pong); n == 0 {
			c.pong = pong // until its turn comes, a later one may take its place
			c.startFlush(0)
		} else if n < len(pong) {
			c.startFlush(n)
			c.enqueue(pong)
		}
	}
}

// write writes frames, or puts them into the outbox. c.mu is held.
func (c *Conn) write(frames []byte) {
	if !c.flushing {
		n := c.tryWrite(frames)
		if n == len(frames) {
			return
		}
		c.startFlush(n)
	}
	c.enqueue(frames)
}

// tryWrite writes as much as the kernel takes. c.mu is held, and nothing waits.
func (c *Conn) tryWrite(frames []byte) int {
	if c.raw == nil {
		return 0
	}
	return writeNow(c.raw, frames)
}

// startFlush has the outbox sent, of whose first entry so many bytes are written.
// c.mu is held.
func (c *Conn) startFlush(written int) {
	c.outPos, c.flushing = written, true
	go c.flush()
}

// enqueue puts frames at the end of the outbox: small ones together. c.mu is held.
func (c *Conn) enqueue(frames []byte) {
	small := len(frames) <= ownFrames && len(c.out) > 0
	if last := len(c.out) - 1; small && c.own && len(c.out[last])+len(frames) <= ownMemory {
		before := c.out[last]
		c.out[last] = append(before, frames...)
		if cap(c.out[last]) != cap(before) { // it has moved
			c.forget(before)
			c.keep(c.out[last])
		}
		return
	}
	if small {
		frames = append(make([]byte, 0, 2*len(frames)), frames...)
	}
	c.own = small
	c.out = append(c.out, frames)
	c.keep(frames)
}

// keep charges an entry. c.mu is held.
func (c *Conn) keep(frames []byte) {
	c.memory += memoryOf(frames)
	c.transport.cfg.Budget.keep(frames)
	c.transport.cfg.Budget.charge(c, memoryOf(frames), entryMemory)
}

// forget takes keep back. c.mu is held.
func (c *Conn) forget(frames []byte) {
	c.memory -= memoryOf(frames)
	c.transport.cfg.Budget.forget(frames)
	c.transport.cfg.Budget.charge(c, -memoryOf(frames), -entryMemory)
}

// flush sends the outbox until it is empty.
func (c *Conn) flush() {
	for {
		piece, ok := c.piece()
		if !ok {
			return
		}
		_ = c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
		began := c.transport.wheel.now.Load()
		n, err := c.nc.Write(piece)
		if err != nil {
			c.abandon()
			c.Fail(causeOfWrite(err))
			return
		}
		if now := c.transport.wheel.now.Load(); c.raw != nil || now > began {
			c.heard.Store(now) // the peer has made room; its pongs wait behind what it has not read
		}
		c.wrote(n)
	}
}

// causeOfWrite says why a connection could not be written any more.
func causeOfWrite(err error) *Cause {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Slow
	}
	return Lost
}

// piece returns what is to be written next; false ends the flushing.
func (c *Conn) piece() ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pong != nil && c.outPos == 0 {
		c.out = slices.Insert(c.out, 0, c.pong)
		c.keep(c.pong)
		c.pong = nil
	}
	if len(c.out) > 0 {
		c.inflight = min(c.outPos+flushPiece, len(c.out[0]))
		return c.out[0][c.outPos:c.inflight], true
	}
	c.out, c.own, c.flushing = nil, false, false
	_ = c.nc.SetWriteDeadline(time.Time{})
	switch {
	case c.closing:
		_ = c.nc.Close()
	case c.ending:
		c.endWriting()
	}
	c.signalDrained()
	return nil, false
}

// endWriting closes one direction of the connection, where that can be.
func (c *Conn) endWriting() {
	if nc, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = nc.CloseWrite()
	}
}

// wrote takes in that n bytes were written.
func (c *Conn) wrote(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outPos += n
	if c.outPos < len(c.out[0]) {
		return
	}
	c.forget(c.out[0])
	c.out[0] = nil // the rest of the slice would keep it
	c.out, c.outPos, c.inflight = c.out[1:], 0, 0
	c.own = c.own && len(c.out) > 0
}

// abandon gives the outbox up.
func (c *Conn) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropFrom(0)
	c.flushing, c.shutting, c.pong = false, true, nil
	c.signalDrained()
}

// dropFrom gives up the entries from one on. c.mu is held.
func (c *Conn) dropFrom(i int) {
	for _, frames := range c.out[i:] {
		c.forget(frames)
	}
	clear(c.out[i:])
	c.out, c.own = c.out[:i], false
}

// AwaitDrained waits until the outbox is empty, or will never be.
func (c *Conn) AwaitDrained() {
	c.mu.Lock()
	if !c.flushing {
		c.mu.Unlock()
		return
	}
	if c.drained == nil {
		c.drained = make(chan struct{})
	}
	wait := c.drained
	c.mu.Unlock()
	<-wait
}

// signalDrained wakes those who wait for an empty outbox. c.mu is held.
func (c *Conn) signalDrained() {
	if c.drained != nil {
		close(c.drained)
		c.drained = nil
	}
}

// shut sends a close frame as the last one. With drop, what waits in the outbox is
// given up, but for the frame that the peer has begun to receive; it returns how
// many bytes that were.
func (c *Conn) shut(closeFrame []byte, drop bool) (dropped int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shutting {
		return 0
	}
	c.shutting, c.pong = true, nil
	if drop && len(c.out) > 0 {
		dropped = c.truncate()
	}
	c.write(closeFrame)
	return dropped
}

// truncate gives up what comes after the frame that is being sent, and returns how
// many bytes that were. c.mu is held.
func (c *Conn) truncate() (dropped int) {
	end := wire.FrameEnd(c.out[0], max(c.outPos, c.inflight))
	for _, frames := range c.out {
		dropped += len(frames)
	}
	dropped -= end
	c.dropFrom(1)
	if end == c.outPos { // the peer has whole frames
		c.dropFrom(0)
		c.outPos, c.inflight = 0, 0
	} else {
		c.out[0] = c.out[0][:end]
	}
	return dropped
}

// halfClose says that nothing follows, once the outbox is empty.
func (c *Conn) halfClose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
	if !c.flushing {
		c.endWriting()
	}
}

// close closes the connection once the outbox is empty, and reports whether it is.
func (c *Conn) close() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shutting = true
	if c.flushing {
		c.closing = true
		return false
	}
	_ = c.nc.Close()
	return true
}
