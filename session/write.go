package session

import (
	"context"
	"fmt"
	"time"
)

const (
	// writeTimeout bounds one batch.
	writeTimeout = 3 * time.Second
	// batchSize is how many sessions go to Redis in one pipeline: about 100 KB,
	// a few milliseconds of its time.
	batchSize = 256
)

// writeChanges writes what has changed of this node's sessions until ctx is
// done. What fails stays to be written.
func (r *Registry) writeChanges(ctx context.Context) {
	var retry <-chan time.Time
	for {
		select {
		case <-r.wake:
		case <-retry:
		case <-ctx.Done():
			return
		}
		if !r.flushAll(ctx) {
			return
		}
		retry = nil
		if r.unwritten() { // claims that cannot be taken back yet
			retry = time.After(backoffLast)
		}
	}
}

// flushAll repeats flush until it works, or ctx is done: then it returns false.
func (r *Registry) flushAll(ctx context.Context) bool {
	var wait backoff
	for {
		err := r.flush(ctx)
		if err == nil {
			return true
		}
		if wait.last == 0 && ctx.Err() == nil {
			r.log.Warn("sessions not written, will repeat", "error", err)
		}
		if !sleep(ctx, wait.next()) {
			return false
		}
	}
}

// flush tries once to write every session that is dirty now. It returns an
// error if some could not be written.
func (r *Registry) flush(ctx context.Context) error {
	due := r.due()
	var failed error
	for len(due) > 0 || failed == nil && r.wasteful() {
		batch := due[:min(batchSize, len(due))]
		due = due[len(batch):]
		written, err := r.writeBatch(ctx, batch)
		if err != nil {
			failed = err
		}
		if err != nil && written == 0 {
			return err // Redis is away; the rest would only wait for it
		}
	}
	return failed
}

// due returns the sessions to be written now.
func (r *Registry) due() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	sessions := make([]*Session, 0, len(r.dirty))
	for s := range r.dirty {
		if s.phase != abandoned || now.After(s.leftAt) {
			sessions = append(sessions, s)
		}
	}
	return sessions
}

func (r *Registry) unwritten() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.dirty) > 0
}

// wasteful reports whether the index has entries that nobody needs.
func (r *Registry) wasteful() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.obsolete) > 0
}

// change is one session as it is being written.
type change struct {
	session *Session
	version uint32
	phase   phase
	note    *call // notes when it is over; nil if that is not to be told
	call    *call
	after   []*call // to be run once call has worked: what is told of it now
}

// calls returns what goes to Redis first, in this order.
func (c *change) calls() []*call {
	if c.note == nil {
		return []*call{c.call}
	}
	return []*call{c.note, c.call}
}

// writeBatch writes the sessions: first those that are connected into the index
// of the lease, then all, then the index is rid of what it no longer needs. It
// returns how many were written.
func (r *Registry) writeBatch(ctx context.Context, batch []*Session) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	lease, changes, unindexed := r.changes(batch)
	if len(unindexed) > 0 {
		if err := r.rdb.SAdd(ctx, r.keys.index(lease), unindexed...).Err(); err != nil {
			r.metrics.writeErrors.Add(float64(len(changes)))
			return 0, fmt.Errorf("add to index: %w", err)
		}
		r.indexed(changes, lease)
	}
	var calls []*call
	for _, c := range changes {
		calls = append(calls, c.calls()...)
	}
	if len(calls) > 0 {
		_ = r.run(ctx, calls...) // each call has its own error
	}
	done, failed := r.done(changes)
	if err := r.tellAfter(ctx, done); err != nil {
		return 0, err
	}
	r.settle(done)
	if failed != nil {
		return len(done), failed
	}
	return len(done), r.prune(ctx)
}

// changes returns what to write of the sessions, and which entries the index
// of the lease has to have first.
func (r *Registry) changes(batch []*Session) (lease string, changes []change, unindexed []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lease = r.lease.id
	timeout := r.seen.clock(time.Now().Add(writeTimeout))
	for _, s := range batch {
		if _, ok := r.dirty[s]; !ok {
			continue // lost since
		}
		if s.phase == connected && s.lease != lease {
			unindexed = append(unindexed, entry(s.claim, s.ID, s.User))
		}
		changes = append(changes, r.change(s, lease, timeout))
	}
	return lease, changes, unindexed
}

// change returns what to write of s as it is. r.mu is held.
func (r *Registry) change(s *Session, lease string, timeout int64) change {
	c := change{session: s, version: s.version, phase: s.phase, call: r.writeCall(s, lease, timeout)}
	if s.phase == abandoned {
		return c // nobody has heard of it
	}
	if r.cfg.Events && !s.told {
		c.after = append(c.after, r.eventCall(eventConnected, s.ID, s.User, r.cfg.Node, ""))
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
	keys := r.keys.user(s.User)
	if s.phase == abandoned {
		return newCall(leaveScript, keys, s.ID, s.claim, s.lease, 0, s.remaining())
	}
	rec := record{s.Generation, lease, s.claim, s.ConnectedAt, s.Client, details{s.Device, s.IP}}
	return newCall(writeScript, keys, timeout, s.ID, s.Generation, s.claim,
		rec.String(), formatChannels(s.channels, s.given), s.remaining())
}

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
	for _, c := range changes {
		if err := c.failure(); err != nil {
			r.metrics.writeErrors.Inc()
			failed = err
			continue
		}
		done = append(done, c)
	}
	return done, failed
}

// failure returns why a change has to be written again.
func (c *change) failure() error {
	if c.note != nil && c.note.answer.Err() != nil {
		return c.note.answer.Err()
	}
	if c.phase == abandoned {
		return c.call.answer.Err()
	}
	code, err := c.call.answer.Int()
	if err == nil && code < 0 {
		return errLate
	}
	return err
}

// lost reports whether the session is someone else's.
func (c *change) lost() bool {
	code, _ := c.call.answer.Int()
	return c.phase != abandoned && code == 0
}

// tellAfter runs what is to be told of sessions that were written: events, and
// that one is over now or soon.
func (r *Registry) tellAfter(ctx context.Context, done []change) error {
	if !r.tells() {
		return nil
	}
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	var calls []*call
	for _, c := range done {
		if !c.lost() {
			calls = append(calls, c.after...)
		}
		if c.phase != abandoned {
			continue
		}
		note, err := r.leftOutside(c.call, c.session.ID, c.session.User, r.cfg.Node, seen)
		if err != nil {
			return fmt.Errorf("take back claim: %w", err)
		}
		if note != nil {
			calls = append(calls, note)
		}
	}
	if len(calls) == 0 {
		return nil
	}
	if err := r.run(ctx, calls...); err != nil {
		return fmt.Errorf("tell of sessions: %w", err)
	}
	select {
	case r.ended <- struct{}{}:
	default:
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
		if c.lost() {
			r.lose(c.session)
		} else {
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
	s.told = s.told || r.cfg.Events
	if s.version != c.version {
		return // changed since
	}
	if s.phase == connected {
		delete(r.dirty, s)
	} else {
		r.dismiss(s)
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
