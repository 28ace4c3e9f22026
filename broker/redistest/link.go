package redistest

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// chunkSize is the most that is read at once.
	chunkSize = 32 << 10
	// cableLength bounds the chunks on their way in one direction. At 20 ms it
	// is reached at 200,000 reads a second, far above what a test reads; the
	// reader then waits and reads larger chunks.
	cableLength = 4096
)

// link is one connection through a Proxy.
type link struct {
	proxy  *Proxy
	client net.Conn
	server net.Conn // nil for a connection made during a black hole

	halfDead atomic.Bool // one side has gone and the other was not told
	once     sync.Once
	closed   chan struct{} // closed by close
}

// chunk is what one read gave; the last one of a direction has no bytes.
type chunk struct {
	payload []byte
	due     time.Time
	lost    bool // it was read during a black hole
}

// run carries bytes both ways until the link is closed.
func (l *link) run() {
	if l.server == nil {
		l.swallow()
		return
	}
	var directions sync.WaitGroup
	directions.Go(func() { l.carry(l.client, l.server, new(atomic.Bool)) })
	directions.Go(func() { l.carry(l.server, l.client, &l.proxy.mute) })
	directions.Wait()
}

// swallow reads without effect what a client sends into a black hole.
func (l *link) swallow() {
	buf := make([]byte, chunkSize)
	for {
		if _, err := l.client.Read(buf); err != nil {
			l.close()
			return
		}
	}
}

// carry moves bytes from src to dst, each chunk after the latency that was
// set when it was read. In a black hole, or if gone says so, they are lost.
func (l *link) carry(src, dst net.Conn, gone *atomic.Bool) {
	cable := make(chan chunk, cableLength)
	var far sync.WaitGroup
	far.Go(func() { l.deliver(cable, dst, gone) })
	l.read(src, cable)
	close(cable)
	far.Wait()
}

// read puts what comes from src on the cable, at last an empty chunk.
func (l *link) read(src net.Conn, cable chan<- chunk) {
	buf := make([]byte, chunkSize)
	for {
		n, err := src.Read(buf)
		due := time.Now().Add(time.Duration(l.proxy.latency.Load()))
		if n > 0 && !l.put(cable, chunk{bytes.Clone(buf[:n]), due, l.proxy.hole.Load()}) {
			return
		}
		if err != nil {
			l.put(cable, chunk{nil, due, l.proxy.hole.Load()})
			return
		}
	}
}

// put reports false when the link was closed.
func (l *link) put(cable chan<- chunk, c chunk) bool {
	select {
	case cable <- c:
		return true
	case <-l.closed:
		return false
	}
}

// deliver takes chunks off the cable when they are due and writes them to
// dst, or swallows them. The empty one closes the link.
func (l *link) deliver(cable <-chan chunk, dst net.Conn, gone *atomic.Bool) {
	for c := range cable {
		if !l.wait(c.due) {
			continue // closed: let the reader end
		}
		lost := c.lost || l.proxy.hole.Load() || gone.Load()
		if lost && gone.Load() {
			l.halfDead.Store(true) // what follows would make no sense
		}
		switch {
		case len(c.payload) == 0 && lost:
			l.strand()
		case len(c.payload) == 0:
			l.close()
		case !lost:
			if _, err := dst.Write(c.payload); err != nil {
				l.close()
			}
		}
	}
}

// wait returns true at the time due, false when the link was closed first.
func (l *link) wait(due time.Time) bool {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.closed:
		return false
	}
}

// strand keeps the link open although one side has gone, until the black hole
// ends.
func (l *link) strand() {
	l.halfDead.Store(true)
	if !l.proxy.hole.Load() { // it ended just now and did not see this link
		l.close()
	}
}

// stranded reports whether the link cannot go on after a black hole.
func (l *link) stranded() bool { return l.server == nil || l.halfDead.Load() }

// close closes both sides and may be called more than once. Nobody is told
// goodbye: what was on its way is lost.
func (l *link) close() {
	l.once.Do(func() {
		close(l.closed)
		_ = l.client.Close()
		if l.server != nil {
			_ = l.server.Close()
		}
	})
}
