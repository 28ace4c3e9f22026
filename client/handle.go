package client

import (
	"encoding/json"
	"time"

	"github.com/coder/websocket"

	"wssgateway/gateway/wire"
)

// connectRequest returns what the client says of itself on a new connection, and
// the subscriptions that it asks for.
func (c *Client) connectRequest() (o outgoing, asked map[string]*Subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o = outgoing{Type: "connect", Ref: 1, Session: c.session, Device: c.options.Device, Channels: make(map[string]string)}
	asked = make(map[string]*Subscription)
	for name, s := range c.subs {
		if since := s.where(); !s.refused && (since != "" || !s.own) {
			o.Channels[name], asked[name] = since, s
		}
	}
	return o, asked
}

// losesPlace reports whether the inbox could only be gone on with from now, since
// where the device has read it (Ack) is known to the gateway alone, and not now. A
// subscribe request does not ask for that.
func (c *Client) losesPlace(f *frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	inbox := wire.Inbox(f.User)
	st, s := f.Channels[inbox], c.subs[inbox]
	if st.Error == "" || !passes(st.Error) || c.options.Device == "" || s != nil && (s.refused || s.where() != "") {
		return false
	}
	c.session = f.Session // to come back to
	return true
}

// adopt makes a connection the client's: what the gateway has answered is taken
// in, and what was not answered on the one before is repeated. Nothing that still
// comes on that one counts.
func (c *Client) adopt(l *link, f *frame, handover bool) {
	c.incoming <- struct{}{}
	defer func() { <-c.incoming }()
	c.mu.Lock()
	events := []func(){c.told(f, handover)}
	c.session, c.user = f.Session, f.User
	c.setActive(l)
	clear(c.controls)
	clear(c.leaving)
	for _, s := range c.subs {
		s.live, s.retry = false, retry{}
	}
	for channel, st := range f.Channels {
		if e := c.stand(channel, st, l.asked); e != nil {
			events = append(events, e)
		}
	}
	for channel, s := range c.subs {
		if _, ok := f.Channels[channel]; !ok && !s.refused && !s.own { // subscribed to meanwhile
			c.subscribe(s)
		}
	}
	c.repeat(l)
	c.mu.Unlock()
	for _, e := range events {
		c.tell(e, 0)
	}
}

func (c *Client) setActive(l *link) {
	c.active = l
	close(c.moved)
	c.moved = make(chan struct{})
}

// told returns the event that there is a connection.
func (c *Client) told(f *frame, handover bool) func() {
	if c.options.Connected == nil {
		return nil
	}
	e := Connected{f.Session, f.User, f.Node, f.Resumed, handover, time.Now()}
	return func() { c.options.Connected(e) }
}

// stand takes in where one channel of a new connection stands.
func (c *Client) stand(channel string, st standing, asked map[string]*Subscription) func() {
	s := c.subs[channel]
	switch {
	case s == nil && (asked[channel] != nil || c.unwanted[channel]): // unsubscribed from meanwhile, or before
		c.unsubscribe(channel)
		return nil
	case s == nil:
		s = c.addOwn(channel)
	case !s.own && asked[channel] != s: // subscribed to anew meanwhile
		c.subscribe(s)
		return nil
	}
	if st.Error != "" {
		return s.failed(&Error{Code: st.Error})
	}
	if p, ok := parsePosition(st.Since); ok && !s.known {
		s.position, s.known = p, true
	}
	return s.stands(st.Last, st.Recovered)
}

// addOwn adds a subscription that the gateway has made.
func (c *Client) addOwn(channel string) *Subscription {
	h := c.options.Other
	if channel == wire.Inbox(c.user) {
		h = c.options.Inbox
	}
	s := &Subscription{client: c, channel: channel, handler: h, own: true}
	c.subs[channel] = s
	return s
}

// tell has handlers called, after what was before; size is that of the frame which
// the event is from.
func (c *Client) tell(call func(), size int) {
	if call != nil {
		c.events.add(event{call, size})
	}
}

// handle takes in a frame and has handlers called. It waits for these if too
// much is waiting for them already.
func (c *Client) handle(l *link, f *frame) {
	c.incoming <- struct{}{}
	defer func() { <-c.incoming }()
	c.mu.Lock()
	var call func()
	if c.active == l {
		call = c.take(l, f)
	}
	c.mu.Unlock()
	c.tell(call, f.size)
}

// take takes in a frame and returns what handlers are to be told. c.mu is held.
func (c *Client) take(l *link, f *frame) func() {
	if f.Ref != 0 {
		if call, ok := c.controlled(f); ok {
			return call
		}
		c.answered(f)
		return nil
	}
	s := c.subs[f.Channel]
	switch f.Type {
	case "goaway":
		return c.takeGoaway(l, f)
	case "error":
		c.log().Warn("the gateway refuses a request", "code", f.Code, "message", f.Message)
		return nil
	case "subscribed": // by a backend
		delete(c.unwanted, f.Channel)
		if s == nil {
			s = c.addOwn(f.Channel)
		}
		return s.stands(f.Last, f.Recovered)
	}
	if s == nil || !s.live { // what still comes of an earlier subscription
		return nil
	}
	return s.take(f)
}

// take takes in what comes on a channel.
func (s *Subscription) take(f *frame) func() {
	h := s.handler
	switch f.Type {
	case "message":
		if !s.takes(f.ID) || h.Message == nil {
			return nil
		}
		m := f.message()
		return func() { h.Message(m) }
	case "reset":
		return s.reset(f.Last)
	case "join":
		if h.Joined != nil {
			return func() { h.Joined(f.Channel, f.User) }
		}
	case "leave":
		if h.Left != nil {
			return func() { h.Left(f.Channel, f.User) }
		}
	case "unsubscribed":
		return s.refuse(string(wire.Forbidden))
	}
	return nil
}

func (c *Client) takeGoaway(l *link, f *frame) func() {
	g := Goaway{f.Reason, time.Duration(f.AfterMS) * time.Millisecond, time.Duration(f.DeadlineMS) * time.Millisecond, time.Now()}
	select {
	case l.goaway <- g:
	default: // it is about to move
	}
	if c.options.Goaway == nil {
		return nil
	}
	return func() { c.options.Goaway(g) }
}

// post sends a request that nobody waits for. c.mu is held, and there is a
// connection.
func (c *Client) post(o outgoing) {
	b, err := json.Marshal(o)
	if err != nil {
		c.log().Error("request not encoded", "type", o.Type, "error", err) // its fields are strings
		return
	}
	c.active.send(websocket.MessageText, b)
}
