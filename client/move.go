package client

import (
	"context"
	"time"
)

// move makes another connection, and goes on with it. As long as there is none
// the old one serves; once it is time to be gone, it is tried no more.
func (r *runner) move(ctx context.Context) {
	l, f, err := r.openBeside(ctx)
	switch {
	case r.endedForGood(err == nil):
		r.leaving = nil
		if err == nil {
			l.endSession() // one of its own, which nobody goes on with
		}
	case err == nil:
		old := r.link
		r.use(l, f, old.served())
		r.links.Go(func() { r.retire(old) })
	case ctx.Err() == nil:
		r.moveLater(err)
	}
}

// openBeside opens a connection beside the old one. It gives up soon after that one
// has ended for good.
func (r *runner) openBeside(ctx context.Context) (*link, *frame, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	old := r.link
	go func() {
		select {
		case <-old.done:
		case <-ctx.Done():
			return
		}
		// A session that is being made is to be ended rather than left behind.
		if isFinal(old.err) && !isMoved(old.err) && sleep(ctx, leaveTimeout) {
			cancel()
		}
	}()
	l, err := r.reach(ctx)
	if err != nil {
		return nil, nil, err
	}
	if r.endedForGood(false) {
		_ = l.ws.CloseNow()
		return nil, nil, old.err
	}
	return r.join(ctx, l)
}

// endedForGood reports whether the connection in use has ended in a way that no other
// one is to follow. That the session has moved is one, unless it is to the client's
// own: to the connection that has asked for it, or to one that was given up.
func (r *runner) endedForGood(asked bool) bool {
	select {
	case <-r.link.done:
	default:
		return false
	}
	if isMoved(r.link.err) {
		return !asked && !r.mayBeOvertaken()
	}
	return isFinal(r.link.err)
}

// moveLater takes in that there is no other connection yet.
func (r *runner) moveLater(err error) {
	if refusesToken(err) {
		r.forgetToken()
	}
	g := r.leaving
	wait := Backoff{200 * time.Millisecond, 2 * time.Second}.delay(r.attempts)
	r.attempts++
	r.fail(Failed{Err: err, Attempt: r.attempts, Wait: wait, Handover: true})
	g.After = time.Since(g.At) + wait
	if g.After >= g.Deadline {
		r.leaving = nil // the gateway closes soon
	}
}

// retire lets the gateway close a connection that another one has replaced. If it says
// that a backend has ended the session, or that the client is at fault, that goes for
// the other one too: it may have come there as a new session just before.
func (r *runner) retire(old *link) {
	t := time.AfterFunc(oldLink, func() { _ = old.ws.CloseNow() })
	<-old.done
	t.Stop()
	if isFinal(old.err) && !isMoved(old.err) {
		select {
		case r.over <- old.err:
		default: // one is enough
		}
	}
}
