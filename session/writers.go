package session

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// destination is where a write goes: to the server of the session's user, and perhaps
// to those that have what is told of it as well. Each is written to by itself: one that
// waits for a server that does not answer holds up no other.
type destination struct {
	server string // as serverOf has it
	tells  bool   // to other servers, too
}

// queues are the sessions that wait for a writer, by where to: each is there once,
// however often it has changed.
type queues map[destination]map[*Session]struct{}

func (q queues) add(due map[destination][]*Session) {
	for to, sessions := range due {
		if q[to] == nil {
			q[to] = make(map[*Session]struct{}, len(sessions))
		}
		for _, s := range sessions {
			q[to][s] = struct{}{}
		}
	}
}

// writeChanges writes what has changed of this node's sessions until ctx is
// done. What fails stays to be written.
func (r *Registry) writeChanges(ctx context.Context) {
	var writers sync.WaitGroup
	defer writers.Wait()
	var retry <-chan time.Time
	var warning warning
	waiting := make(queues)
	busy := make(map[destination]bool)
	finished := make(chan destination)
	for {
		select {
		case <-r.wake: // as often as sessions change: no other session is looked at
			waiting.add(r.due(ctx, r.takeTouched()))
		case <-retry:
			retry = nil
			clear(waiting)
			waiting.add(r.due(ctx, r.unwritten()))
		case to := <-finished:
			delete(busy, to)
		case <-ctx.Done():
			return
		}
		for to, sessions := range waiting {
			if busy[to] {
				continue
			}
			busy[to] = true
			delete(waiting, to)
			writers.Go(func() {
				r.flushAll(ctx, to, slices.Collect(maps.Keys(sessions)), &warning)
				select {
				case finished <- to:
				case <-ctx.Done():
				}
			})
		}
		if retry == nil && r.unfinished() { // some may fail, or are claims that cannot be taken back yet
			retry = time.After(backoffLast)
		}
	}
}

// writeAll writes what has changed, once.
func (r *Registry) writeAll(ctx context.Context) {
	var writers sync.WaitGroup
	for to, sessions := range r.due(ctx, r.unwritten()) {
		writers.Go(func() { r.flushAll(ctx, to, sessions, &warning{}) })
	}
	writers.Wait()
}

// flushAll repeats flush until Redis answers, or ctx is done. What Redis refuses holds
// up nothing that changes meanwhile.
func (r *Registry) flushAll(ctx context.Context, to destination, sessions []*Session, warning *warning) {
	var wait backoff
	for {
		written, err := r.flush(ctx, to, sessions)
		if err == nil {
			return
		}
		if ctx.Err() == nil && warning.due() {
			r.log.Warn("writing sessions failed, retrying", "error", err)
		}
		if written > 0 || answered(err) {
			return
		}
		if !sleep(ctx, wait.next()) {
			return
		}
		sessions = r.unwritten() // others may have come to wait for the same server
	}
}

// answered reports whether err is what Redis says.
func answered(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

// flush tries once to write those sessions that still go there. It returns how many it
// has written, and an error if some could not be.
func (r *Registry) flush(ctx context.Context, to destination, sessions []*Session) (written int, failed error) {
	due := r.due(ctx, sessions)[to]
	for len(due) > 0 || failed == nil && r.wasteful(ctx, to) {
		batch := due[:min(batchSize, len(due))]
		due = due[len(batch):]
		n, err := r.writeBatch(ctx, to, batch)
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

// takeTouched returns the sessions that have changed since it was called last.
func (r *Registry) takeTouched() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	sessions := r.touched
	r.touched = nil
	for _, s := range sessions {
		s.touched = false
	}
	return sessions
}

// unwritten returns the sessions that Redis does not have as they are.
func (r *Registry) unwritten() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.dirty))
}

// unfinished reports whether Redis lacks something, or its index has what nobody needs.
func (r *Registry) unfinished() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.dirty) > 0 || len(r.obsolete) > 0
}

// due returns those of the sessions that are to be written now, by where to. A
// destination of none is there for what the index does not need.
func (r *Registry) due(ctx context.Context, sessions []*Session) map[destination][]*Session {
	type outgoing struct {
		session *Session
		tells   bool
	}
	changes := make([]outgoing, 0, len(sessions))
	now := time.Now()
	r.mu.Lock()
	for _, s := range sessions {
		if r.isDue(s, now) {
			changes = append(changes, outgoing{s, s.phase != connected && r.tells() || r.cfg.Events && !s.told})
		}
	}
	lease, wasteful := r.lease.id, len(r.obsolete) > 0
	r.mu.Unlock()
	gone, events := r.serverOf(ctx, r.keys.gone()[0]), r.serverOf(ctx, r.keys.events()[0])
	due := make(map[destination][]*Session)
	for _, c := range changes {
		to := destination{server: r.serverOfUser(ctx, c.session.User)}
		to.tells = c.tells && (gone != to.server || events != to.server)
		due[to] = append(due[to], c.session)
	}
	if index := (destination{server: r.serverOf(ctx, r.keys.index(lease))}); wasteful && due[index] == nil {
		due[index] = nil
	}
	return due
}

// isDue reports whether a session is to be written now. r.mu is held.
func (r *Registry) isDue(s *Session, now time.Time) bool {
	_, dirty := r.dirty[s]
	switch {
	case !dirty, s.writing: // or lost since; a session's writes keep their order
		return false
	case s.phase == abandoned:
		return now.After(s.leftAt)
	case s.phase == connected && s.written == s.version: // only the index lacks it
		return now.After(r.indexRetry)
	}
	return true
}

// wasteful reports whether the index is there and has entries that nobody needs.
func (r *Registry) wasteful(ctx context.Context, to destination) bool {
	r.mu.Lock()
	lease, wasteful := r.lease.id, len(r.obsolete) > 0
	r.mu.Unlock()
	return wasteful && !to.tells && r.hasIndex(ctx, to.server, lease)
}
