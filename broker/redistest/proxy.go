package redistest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy is a TCP proxy in front of a server, for a link that is slow, deaf or
// cut. It may be used from several goroutines.
type Proxy struct {
	ln      net.Listener
	latency atomic.Int64 // of each direction, in nanoseconds
	hole    atomic.Bool  // bytes are swallowed
	mute    atomic.Bool  // those of the server are
	done    sync.WaitGroup

	mu     sync.Mutex
	target string             // guarded by mu
	links  map[*link]struct{} // guarded by mu
	closed bool               // guarded by mu; no link is added any more
}

// NewProxy starts a proxy in front of the address target. It ends, with all
// its connections, when the test does.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	p := &Proxy{ln: ln, target: target, links: map[*link]struct{}{}}
	t.Cleanup(p.close)
	p.done.Go(p.accept)
	return p
}

// Addr is the proxy's own host:port.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// SetTarget leads new connections to another address; those that are open
// stay where they are.
func (p *Proxy) SetTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// SetLatency delays what is read from now on by d in each direction. It is a
// longer cable, not a narrower one: bytes keep their order and any number of
// them can be on their way. Connecting takes no longer.
func (p *Proxy) SetLatency(d time.Duration) { p.latency.Store(int64(d)) }

// Blackhole begins or ends a black hole. While it lasts all bytes are
// swallowed and neither side hears of the other being closed; connections stay
// open and new ones are accepted. At its end those that could not go on as if
// nothing had happened are closed: the ones made meanwhile, and the ones of
// which one side has gone. The others go on, without what was swallowed.
func (p *Proxy) Blackhole(on bool) {
	p.hole.Store(on)
	if !on {
		p.closeLinks((*link).stranded)
	}
}

// SwallowAnswers has what the server sends lost from now on, as over a link of
// which the server's side is gone and nobody has said so. When it ends, the links
// that have lost something are closed.
func (p *Proxy) SwallowAnswers(on bool) {
	p.mute.Store(on)
	if !on {
		p.closeLinks((*link).stranded)
	}
}

// Cut closes all connections now; new ones are let through, and with them one
// that is just being made.
func (p *Proxy) Cut() { p.closeLinks(func(*link) bool { return true }) }

// closeLinks closes the connections that which holds for.
func (p *Proxy) closeLinks(which func(*link) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		if which(l) {
			l.close()
			delete(p.links, l)
		}
	}
}

// accept takes connections until the listener is closed.
func (p *Proxy) accept() {
	for {
		conn, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() { p.serve(conn) })
	}
}

// serve joins a client's connection with one to the target until either ends.
func (p *Proxy) serve(client net.Conn) {
	l := &link{proxy: p, client: client, closed: make(chan struct{})}
	if !p.hole.Load() {
		server, err := net.Dial("tcp", p.currentTarget())
		if err != nil {
			_ = client.Close()
			return
		}
		l.server = server
	}
	if !p.add(l) {
		l.close()
		return
	}
	if l.stranded() && !p.hole.Load() { // the hole ended before add
		l.close()
	}
	l.run()
	p.remove(l)
}

func (p *Proxy) currentTarget() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target
}

// add reports false when the proxy has been closed.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.links[l] = struct{}{}
	}
	return !p.closed
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// close ends the proxy and waits for its goroutines.
func (p *Proxy) close() {
	_ = p.ln.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Cut()
	p.done.Wait()
}
