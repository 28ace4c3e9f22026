package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"wssgateway/client"
)

// memory is a network in memory, for bubbles (testing/synctest): connections are
// pipes, which hold nothing.
type memory struct {
	dialled atomic.Int32
	// dial, if not nil, decides what becomes of the nth connection, from 1.
	dial     func(ctx context.Context, n int) error
	accepted chan net.Conn
	closed   chan struct{}
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case conn := <-m.accepted:
		return conn, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { close(m.closed); return nil }
func (m *memory) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

// connect is what a transport calls for a connection.
func (m *memory) connect(ctx context.Context, _, _ string) (net.Conn, error) {
	n := int(m.dialled.Add(1))
	if n == 1 && m.dial == nil {
		time.Sleep(time.Millisecond) // in a bubble: until the test waits, and has subscribed to what it will
	}
	if m.dial != nil {
		if err := m.dial(ctx, n); err != nil {
			return nil, err
		}
	}
	near, far := net.Pipe()
	select {
	case m.accepted <- far:
		return newRoomy(near), nil
	case <-m.closed:
		return nil, errors.New("nobody listens")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dead is what becomes of a connection to a machine that has vanished. A transport
// waits for it longer than who asked for it.
func (m *memory) dead(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.closed:
		return net.ErrClosed
	}
}

// roomy is a pipe that takes what is written at once, as a socket does: an end that
// has to read before it can write would wait for ever for one like itself.
type roomy struct {
	net.Conn
	mu      sync.Mutex // guards what follows
	change  sync.Cond
	written []byte
	closed  bool
}

func newRoomy(conn net.Conn) *roomy {
	r := &roomy{Conn: conn}
	r.change.L = &r.mu
	go r.pass()
	return r
}

func (r *roomy) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, net.ErrClosed
	}
	r.written = append(r.written, b...)
	r.change.Signal()
	return len(b), nil
}

func (r *roomy) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.change.Signal()
	return r.Conn.Close()
}

func (r *roomy) pass() {
	for {
		r.mu.Lock()
		for len(r.written) == 0 && !r.closed {
			r.change.Wait()
		}
		b, closed := r.written, r.closed
		r.written = nil
		r.mu.Unlock()
		if closed {
			return
		}
		if _, err := r.Conn.Write(b); err != nil {
			_ = r.Close()
			return
		}
	}
}

// serveMemory runs a server in memory until the test ends, and returns the network.
func serveMemory(t *testing.T, h http.Handler) *memory {
	t.Helper()
	m := &memory{accepted: make(chan net.Conn), closed: make(chan struct{})}
	s := &http.Server{Handler: h}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(m)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
	return m
}

// scripted answers each handshake, and goes through scripts as serveScripts does.
func scripted(t *testing.T, scripts ...script) http.Handler {
	var connections atomic.Int32
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"gateway.v1"}})
		if err != nil {
			return // it went meanwhile
		}
		defer func() { _ = conn.CloseNow() }()
		n := int(connections.Add(1))
		scripts[min(n, len(scripts))-1](t, conn)
	})
}

// over has a client use a network in memory.
func (m *memory) over(also func(*person, *client.Options)) func(*person, *client.Options) {
	return func(p *person, o *client.Options) {
		o.HTTPClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: m.connect}}
		if also != nil {
			also(p, o)
		}
	}
}

// within waits for a value, for a time that is not real, and reports whether it came.
func within[T any](d time.Duration, c <-chan T) (v T, ok bool) {
	select {
	case v = <-c:
		return v, true
	case <-time.After(d):
		return v, false
	}
}
