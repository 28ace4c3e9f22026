// Package client connects to a gateway and stays connected: it subscribes,
// publishes and calls, comes back to its session when a connection is lost, gets
// what it missed, once and in order, and moves to another node when it is asked to
// (goaway) without being away for a moment.
//
//	c, err := client.New("wss://gateway.example/ws", client.Options{Token: fetchToken})
//	…
//	c.Subscribe("room:42", client.Handler{Message: func(m client.Message) { … }})
//	err = c.Run(ctx)
//
// It speaks the protocol gateway.v1.
package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options say how a Client connects. Only Token is required.
type Options struct {
	// Token returns a token to connect with. It is asked again when the one
	// before is about to expire or was refused.
	Token func(context.Context) (string, error)
	// Device names this device or browser among the user's, for the position of
	// the inbox that the gateway keeps (Ack).
	Device string
	// Backoff is how long is waited before connecting again: (1s, 32s) if zero.
	Backoff Backoff
	// HTTPClient is used for the handshake; nil is http.DefaultClient. Its
	// transport chooses the way, and so the node.
	HTTPClient *http.Client
	// NoHandover has the client come back only once its connection was closed,
	// rather than open another one beside it when it is asked to move.
	NoHandover bool
	// Inbox handles what comes on the user's inbox, Other what comes on channels
	// that were not subscribed to here: broadcast, and those of the token's join.
	Inbox, Other Handler
	// Connected, Disconnected, Failed and Goaway are told what becomes of the
	// connection. Like handlers, they are called one at a time, in order. They may
	// be nil.
	Connected    func(Connected)
	Disconnected func(Disconnected)
	Failed       func(Failed)
	Goaway       func(Goaway)
	// Logger may be nil.
	Logger *slog.Logger
	// Frame, if not nil, sees every text frame that comes, as it is. It is called
	// by the goroutine that reads and must not block.
	Frame func([]byte)
}

// Connected says that there is a connection.
type Connected struct {
	Session, User, Node string
	Resumed             bool // it is the session of before
	Handover            bool // the connection before was still up
	At                  time.Time
}

// Disconnected says that there is no connection any more.
type Disconnected struct {
	Err error // why: a *CloseError if the gateway closed
	At  time.Time
}

// Failed says that an attempt to connect has failed, and that there will be
// another one. Of the last one, which nothing follows, Run returns the error.
type Failed struct {
	// Err is why: a *RefusedError if the handshake was refused, a *CloseError if
	// the gateway closed before it was connected, and else what the network said.
	Err      error
	Attempt  int           // in a row, from 1
	Wait     time.Duration // until the next one, from At
	Handover bool          // the connection before is still up
	At       time.Time
}

// Goaway says that the gateway has asked to move, and when that will be done.
type Goaway struct {
	Reason          string
	After, Deadline time.Duration // from At
	At              time.Time
}

// Client is a session on a gateway. Its methods may be called from several
// goroutines, before and while Run runs.
type Client struct {
	// Static after New.
	url     string
	options Options
	key     string // begins the idempotency keys

	events  queue         // for handlers
	stirred chan struct{} // size 1: Run is to look when it has something to do

	// incoming is held (holds a value) while a frame is taken in and queued, and
	// taken before mu. Who waits for it waits for handlers, perhaps.
	incoming chan struct{}

	mu        sync.Mutex // guards what follows; never held during I/O
	session   string
	user      string
	subs      map[string]*Subscription
	leaving   map[string]*retry // channels unsubscribed from, until the gateway says so
	unwanted  map[string]bool   // the same, of the token's join: the gateway subscribes to them anew
	controls  map[int64]control // by ref, of the present connection
	active    *link             // nil without a connection
	lastRef   int64
	pending   []*request    // not answered, by ref
	pace      pace          // of those that may be repeated
	stopped   bool          // Run has returned
	moved     chan struct{} // closed and replaced when active changes
	token     token
	published uint64 // for idempotency keys
}

// connectParameters have the gateway connect with the handshake. Of several handshakes
// one would take the session from another.
var connectParameters = []string{"connect", "session", "device", "channel"}

// New returns a client that does nothing until Run. The URL is that of /ws, with
// the scheme ws or wss.
func New(address string, o Options) (*Client, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("client: %w", err)
	case u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "":
		return nil, fmt.Errorf("client: %q is not a ws:// or wss:// URL", address)
	case slices.ContainsFunc(connectParameters, u.Query().Has):
		return nil, fmt.Errorf("client: the URL has one of the parameters %s, and would connect before the client does", strings.Join(connectParameters, ", "))
	case o.Token == nil:
		return nil, errors.New("client: Options.Token is required")
	case o.Backoff.Min < 0 || o.Backoff.Max < 0:
		return nil, errors.New("client: Options.Backoff is negative")
	}
	o.Backoff.Min = cmp.Or(o.Backoff.Min, time.Second)
	o.Backoff.Max = max(cmp.Or(o.Backoff.Max, 32*time.Second), o.Backoff.Min)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		url: address, options: o, key: random(),
		incoming: make(chan struct{}, 1),
		stirred:  make(chan struct{}, 1),
		subs:     make(map[string]*Subscription),
		leaving:  make(map[string]*retry),
		unwanted: make(map[string]bool),
		controls: make(map[int64]control),
		moved:    make(chan struct{}),
	}
	c.events.init()
	return c, nil
}

// Session returns the id of the session, and User whose it is; "" before the
// first connection.
func (c *Client) Session() string { c.mu.Lock(); defer c.mu.Unlock(); return c.session }

// User returns the user as whom the client is connected.
func (c *Client) User() string { c.mu.Lock(); defer c.mu.Unlock(); return c.user }

// AwaitConnected waits until there is a connection, or until ctx is done or Run
// has returned.
func (c *Client) AwaitConnected(ctx context.Context) error {
	jam, done := c.events.wait()
	defer done()
	for {
		c.mu.Lock()
		active, stopped, moved := c.active, c.stopped, c.moved
		c.mu.Unlock()
		switch {
		case active != nil:
			return nil
		case stopped:
			return ErrStopped
		}
		select {
		case <-moved:
		case <-jam:
			return ErrBehind
		case <-ctx.Done():
			return fmt.Errorf("client: not connected: %w", ctx.Err())
		}
	}
}

// log returns the logger.
func (c *Client) log() *slog.Logger { return c.options.Logger }
