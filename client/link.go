package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

const (
	// connectTimeout bounds a connect request; the gateway answers within five
	// seconds.
	connectTimeout = 10 * time.Second
	// writeTimeout is how long the gateway may take nothing.
	writeTimeout = 20 * time.Second
	// readLimit bounds a frame: the longest are histories.
	readLimit = 64 << 20
	// oldLink is how long a connection that another one has replaced may take to
	// be closed by the gateway.
	oldLink = 5 * time.Second
)

// link is one connection.
type link struct {
	client *Client
	ws     *websocket.Conn
	asked  map[string]*Subscription // by the connect request
	born   time.Time
	ping   time.Duration // between two signs of life of the gateway

	heard  atomic.Int64 // when something last came, nanoseconds after born
	busy   atomic.Bool  // what has come is handled, and nothing is read
	goaway chan Goaway  // size 1: the gateway asks once
	below  io.Closer    // what the WebSocket runs on
	done   chan struct{}
	err    error     // why it ended; set before done is closed
	died   time.Time // the same

	mu      sync.Mutex // guards what follows
	out     []written
	writing bool // a goroutine writes out
}

// written is a message to be written.
type written struct {
	kind websocket.MessageType
	b    []byte
}

// connect sends the connect request and waits for its answer.
func (l *link) connect(ctx context.Context) (*frame, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var request outgoing
	request, l.asked = l.client.connectRequest()
	b, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("client: connect: %w", err)
	}
	if err := l.ws.Write(ctx, websocket.MessageText, b); err != nil {
		return nil, ended(err)
	}
	var said *Error
	for {
		f, err := l.read(ctx)
		closed := (*CloseError)(nil)
		switch {
		case said != nil && errors.As(err, &closed):
			closed.Said = said
			return nil, closed
		case err != nil && said != nil:
			return nil, said
		case err != nil:
			return nil, err
		case f.Type == "connected":
			return f, nil
		case f.Type == "error":
			said = f.err() // the close that follows says what to do
		}
	}
}

// read reads the next frame.
func (l *link) read(ctx context.Context) (*frame, error) {
	kind, b, err := l.ws.Read(ctx)
	if err != nil {
		return nil, ended(err)
	}
	l.hear()
	if show := l.client.options.Frame; show != nil && kind == websocket.MessageText {
		show(b)
	}
	return parseFrame(kind, b)
}

// receive reads until the connection ends.
func (l *link) receive() {
	for {
		f, err := l.read(context.Background())
		if err != nil {
			l.err, l.died = err, time.Now()
			_ = l.ws.CloseNow()
			close(l.done)
			return
		}
		l.busy.Store(true)
		l.client.handle(l, f)
		l.hear()
		l.busy.Store(false)
	}
}

func (l *link) hear() { l.heard.Store(int64(time.Since(l.born))) }

// served reports whether a connection has served until its session was moved to
// another one.
func (l *link) served() bool {
	select {
	case <-l.done:
		return isMoved(l.err)
	default:
		return true
	}
}

// silent returns for how long nothing has come to who would have heard it.
func (l *link) silent() time.Duration {
	if l.busy.Load() {
		return 0
	}
	return time.Since(l.born) - time.Duration(l.heard.Load())
}

// send writes a message, after those before it. It does not wait: a goroutine
// writes as long as there is something to write.
func (l *link) send(kind websocket.MessageType, b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = append(l.out, written{kind, b})
	if !l.writing {
		l.writing = true
		go l.flush()
	}
}

func (l *link) flush() {
	for {
		l.mu.Lock()
		out := l.out
		l.out = nil
		l.writing = len(out) > 0
		l.mu.Unlock()
		if len(out) == 0 {
			return
		}
		for _, w := range out {
			ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
			err := l.ws.Write(ctx, w.kind, w.b)
			cancel()
			if err != nil {
				_ = l.ws.CloseNow() // the reader says why
				return              // writing stays set: nothing is written any more
			}
		}
	}
}

// leaveTimeout is how long the gateway may take to answer the close frame of a
// client that goes.
const leaveTimeout = time.Second

// leave ends the session and the connection, without waiting for long.
func (l *link) leave() {
	l.endSession()
	<-l.done
}

// endSession has the gateway end the session and the connection.
func (l *link) endSession() {
	late := time.AfterFunc(leaveTimeout, func() { _ = l.below.Close() }) // CloseNow would wait for Close
	defer late.Stop()
	if err := l.ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		l.client.log().Debug("connection not closed in good order", "error", err)
	}
}
