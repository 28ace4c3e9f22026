package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"wssgateway/gateway/wire"
)

// Run connects and stays connected until ctx is done; then it ends the session
// and returns nil. It returns an error if the gateway does not want the client
// back: a *CloseError (1008, 4002: the session has another connection, 4003) or
// a *RefusedError. It is called once.
//
// What has come is handled before Run returns; once ctx is done, only what can be
// within a second. A handler that takes longer is left behind.
func (c *Client) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, c.events.end)()
	handled := make(chan struct{})
	go func() {
		defer close(handled)
		c.events.run()
	}()
	r := &runner{Client: c, links: &sync.WaitGroup{}}
	err := r.run(ctx)
	c.stop()
	r.links.Wait()
	c.events.close()
	select {
	case <-handled:
		return err
	case <-ctx.Done():
	}
	select {
	case <-handled:
	case <-time.After(handlersTimeout):
		c.events.drop()
	}
	return err
}

// handlersTimeout is how long handlers may take for what has come when Run ends.
const handlersTimeout = time.Second

// run connects again and again.
func (r *runner) run(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		lasted, err := r.connection(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case isFinal(err):
			return err
		case refusesToken(err):
			r.forgetToken()
		}
		if lasted > r.options.Backoff.bound(attempt) {
			attempt = 0
		}
		wait := r.wait(err, attempt)
		r.log().Debug("not connected", "error", err, "wait", wait)
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// wait returns how long to wait before the next attempt.
func (c *Client) wait(err error, attempt int) time.Duration {
	wait := c.options.Backoff.delay(attempt)
	var refused *RefusedError
	if errors.As(err, &refused) && refused.RetryAfter > 0 {
		// No sooner than was said, and not all at the same time.
		return max(wait, refused.RetryAfter+rand.N(c.options.Backoff.Min))
	}
	return wait
}

// runner is what Run works with.
type runner struct {
	*Client
	links *sync.WaitGroup // what reads

	link     *link
	leaving  *Goaway   // the gateway has asked to move
	attempts int       // to move
	handing  bool      // another connection was tried, and may have taken the session
	refresh  time.Time // when the token is to be replaced
}

// connection makes a connection and keeps it, moving to others as it is asked
// to, until there is none. It returns how long the last one has lasted.
func (r *runner) connection(ctx context.Context) (lasted time.Duration, err error) {
	l, f, err := r.open(ctx)
	if err != nil {
		return 0, err
	}
	r.use(l, f, false)
	err = r.serve(ctx)
	lasted = time.Since(r.link.born)
	r.mu.Lock()
	r.setActive(nil)
	r.mu.Unlock()
	if r.options.Disconnected != nil && ctx.Err() == nil {
		e := Disconnected{err, r.link.died}
		r.tell(func() { r.options.Disconnected(e) }, 0)
	}
	if closed := (*CloseError)(nil); errors.As(err, &closed) {
		switch {
		case closed.Code == int(wire.CloseTooBig):
			r.tooBig()
		case closed.Code == int(wire.CloseMoved) && r.handing:
			err = errors.New("client: connection lost while moving")
		}
	}
	return lasted, err
}

// use goes on with another connection.
func (r *runner) use(l *link, f *frame, handover bool) {
	l.ping = time.Duration(max(f.Ping, 1)) * time.Second
	r.link, r.leaving, r.attempts, r.handing = l, nil, 0, false
	r.mu.Lock()
	r.refresh = time.Now().Add(r.token.refreshIn())
	r.mu.Unlock()
	r.adopt(l, f, handover)
	r.links.Go(l.receive)
}

// serve keeps the connection until it ends, and returns why.
func (r *runner) serve(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(r.next())
		select {
		case <-ctx.Done():
			r.link.leave()
			return ctx.Err()
		case <-r.link.done:
			return r.link.err
		case g := <-r.link.goaway:
			if !r.options.NoHandover {
				r.leaving = &g
			}
		case <-r.stirred:
		case <-timer.C:
			r.due(ctx)
		}
	}
}

// next returns when there is something to do.
func (r *runner) next() time.Duration {
	next := min(r.link.ping, time.Until(r.refresh))
	if at := r.retryAt(); !at.IsZero() {
		next = min(next, time.Until(at))
	}
	if r.leaving != nil {
		next = min(next, time.Until(r.leaving.At.Add(r.leaving.After)))
	}
	return max(0, next)
}

// due does what is due.
func (r *runner) due(ctx context.Context) {
	now := time.Now()
	// Two pings may get lost, and a third be late.
	if silence := r.link.silent(); silence > 2*r.link.ping+r.link.ping/2 {
		r.log().Warn("gateway is silent", "for", silence)
		_ = r.link.ws.CloseNow()
		<-r.link.done
		r.link.err = errSilent
		return
	}
	if g := r.leaving; g != nil && !now.Before(g.At.Add(g.After)) {
		r.move(ctx)
	}
	if !now.Before(r.refresh) {
		r.replaceToken(ctx)
	}
	r.retryDue(time.Now())
}

// move makes another connection, and goes on with it. As long as there is none
// the old one serves; once it is time to be gone, it is tried no more.
func (r *runner) move(ctx context.Context) {
	r.handing = true
	l, f, err := r.open(ctx)
	if err == nil {
		old := r.link
		r.use(l, f, old.served())
		r.links.Go(old.retire)
		return
	}
	r.log().Debug("not moved yet", "error", err)
	if refusesToken(err) {
		r.forgetToken()
	}
	g := r.leaving
	wait := Backoff{200 * time.Millisecond, 2 * time.Second}.delay(r.attempts)
	r.attempts++
	g.After = time.Since(g.At) + wait
	if g.After >= g.Deadline {
		r.leaving = nil // the gateway closes soon
	}
}

// replaceToken puts a newer token in the place of the one that expires soon.
func (r *runner) replaceToken(ctx context.Context) {
	const again = 5 * time.Second
	r.refresh = time.Now().Add(again)
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	t, err := r.renew(ctx)
	if err != nil {
		r.log().Warn("no newer token", "error", err)
		return
	}
	if in := t.refreshIn(); in > again {
		r.refresh = time.Now().Add(in)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.post(outgoing{Type: "refresh", Token: t.text})
}
