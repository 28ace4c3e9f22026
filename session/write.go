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
	call    *call
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
	calls := make([]*call, len(changes))
	for i, c := range changes {
		calls[i] = c.call
	}
	if len(calls) > 0 {
		_ = r.run(ctx, calls...) // each call has its own error
	}
	written, err := r.settle(changes)
	if err != nil {
		return written, err
	}
	return written, r.prune(ctx)
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
		changes = append(changes, change{s, s.version, s.phase, r.writeCall(s, lease, timeout)})
	}
	return lease, changes, unindexed
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

// settle notes what Redis answered.
func (r *Registry) settle(changes []change) (written int, failed error) {
	for _, c := range changes {
		code, err := c.call.answer.Int()
		switch {
		case err != nil || code < 0:
			r.metrics.writeErrors.Inc()
			if failed = err; err == nil {
				failed = errLate
			}
			continue
		case code == 0 && c.phase != abandoned:
			r.lose(c.session)
		default:
			r.wrote(c)
		}
		written++
	}
	return written, failed
}

// wrote notes that c is in Redis.
func (r *Registry) wrote(c change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := c.session
	if s.phase == lost {
		return
	}
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
