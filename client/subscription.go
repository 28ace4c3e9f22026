package client

import (
	"encoding/json"
	"errors"
	"slices"
)

// Message is a message of a channel.
type Message struct {
	Channel string
	ID      string // "" on a class without history
	Event   string
	From    string // user who published it; "" for a backend
	To      string // user to whose inbox it was published by name
	Data    json.RawMessage
	Binary  bool
	Bytes   []byte // in the place of Data, if it is binary
}

// Handler handles what comes on a channel. Its functions are called one at a
// time, in order, by one goroutine for the whole client; a slow one makes the
// client slow, which the gateway does not put up with for ever. They may use the
// client. All may be nil.
type Handler struct {
	Message func(Message)
	// Gap says that messages are missing before what comes next, and that nobody
	// can bring them back: what is shown has to be loaded anew. Last is the id up
	// to which that is so.
	Gap func(channel, last string)
	// Joined and Left tell which users come and go, on channels with presence.
	Joined, Left func(channel, user string)
	// Refused says that the gateway does not let the client subscribe, or has
	// ended the subscription: code is as in Error.
	Refused func(channel, code string)
}

// Subscription is a channel that a client wants to be subscribed to, whenever it
// is connected.
type Subscription struct {
	client  *Client
	channel string
	handler Handler

	// Guarded by client.mu.
	since    string   // where to begin, until the first message
	known    bool     // position is one
	position position // of the last message that came
	own      bool     // the gateway's, not asked for
	refused  bool     // by the gateway; not asked for again
	live     bool     // on the present connection: what comes belongs to it
	retry    retry    // the gateway could not subscribe
}

// Subscribe subscribes to a channel: now, if there is a connection, and on every
// one to come. What comes before, if anything, is said by since: "" is nothing,
// "0" all that is kept, an id what follows it. If the gateway cannot subscribe at
// the moment it is asked again until it can, or refuses (Handler.Refused).
func (c *Client) Subscribe(channel string, h Handler, since ...string) (*Subscription, error) {
	if channel == "" || len(since) > 1 {
		return nil, errors.New("client: subscribe: a channel, and at most one position")
	}
	s := &Subscription{client: c, channel: channel, handler: h}
	if len(since) == 1 {
		s.since = since[0]
		s.position, s.known = parsePosition(since[0])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.subs[channel]
	if old != nil && !old.own {
		return nil, errors.New("client: subscribe: subscribed to already: " + channel)
	}
	if old != nil && s.since == "" { // go on where that one is
		s.position, s.known, s.live = old.position, old.known, old.live
	}
	c.subs[channel] = s
	delete(c.leaving, channel)
	delete(c.unwanted, channel)
	if c.active != nil {
		c.subscribe(s)
	}
	return s, nil
}

// Unsubscribe ends the subscription. What has come before may still be handled.
func (s *Subscription) Unsubscribe() {
	c := s.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs[s.channel] != s {
		return
	}
	delete(c.subs, s.channel)
	if slices.Contains(c.token.join, s.channel) {
		c.unwanted[s.channel] = true
	}
	if c.active != nil {
		c.unsubscribe(s.channel)
	}
}

// Position returns the id of the last message that has come, "" if none is known.
// With it, Subscribe goes on there.
func (s *Subscription) Position() string {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	return s.where()
}

// where returns from where the gateway is to go on. client.mu is held.
func (s *Subscription) where() string {
	if s.known {
		return s.position.String()
	}
	return s.since
}

// stands takes in where the channel stands for a subscription that begins or
// goes on. client.mu is held. It returns what to tell of that, or nil.
func (s *Subscription) stands(last string, recovered bool) func() {
	s.live, s.refused, s.retry = true, false, retry{}
	p, ok := parsePosition(last)
	if !ok {
		return nil // a class without history
	}
	switch {
	case !s.known && s.since == "":
		s.position, s.known = p, true // live from here
	case s.known && !recovered && p.compare(s.position) < 0:
		// The gateway's data are others than those the position is from.
		s.position = p
	}
	if recovered {
		return nil
	}
	return s.gap(last)
}

func (s *Subscription) gap(last string) func() {
	h, channel := s.handler.Gap, s.channel
	if h == nil {
		return nil
	}
	return func() { h(channel, last) }
}

// takes takes in a message, and reports whether it is new. client.mu is held.
func (s *Subscription) takes(id string) bool {
	p, ok := parsePosition(id)
	if !ok {
		return true
	}
	if s.known && p.compare(s.position) <= 0 {
		return false
	}
	s.position, s.known = p, true
	return true
}

// reset goes on from last, which may be before the position. client.mu is held.
func (s *Subscription) reset(last string) func() {
	if p, ok := parsePosition(last); ok {
		s.position, s.known = p, true
	}
	return s.gap(last)
}
