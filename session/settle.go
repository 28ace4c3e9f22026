package session

import (
	"context"
	"fmt"
	"time"
)

// written is what write.lua answers.
type written int

const (
	writtenAsItWas     written = 1
	writtenAnew        written = 2 // Redis did not have it
	refusedMoved       written = 0
	refusedLate        written = -1
	refusedEnded       written = -2 // by a backend
	refusedNotRestored written = -3 // Redis does not have it, and it is doubtful
)

// indexed notes that the index of the lease has those that are connected.
func (r *Registry) indexed(changes []change, lease string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		if c.phase != connected {
			continue
		}
		c.session.lease = lease
		if c.session.phase == lost { // meanwhile
			r.dismiss(c.session)
		}
	}
}

// done returns the changes that Redis has taken, or refused for good.
func (r *Registry) done(changes []change) (done []change, failed error) {
	done = make([]change, 0, len(changes))
	for _, c := range changes {
		if err := c.failure(); err != nil {
			r.metrics.writeErrors.Inc()
			failed = err
			r.doubt(c, err)
			continue
		}
		done = append(done, c)
	}
	return done, failed
}

// doubt notes that a session which was left may be in Redis already, and may be over
// and gone from there by the next attempt.
func (r *Registry) doubt(c change, err error) {
	if c.phase != left || neverSent(err) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.session.doubtful = true
}

// failure returns why a change has to be written again.
func (c *change) failure() error {
	if c.err != nil {
		return c.err
	}
	if c.note != nil && c.note.answer.Err() != nil {
		return c.note.answer.Err()
	}
	if c.call == nil {
		return nil
	}
	if c.phase == abandoned {
		return c.call.answer.Err()
	}
	code, err := c.call.answer.Int()
	if err == nil && written(code) == refusedLate {
		return errLate
	}
	return err
}

// result returns what became of a change that has not failed.
func (c *change) result() written {
	if c.phase == abandoned || c.call == nil {
		return writtenAsItWas
	}
	code, _ := c.call.answer.Int()
	return written(code)
}

// tellAfter runs what is to be told of sessions that were written: events, and
// that one is over now or soon. It returns the changes of which all was told.
func (r *Registry) tellAfter(ctx context.Context, done []change) (told []change, failed error) {
	var calls []*call
	for i := range done {
		c := &done[i]
		switch result := c.result(); {
		case result == refusedMoved && c.note != nil:
			c.after = []*call{newCall(goneDropScript, r.keys.gone(), c.session.ID, c.session.Generation)}
		case result == refusedEnded && c.note != nil:
			c.after = []*call{r.goneCallOfEnded(c.session)}
		case result <= refusedMoved && c.phase == connected:
			c.after = nil // it is not ours to tell of
		case result == writtenAnew && c.phase == connected && len(c.after) > 0:
			c.after = []*call{r.begunAgain(c)}
		}
		calls = append(calls, c.after...)
	}
	if len(calls) == 0 {
		return done, nil
	}
	_ = r.run(ctx, calls...) // each call has its own error
	for _, c := range done {
		if err := c.untold(); err != nil {
			failed = fmt.Errorf("tell of a session: %w", err)
			continue
		}
		told = append(told, c)
	}
	select {
	case r.ended <- struct{}{}:
	default:
	}
	return told, failed
}

// begunAgain returns the call that tells that a session is connected, which may have
// been told of as over until it was written just now.
func (r *Registry) begunAgain(c *change) *call {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := c.session
	s.since = max(s.since, r.seen.clock(time.Now()))
	c.since = s.since
	return r.connectedCall(s)
}

func (c *change) untold() error {
	for _, call := range c.after {
		if err := call.answer.Err(); err != nil {
			return err
		}
	}
	return nil
}

// settle notes what Redis has.
func (r *Registry) settle(done []change) {
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		close(r.flushed)
		r.flushed = make(chan struct{})
	}()
	for _, c := range done {
		switch c.result() {
		case refusedMoved:
			r.lose(c.session, LossMoved)
		case refusedEnded:
			r.lose(c.session, LossDisconnected)
		case refusedNotRestored:
			r.lose(c.session, LossForgotten)
		case writtenAnew:
			r.wrote(c)
			if c.phase == connected {
				c.session.holder.SessionRestored()
			}
		default:
			r.wrote(c)
		}
	}
}

// wrote notes that c is in Redis.
func (r *Registry) wrote(c change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := c.session
	if s.phase == lost {
		return
	}
	s.doubtful = false
	if s.since == c.since { // else it has begun again meanwhile: Redis may have lost that
		s.told = r.cfg.Events
	}
	if c.note != nil && c.phase == left {
		r.notes.keep(c.note)
	}
	if s.version != c.version {
		return // changed since
	}
	s.written = s.version
	switch {
	case s.phase != connected:
		r.dismiss(s)
	case s.lease == r.lease.id: // else the index is still to have it
		delete(r.dirty, s)
	}
}

// prune takes obsolete entries out of the index.
func (r *Registry) prune(ctx context.Context) error {
	r.mu.Lock()
	lease, entries := r.lease.id, r.obsolete
	r.obsolete = nil
	r.mu.Unlock()
	if len(entries) == 0 {
		return nil
	}
	members := make([]any, len(entries))
	for i, e := range entries {
		members[i] = e
	}
	if err := r.rdb.SRem(ctx, r.keys.index(lease), members...).Err(); err != nil {
		r.mu.Lock()
		if lease == r.lease.id {
			r.obsolete = append(r.obsolete, entries...)
		}
		r.mu.Unlock()
		return fmt.Errorf("take out of index: %w", err)
	}
	return nil
}
