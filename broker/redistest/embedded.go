package redistest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// Embedded starts a Redis inside the test on a TCP port; keys expire by the
// clock, as in a real one.
func Embedded(t testing.TB) *miniredis.Miniredis {
	t.Helper()
	m := miniredis.RunT(t)
	m.ClockTTL(true)
	return m
}

// InMemory starts a Redis inside the test without any port, for a
// testing/synctest bubble, whose fake clock its keys expire by. Only
// EmbeddedClient reaches it.
func InMemory(t testing.TB) *miniredis.Miniredis {
	t.Helper()
	m := miniredis.NewMiniRedis()
	t.Cleanup(m.Close)
	m.ClockTTL(true)
	return m
}

// EmbeddedClient returns a client of m, closed when the test ends; it never
// touches the network.
func EmbeddedClient(t testing.TB, m *miniredis.Miniredis) redis.UniversalClient {
	t.Helper()
	opts := options("embedded:0")
	opts.Dialer = func(context.Context, string, string) (net.Conn, error) {
		conn, err := m.Dial()
		if err != nil {
			return nil, err
		}
		return newBuffered(conn), nil
	}
	return newClient(t, opts)
}

// buffered is the client's end of a net.Pipe with a buffer for what is
// written, as a socket has one. Without it a client that writes more than the
// server reads at once, while the server writes too, waits for ever.
type buffered struct {
	net.Conn
	once   sync.Once
	closed chan struct{} // closed by Close
	wake   chan struct{} // size 1: buf is not empty

	mu  sync.Mutex
	buf []byte // guarded by mu
}

func newBuffered(conn net.Conn) *buffered {
	c := &buffered{Conn: conn, closed: make(chan struct{}), wake: make(chan struct{}, 1)}
	go c.pump()
	return c
}

func (c *buffered) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.buf = append(c.buf, b...)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return len(b), nil
}

// pump writes what is buffered until the connection ends.
func (c *buffered) pump() {
	for {
		select {
		case <-c.closed:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		b := c.buf
		c.buf = nil
		c.mu.Unlock()
		if len(b) == 0 {
			continue // it went with what was before it
		}
		if _, err := c.Conn.Write(b); err != nil {
			return // the reader of the connection hears of it
		}
	}
}

func (c *buffered) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// SetWriteDeadline does nothing, as a write never waits.
func (c *buffered) SetWriteDeadline(time.Time) error { return nil }

func (c *buffered) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }
