package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
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
	var warning warning
	for {
		select {
		case <-r.wake:
		case <-retry:
		case <-ctx.Done():
			return
		}
		if !r.flushAll(ctx, &warning) {
			return
		}
		retry = nil
		if r.unwritten() { // some failed, or are claims that cannot be taken back yet
			retry = time.After(backoffLast)
		}
	}
}

// flushAll repeats flush until Redis answers, or ctx is done: then it returns false.
// What Redis refuses holds up nothing that changes meanwhile.
func (r *Registry) flushAll(ctx context.Context, warning *warning) bool {
	var wait backoff
	for {
		written, err := r.flush(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() == nil && warning.due() {
			r.log.Warn("writing sessions failed, retrying", "error", err)
		}
		if _, answered := errors.AsType[redis.Error](err); written > 0 || answered {
			return true
		}
		if !sleep(ctx, wait.next()) {
			return false
		}
	}
}

// flush tries once to write every session that is dirty now. It returns how many it
// has written, and an error if some could not be.
func (r *Registry) flush(ctx context.Context) (written int, failed error) {
	due := r.due()
	for len(due) > 0 || failed == nil && r.wasteful() {
		batch := due[:min(batchSize, len(due))]
		due = due[len(batch):]
		n, err := r.writeBatch(ctx, batch)
		written += n
		if err != nil {
			failed = err
		}
		if err != nil && n == 0 {
			return written, err // Redis is away; the rest would only wait for it
		}
	}
	return written, failed
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
	session   *Session
	version   uint32
	phase     phase
	departure departure // of an abandoned one
	note      *call     // notes when it is over; nil if that is not to be told
	call      *call
	after     []*call // to be run once call has worked: what is told of it now
	err       error   // why it could not be written
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
	r.noteAbandoned(ctx, changes)
	var calls []*call
	for _, c := range changes {
		if c.err == nil {
			calls = append(calls, c.calls()...)
		}
	}
	if len(calls) > 0 {
		_ = r.run(ctx, calls...) // each call has its own error
	}
	done, failed := r.done(changes)
	done, untold := r.tellAfter(ctx, done)
	r.settle(done)
	if err := cmp.Or(failed, untold); err != nil {
		return len(done), err
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
	c := change{session: s, version: s.version, phase: s.phase}
	if s.phase == abandoned {
		window := time.Duration(s.remaining()) * time.Millisecond
		c.departure = departure{id: s.ID, user: s.User, claim: s.claim, lease: s.lease, window: window}
		c.call = r.leave(c.departure)
		return c // nobody has heard of it
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
			looks[i] = r.look(c.departure)
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
		c.note, c.err = r.note(c.departure, looked, seen)
	}
}
