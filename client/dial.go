package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"wssgateway/gateway/wire"
)

const (
	// handshakeTimeout is how long the gateway may take to answer a handshake.
	handshakeTimeout = 10 * time.Second
	// A handshake that has no answer after joinAfter is joined by a second one, and
	// after every joinEvery by another, up to joinMost in all. Where half of the
	// addresses are those of a machine that has just vanished, 99 of 100 clients
	// are back within five seconds so.
	joinAfter = 2 * time.Second
	joinEvery = 250 * time.Millisecond
	joinMost  = 9
	// joinFew is joinMost once joinMost had no answer: it is not one machine of
	// several, and if it is too much load, handshakes would only add to it.
	joinFew = 2
)

// handshake makes a connection on which nothing was said yet. The first handshake
// that is answered wins; the others are given up, and have said nothing of the
// session either.
func (r *runner) handshake(ctx context.Context, t token) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	type answer struct {
		link *link
		err  error
	}
	answers := make(chan answer)
	try := func() {
		l, err := r.dial(ctx, t)
		select {
		case answers <- answer{l, err}:
		case <-ctx.Done():
			if l != nil {
				_ = l.ws.CloseNow()
			}
		}
	}
	most := joinMost
	if r.unanswered {
		most = joinFew
	}
	join := time.NewTimer(joinAfter)
	defer join.Stop()
	go try()
	var failed error
	for tries, left := 1, 1; left > 0; {
		select {
		case a := <-answers:
			if left--; a.err == nil || decides(a.err) {
				r.unanswered = false
				return a.link, a.err
			}
			failed = a.err
		case <-join.C:
			if tries < most {
				go try()
				tries, left = tries+1, left+1
				join.Reset(joinEvery)
			}
		case <-ctx.Done():
			r.unanswered = failed == nil
			return nil, cmp.Or(failed, fmt.Errorf("client: connect: no answer within %v", handshakeTimeout))
		}
	}
	return nil, failed
}

// dial makes one handshake.
func (c *Client) dial(ctx context.Context, t token) (*link, error) {
	l := &link{client: c, born: time.Now(), goaway: make(chan Goaway, 1), done: make(chan struct{})}
	ws, resp, err := websocket.Dial(ctx, c.url, &websocket.DialOptions{ //nolint:bodyclose // Dial: never for the caller to close
		HTTPClient:   c.keeping(&l.below),
		HTTPHeader:   http.Header{"Authorization": {"Bearer " + t.text}},
		Subprotocols: []string{wire.Subprotocol},
		OnPingReceived: func(context.Context, []byte) bool {
			l.hear()
			return true
		},
	})
	if err != nil {
		return nil, refused(resp, err)
	}
	ws.SetReadLimit(readLimit)
	l.ws = ws
	return l, nil
}

// keeping returns an HTTP client that keeps what a WebSocket runs on, and has its
// end told as what it is.
func (c *Client) keeping(below *io.Closer) *http.Client {
	base := http.DefaultClient
	if c.options.HTTPClient != nil {
		base = c.options.HTTPClient
	}
	keeping := *base
	keeping.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		transport := base.Transport
		if transport == nil {
			transport = http.DefaultTransport
		}
		resp, err := transport.RoundTrip(r)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			return resp, err
		}
		*below = resp.Body
		if stream, ok := resp.Body.(io.ReadWriteCloser); ok { // else Dial refuses it
			resp.Body = whole{stream}
		}
		return resp, nil
	})
	return &keeping
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// whole is a stream whose end is never io.EOF. The library takes an io.EOF that
// comes from below inside a message for the end of that message, and hands on what
// has come of it as if it were all.
type whole struct{ io.ReadWriteCloser }

var errEnd = errors.New("the stream has ended")

// Read implements io.Reader.
func (w whole) Read(p []byte) (int, error) {
	n, err := w.ReadWriteCloser.Read(p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errEnd
	}
	return n, err
}
