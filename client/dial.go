package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"wssgateway/gateway/wire"
)

// dial makes a handshake.
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
