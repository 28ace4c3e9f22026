package session

import (
	"cmp"
	"context"
	"time"
)

const (
	// writeTimeout bounds one batch.
	writeTimeout = 3 * time.Second
	// batchSize is how many sessions go to Redis in one pipeline: about 100 KB,
	// a few milliseconds of its time.
	batchSize = 256
)

// change is one session as it is being written.
type change struct {
	session   *Session
	version   uint32
	phase     phase
	since     int64      // as of the event that it is connected
	departure *departure // of an abandoned one
	note      *call      // notes when it is over; nil if that is not to be told
	call      *call      // nil if only the index lacks the session
	after     []*call    // to be run once call has worked: what is told of it now
	err       error      // why it could not be written
}

// calls returns what goes to Redis first, in this order.
func (c *change) calls() []*call {
	switch {
	case c.err != nil || c.call == nil:
		return nil
	case c.note != nil:
		return []*call{c.note, c.call}
	}
	return []*call{c.call}
}

// writeBatch writes the sessions: first those that are connected into the index
// of the lease, then all, then the index is rid of what it no longer needs. It
// returns how many were written.
func (r *Registry) writeBatch(ctx context.Context, to destination, batch []*Session) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	lease, changes, unindexed := r.changes(batch)
	defer r.endWriting(changes)
	unadded := r.addUnindexed(ctx, to, lease, changes, unindexed)
	if unadded != nil && !answered(unadded) && r.hasIndex(ctx, to.server, lease) {
		r.metrics.writeErrors.Add(float64(len(changes)))
		return 0, unadded
	}
	r.noteAbandoned(ctx, changes)
	var calls []*call
	for _, c := range changes {
		calls = append(calls, c.calls()...)
	}
	if len(calls) > 0 {
		_ = r.run(ctx, calls...) // each call has its own error
	}
	done, failed := r.done(changes)
	done, untold := r.tellAfter(ctx, done)
	r.settle(done)
	if err := cmp.Or(failed, untold, unadded); err != nil {
		return len(done), err
	}
	if r.wasteful(ctx, to) {
		return len(done), r.prune(ctx)
	}
	return len(done), nil
}

// addUnindexed adds the sessions that the index lacks. If that fails they stay dirty,
// and what else there is to write of them can be written all the same.
func (r *Registry) addUnindexed(ctx context.Context, to destination, lease string, changes []change, unindexed []any) error {
	if len(unindexed) == 0 {
		return nil
	}
	err := r.addToIndex(ctx, to.server, lease, unindexed)
	if err == nil {
		r.indexed(changes, lease)
		return nil
	}
	for i, c := range changes {
		if c.call == nil {
			changes[i].err = err
		}
	}
	return err
}

// endWriting lets sessions be written again, which changed while they were.
func (r *Registry) endWriting(changes []change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		c.session.writing = false
		if _, dirty := r.dirty[c.session]; dirty && c.session.version != c.version {
			r.queue(c.session)
		}
	}
}

// changes returns what to write of the sessions, and which entries the index
// of the lease has to have first.
func (r *Registry) changes(batch []*Session) (lease string, changes []change, unindexed []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lease = r.lease.id
	now := time.Now()
	timeout := r.seen.clock(now.Add(writeTimeout))
	changes = make([]change, 0, len(batch))
	for _, s := range batch {
		if !r.isDue(s, now) {
			continue // any more
		}
		s.writing = true
		if s.phase == connected && s.lease != lease {
			unindexed = append(unindexed, entry(s.claim, s.ID, s.User))
		}
		changes = append(changes, r.change(s, lease, timeout))
	}
	return lease, changes, unindexed
}

// change returns what to write of s as it is. r.mu is held.
func (r *Registry) change(s *Session, lease string, timeout int64) change {
	c := change{session: s, version: s.version, phase: s.phase, since: s.since}
	if s.phase == abandoned {
		window := time.Duration(s.remaining()) * time.Millisecond
		c.departure = &departure{id: s.ID, user: s.User, claim: s.claim, lease: s.lease, window: window}
		c.call = r.leave(*c.departure)
		return c // nobody has heard of it
	}
	if s.phase == connected && s.written == s.version {
		return c // it is the index that lacks it
	}
	c.call = r.writeCall(s, lease, timeout)
	if r.cfg.Events && !s.told {
		c.after = append(c.after, r.connectedCall(s))
	}
	if s.phase == left && r.tells() {
		over := max(0, s.window-time.Since(s.leftAt))
		c.note = r.goneCallOf(s, max(over, goneMargin))
		if over < goneMargin {
			c.after = append(c.after, r.goneCallOf(s, over))
		}
	}
	return c
}

// writeCall returns the call that writes s as it is. r.mu is held.
func (r *Registry) writeCall(s *Session, lease string, timeout int64) *call {
	rec := record{s.Generation, lease, s.claim, s.ConnectedAt, s.Client, details{s.Device, s.IP}, ""}
	if s.phase == left {
		rec.state = stateLeft
	}
	restore := 1
	if s.doubtful {
		restore = 0
	}
	return newCall(writeScript, r.keys.user(s.User), timeout, s.ID, s.Generation, s.claim,
		rec.String(), formatChannels(s.channels, s.given), s.remaining(), restore,
		s.ConnectedAt.Add(endedKept).UnixMilli())
}

// noteAbandoned prepares the notes of sessions whose claims are taken back.
func (r *Registry) noteAbandoned(ctx context.Context, changes []change) {
	if !r.tells() {
		return
	}
	looks := make(map[int]*call)
	var calls []*call
	for i, c := range changes {
		if c.phase == abandoned {
			looks[i] = r.look(*c.departure)
			calls = append(calls, looks[i])
		}
	}
	if len(calls) == 0 {
		return
	}
	_ = r.run(ctx, calls...) // each call has its own error
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	for i, looked := range looks {
		c := &changes[i]
		c.note, c.err = r.note(*c.departure, looked, seen)
	}
}
