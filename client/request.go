package client

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"wssgateway/gateway/wire"
)

// outgoing is a request as it is written.
type outgoing struct {
	Type     string            `json:"type"`
	Ref      int64             `json:"ref,omitempty"`
	Token    string            `json:"token,omitempty"`
	Session  string            `json:"session,omitempty"`
	Device   string            `json:"device,omitempty"`
	Channels map[string]string `json:"channels,omitempty"`
	Channel  string            `json:"channel,omitempty"`
	To       string            `json:"to,omitempty"`
	Event    string            `json:"event,omitempty"`
	Key      string            `json:"key,omitempty"`
	ID       string            `json:"id,omitempty"`
	Since    string            `json:"since,omitempty"`
	Limit    int               `json:"limit,omitempty"`
	Data     json.RawMessage   `json:"data,omitempty"`

	bytes  []byte // of a binary one: they take the place of Data
	binary bool
}

// request is a request that somebody waits for.
type request struct {
	ref    int64
	kind   websocket.MessageType
	b      []byte
	repeat bool // it may be sent again on another connection, and is paced
	sent   bool
	done   chan answer // size 1
}

type answer struct {
	frame *frame
	err   error
}

func (o outgoing) encode() (websocket.MessageType, []byte, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return 0, nil, fmt.Errorf("client: %s: %w", o.Type, err)
	}
	if !o.binary {
		return websocket.MessageText, b, nil
	}
	return websocket.MessageBinary, append(append(b, '\n'), o.bytes...), nil
}

// do sends a request and waits for its answer: on the present connection or,
// without one, on the next. If the connection is lost meanwhile, the request is
// sent again if it may be, and else fails with ErrLost.
func (c *Client) do(ctx context.Context, o outgoing, repeat bool) (*frame, error) {
	r := &request{repeat: repeat, done: make(chan answer, 1)}
	jam, done := c.events.wait()
	defer done()
	if err := c.begin(r, o); err != nil {
		return nil, err
	}
	var err error
	select {
	case a := <-r.done:
		return a.frame, a.err
	case <-jam:
		err = ErrBehind
	case <-ctx.Done():
		err = fmt.Errorf("client: %s: %w", o.Type, ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(r.ref)
	return nil, err
}

func (c *Client) begin(r *request, o outgoing) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return ErrStopped
	}
	c.lastRef++
	r.ref, o.Ref = c.lastRef, c.lastRef
	if r.kind, r.b, err = o.encode(); err != nil {
		return err
	}
	c.pending = append(c.pending, r)
	switch {
	case r.repeat:
		c.pace.add(r)
		c.sendPaced()
	case c.active != nil:
		r.sent = true
		c.active.send(r.kind, r.b)
	}
	return nil
}

// forget takes a request out of those that wait, and returns it. c.mu is held.
func (c *Client) forget(ref int64) *request {
	i, ok := find(c.pending, ref)
	if !ok {
		return nil
	}
	r := c.pending[i]
	c.pending = slices.Delete(c.pending, i, i+1)
	c.pace.remove(ref)
	return r
}

// answered hands an answer to who waits for it, or sends the request again if it came
// too soon for the gateway. c.mu is held.
func (c *Client) answered(f *frame) {
	c.pace.answered(f, time.Now())
	defer c.sendPaced()
	if i, ok := find(c.pending, f.Ref); ok && c.pending[i].repeat && f.rateLimited() {
		c.pending[i].sent = false
		c.pace.add(c.pending[i])
		return
	}
	r := c.forget(f.Ref)
	if r == nil {
		return // nobody waits any more
	}
	if f.Type == "error" {
		r.done <- answer{err: f.err()}
		return
	}
	r.done <- answer{frame: f}
}

// repeat sends what waits for an answer on a new connection. c.mu is held.
func (c *Client) repeat(l *link) {
	var paced []*request
	c.pending = slices.DeleteFunc(c.pending, func(r *request) bool {
		switch {
		case r.repeat:
			r.sent = false
			paced = append(paced, r)
		case r.sent:
			r.done <- answer{err: ErrLost}
			return true
		default:
			r.sent = true
			l.send(r.kind, r.b)
		}
		return false
	})
	c.pace.restart(paced)
	c.sendPaced()
}

// tooBig fails the largest request that was sent: it is what the gateway closed for.
func (c *Client) tooBig() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var largest *request
	for _, r := range c.pending {
		if r.sent && (largest == nil || len(r.b) > len(largest.b)) {
			largest = r
		}
	}
	if largest == nil {
		return
	}
	c.forget(largest.ref).done <- answer{err: &Error{Code: string(wire.TooLarge), Message: "message is too big"}}
}

// stop fails everything that waits, and whatever is asked from now on.
func (c *Client) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	for _, r := range c.pending {
		r.done <- answer{err: ErrStopped}
	}
	c.pending = nil
	c.pace.restart(nil)
	c.setActive(nil)
}

// keyLife is for how long a publish is repeated: a little less than the gateway
// remembers its key.
const keyLife = 270 * time.Second

// Publish publishes a message: to m.Channel, or to the inbox of the user m.To. It
// returns when the gateway has stored it, with its id ("" on a class without
// history). Until then it is repeated, over lost connections too, with a key by
// which it is stored once; for four and a half minutes at the most. An error
// leaves open whether it was published, unless it is an *Error.
//
// Messages keep their order if each is published when the one before has been.
func (c *Client) Publish(ctx context.Context, m Message) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, keyLife)
	defer cancel()
	o := outgoing{Type: "publish", Channel: m.Channel, To: m.To, Event: m.Event, Data: m.Data, Key: c.nextKey()}
	if m.Binary {
		o.Data, o.bytes, o.binary = nil, m.Bytes, true
	}
	for attempt := 0; ; attempt++ {
		f, err := c.do(ctx, o, true)
		if err == nil {
			return f.ID, nil
		}
		if e := (*Error)(nil); !errors.As(err, &e) || wire.Code(e.Code) != wire.Unavailable {
			return "", err
		}
		if !sleep(ctx, publishBackoff.delay(attempt)) {
			return "", errors.Join(err, ctx.Err())
		}
	}
}

// publishBackoff is how long is waited before a publish is repeated that the gateway
// could not do.
var publishBackoff = Backoff{250 * time.Millisecond, 5 * time.Second}

func (c *Client) nextKey() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published++
	return c.key + "-" + strconv.FormatUint(c.published, 36)
}

// random returns text that nobody else has.
func random() string {
	b := make([]byte, 9)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}

// Call has a backend do something and returns its answer. It is not repeated:
// if the connection is lost on the way the error is ErrLost, and it is not known
// whether the backend has done it.
func (c *Client) Call(ctx context.Context, event string, data json.RawMessage) (json.RawMessage, error) {
	f, err := c.do(ctx, outgoing{Type: "call", Event: event, Data: data}, false)
	if err != nil {
		return nil, err
	}
	return f.Data, nil
}

// Member is a user on a channel, with how many sessions.
type Member struct {
	User     string `json:"user"`
	Sessions int    `json:"sessions"`
}

// Presence returns who is on a channel, and how many users that are: of very
// many, not all are listed.
func (c *Client) Presence(ctx context.Context, channel string) ([]Member, int, error) {
	f, err := c.do(ctx, outgoing{Type: "presence", Channel: channel}, true)
	if err != nil {
		return nil, 0, err
	}
	return f.Members, f.Count, nil
}

// History returns up to limit messages of a channel (0: the gateway's default)
// after a position, "0" for the oldest that is kept. complete: none after that
// position is gone.
func (c *Client) History(ctx context.Context, channel, since string, limit int) (messages []Message, complete bool, err error) {
	f, err := c.do(ctx, outgoing{Type: "history", Channel: channel, Since: since, Limit: limit}, true)
	if err != nil {
		return nil, false, err
	}
	for _, s := range f.Messages {
		messages = append(messages, s.message(channel))
	}
	return messages, f.Recovered, nil
}

// Ack has the gateway keep how far this device (Options.Device) has read the
// user's inbox: id is a message's. A client that comes back without a position,
// after a restart say, gets what follows it.
func (c *Client) Ack(ctx context.Context, id string) error {
	if err := c.AwaitConnected(ctx); err != nil {
		return err
	}
	_, err := c.do(ctx, outgoing{Type: "ack", Channel: wire.Inbox(c.User()), ID: id}, true)
	return err
}
