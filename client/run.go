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
	r := &runner{Client: c, links: &sync.WaitGroup{}, over: make(chan error, 1)}
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

// runner is what Run works with.
type runner struct {
	*Client
	links *sync.WaitGroup // what reads

	over chan error // size 1: why a connection that was replaced is to be the last

	link       *link
	leaving    *Goaway   // the gateway has asked to move
	attempts   int       // to move
	refresh    time.Time // when the token is to be replaced
	unanswered bool      // no handshake had an answer the last time
	// Connect requests whose connection ended and that were not refused, and when the
	// last one was: the gateway has moved the session to them, perhaps, or still will.
	given   int
	givenAt time.Time
}

// run connects again and again.
func (r *runner) run(ctx context.Context) error {
	failures := 0
	for attempt := 0; ; attempt++ {
		l, f, err := r.open(ctx)
		failures++
		if err == nil {
			failures = 0
			r.use(l, f, false)
			err = r.keep(ctx)
			if r.link.died.Sub(r.link.born) > r.options.Backoff.bound(attempt) {
				attempt = 0
			}
		}
		err = r.excuse(err)
		switch {
		case ctx.Err() != nil:
			return nil
		case isFinal(err):
			return err
		case refusesToken(err):
			r.forgetToken()
		}
		wait := r.wait(err, attempt)
		if failures > 0 {
			r.fail(Failed{Err: err, Attempt: failures, Wait: wait})
		}
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// open makes a connection and a session of it, and returns it with the gateway's
// answer, which is not taken in yet.
func (r *runner) open(ctx context.Context) (*link, *frame, error) {
	l, err := r.reach(ctx)
	if err != nil {
		return nil, nil, err
	}
	return r.join(ctx, l)
}

// reach makes a connection on which nothing was said yet.
func (r *runner) reach(ctx context.Context) (*link, error) {
	t, err := r.fresh(ctx)
	if err != nil {
		return nil, err
	}
	return r.handshake(ctx, t)
}

// join makes a session of a connection.
func (r *runner) join(ctx context.Context, l *link) (*link, *frame, error) {
	f, err := l.connect(ctx)
	if err != nil && !isMoved(err) && !movesNothing(err) {
		r.give()
	}
	if err == nil && r.losesPlace(f) {
		err = &Error{Code: string(wire.Unavailable), Message: "where the device has read its inbox is not known now"}
	}
	if err != nil {
		_ = l.ws.CloseNow()
		return nil, nil, err
	}
	return l, f, nil
}

// fail tells of an attempt that has failed.
func (r *runner) fail(f Failed) {
	f.At = time.Now()
	r.log().Debug("not connected", "error", f.Err, "attempt", f.Attempt, "wait", f.Wait)
	if told := r.options.Failed; told != nil {
		r.tell(func() { told(f) }, 0)
	}
}

// givenLife is for how long the gateway may still act on a connect request whose
// connection has ended: it answers within five seconds, unless its node stands still.
const givenLife = time.Minute

// give counts a connect request that was given up, or closed for, without an answer
// that says it was not done.
func (r *runner) give() {
	if time.Since(r.givenAt) > givenLife {
		r.given = 0
	}
	r.given, r.givenAt = r.given+1, time.Now()
}

// excuse returns why a connection has ended, where 4002 is for one that the client
// itself has given up.
func (r *runner) excuse(err error) error {
	if !isMoved(err) || !r.mayBeOvertaken() {
		return err
	}
	r.given--
	return errOvertaken
}

// mayBeOvertaken reports whether a connect request that the client has given up may
// still take the session.
func (r *runner) mayBeOvertaken() bool {
	return r.given > 0 && time.Since(r.givenAt) <= givenLife
}

// wait returns how long to wait before the next attempt.
func (c *Client) wait(err error, attempt int) time.Duration {
	wait, after := c.options.Backoff.delay(attempt), time.Duration(0)
	if closed := (*CloseError)(nil); errors.As(err, &closed) && closed.busy() {
		// At least half of what it would be at the third attempt.
		bound := c.options.Backoff.bound(max(attempt, 2))
		wait = bound/2 + rand.N(bound/2+1)
	}
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		after = refused.RetryAfter
	}
	if said := (*Error)(nil); errors.As(err, &said) {
		after = max(after, said.RetryAfter)
	}
	if after > 0 { // no sooner than was said, and not all at the same time
		wait = max(wait, after+rand.N(c.options.Backoff.Min))
	}
	return wait
}

// keep keeps a connection, moving to others as it is asked to, until there is
// none. It returns why that is.
func (r *runner) keep(ctx context.Context) error {
	err := r.serve(ctx)
	r.mu.Lock()
	r.setActive(nil)
	r.mu.Unlock()
	if r.options.Disconnected != nil && ctx.Err() == nil {
		e := Disconnected{err, r.link.died}
		r.tell(func() { r.options.Disconnected(e) }, 0)
	}
	if closed := (*CloseError)(nil); errors.As(err, &closed) && closed.Code == int(wire.CloseTooBig) {
		r.tooBig()
	}
	return err
}

// use goes on with another connection.
func (r *runner) use(l *link, f *frame, handover bool) {
	l.ping = time.Duration(max(f.Ping, 1)) * time.Second
	r.link, r.leaving, r.attempts = l, nil, 0
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
		case err := <-r.over:
			r.link.leave()
			return err
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

// replaceToken puts a newer token in the place of the one that expires soon.
func (r *runner) replaceToken(ctx context.Context) {
	const again = 5 * time.Second
	r.refresh = time.Now().Add(again)
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
