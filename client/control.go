package client

import (
	"math/rand/v2"
	"time"

	"wssgateway/gateway/wire"
)

// control is a subscribe or unsubscribe request that waits for its answer on the
// connection in use.
type control struct {
	channel string
	sub     *Subscription // to be subscribed, or
	leaving *retry        // the channel is to be left
}

// retry is what is asked again after the gateway could not do it.
type retry struct {
	failed int       // times in a row
	at     time.Time // zero: not to be asked now
}

// retryBackoff is how long is waited before a channel is asked for again.
var retryBackoff = Backoff{250 * time.Millisecond, 30 * time.Second}

// fail plans another attempt, after what the gateway says at the least.
func (r *retry) fail(after time.Duration) {
	wait := retryBackoff.delay(r.failed)
	if after > 0 { // not all at the same time
		wait = max(wait, after+rand.N(retryBackoff.Min))
	}
	r.failed++
	r.at = time.Now().Add(wait)
}

// passes reports whether what was answered with an error may fare better later.
func passes(code string) bool {
	switch wire.Code(code) {
	case wire.BadRequest, wire.Unauthorized, wire.Forbidden, wire.NotFound, wire.TooLarge, wire.LimitExceeded:
		return false
	}
	return true
}

// subscribe asks for a subscription. c.mu is held, and there is a connection.
func (c *Client) subscribe(s *Subscription) {
	s.retry.at = time.Time{}
	c.ask(outgoing{Type: "subscribe", Channel: s.channel, Since: s.where()}, control{channel: s.channel, sub: s})
}

// unsubscribe asks for the end of one. c.mu is held, and there is a connection.
func (c *Client) unsubscribe(channel string) {
	r := c.leaving[channel]
	if r == nil {
		r = &retry{}
		c.leaving[channel] = r
	}
	r.at = time.Time{}
	c.ask(outgoing{Type: "unsubscribe", Channel: channel}, control{channel: channel, leaving: r})
}

func (c *Client) ask(o outgoing, what control) {
	c.lastRef++
	o.Ref = c.lastRef
	c.controls[o.Ref] = what
	c.post(o)
}

// controlled takes in the answer to a control request, and reports whether it was
// one. c.mu is held.
func (c *Client) controlled(f *frame) (call func(), ok bool) {
	what, ok := c.controls[f.Ref]
	if !ok {
		return nil, false
	}
	delete(c.controls, f.Ref)
	switch {
	case what.sub == nil:
		c.left(what, f)
	case c.subs[what.channel] != what.sub: // unsubscribed from meanwhile
	case f.Type == "error":
		call = what.sub.failed(f.err())
	default:
		call = what.sub.stands(f.Last, f.Recovered)
	}
	return call, true
}

// left takes in the answer to an unsubscribe request.
func (c *Client) left(what control, f *frame) {
	switch {
	case c.leaving[what.channel] != what.leaving: // subscribed to again meanwhile
	case f.Type == "error" && passes(f.Code):
		what.leaving.fail(f.err().RetryAfter)
		c.stir()
	default:
		delete(c.leaving, what.channel)
		if f.Type == "error" && c.subs[what.channel] == nil { // inbox and broadcast cannot be left
			delete(c.unwanted, what.channel)
			c.addOwn(what.channel).live = true
		}
	}
}

// failed takes in that the gateway has not made the subscription. It is asked for
// again if that may help, and else over. client.mu is held.
func (s *Subscription) failed(e *Error) func() {
	if !passes(e.Code) {
		return s.refuse(e.Code)
	}
	s.retry.fail(e.RetryAfter)
	s.client.log().Debug("not subscribed yet", "channel", s.channel, "code", e.Code, "again", time.Until(s.retry.at))
	s.client.stir()
	return nil
}

// refuse takes in that the gateway does not let the client subscribe, or no longer.
// client.mu is held.
func (s *Subscription) refuse(code string) func() {
	s.refused, s.live, s.retry = true, false, retry{}
	h, channel := s.handler.Refused, s.channel
	if h == nil {
		return nil
	}
	return func() { h(channel, code) }
}

// stir has Run look for when there is something to do.
func (c *Client) stir() {
	select {
	case c.stirred <- struct{}{}:
	default: // it is about to
	}
}

// retryAt returns when a channel is to be asked for again; zero: none is.
func (c *Client) retryAt() (first time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.retries() {
		if !r.at.IsZero() && (first.IsZero() || r.at.Before(first)) {
			first = r.at
		}
	}
	return first
}

func (c *Client) retries() map[string]*retry {
	all := make(map[string]*retry, len(c.leaving)+len(c.subs))
	for channel, r := range c.leaving {
		all[channel] = r
	}
	for channel, s := range c.subs {
		all[channel] = &s.retry
	}
	return all
}

// retryDue asks again for what is due.
func (c *Client) retryDue(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for channel, r := range c.retries() {
		switch s := c.subs[channel]; {
		case c.active == nil || r.at.IsZero() || now.Before(r.at):
		case s != nil:
			c.subscribe(s)
		default:
			c.unsubscribe(channel)
		}
	}
}
