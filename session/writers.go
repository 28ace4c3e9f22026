package session

import (
	"context"
	"errors"
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

// writeChanges writes what has changed of this node's sessions until ctx is
// done. What fails stays to be written.
func (r *Registry) writeChanges(ctx context.Context) {
	var writers sync.WaitGroup
	defer writers.Wait()
	var retry <-chan time.Time
	var warning warning
	busy := make(map[destination]bool) // true: there is more to write
	finished := make(chan destination)
	for {
		select {
		case <-r.wake:
		case <-retry:
		case to := <-finished:
			more := busy[to]
			delete(busy, to)
			if !more {
				continue
			}
		case <-ctx.Done():
			return
		}
		for to := range r.due(ctx) {
			if _, ok := busy[to]; ok {
				busy[to] = true
				continue
			}
			busy[to] = false
			writers.Go(func() {
				r.flushAll(ctx, to, &warning)
				select {
				case finished <- to:
				case <-ctx.Done():
				}
			})
		}
		retry = nil
		if r.unwritten() { // some may fail, or are claims that cannot be taken back yet
			retry = time.After(backoffLast)
		}
	}
}

// writeAll writes what has changed, once.
func (r *Registry) writeAll(ctx context.Context) {
	var writers sync.WaitGroup
	for to := range r.due(ctx) {
		writers.Go(func() { r.flushAll(ctx, to, &warning{}) })
	}
	writers.Wait()
}

// flushAll repeats flush until Redis answers, or ctx is done. What Redis refuses holds
// up nothing that changes meanwhile.
func (r *Registry) flushAll(ctx context.Context, to destination, warning *warning) {
	var wait backoff
	for {
		written, err := r.flush(ctx, to)
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
	}
}

// answered reports whether err is what Redis says.
func answered(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

// flush tries once to write every session that is dirty now. It returns how many it
// has written, and an error if some could not be.
func (r *Registry) flush(ctx context.Context, to destination) (written int, failed error) {
	due := r.due(ctx)[to]
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

// due returns the sessions to be written now, by where to. A destination of none is
// there for what the index does not need.
func (r *Registry) due(ctx context.Context) map[destination][]*Session {
	now := time.Now()
	tells := make(map[*Session]bool)
	r.mu.Lock()
	for s := range r.dirty {
		if r.isDue(s, now) {
			tells[s] = s.phase != connected && r.tells() || r.cfg.Events && !s.told
		}
	}
	lease, wasteful := r.lease.id, len(r.obsolete) > 0
	r.mu.Unlock()
	gone, events := r.serverOf(ctx, r.keys.gone()[0]), r.serverOf(ctx, r.keys.events()[0])
	due := make(map[destination][]*Session)
	for s, tells := range tells {
		to := destination{server: r.serverOfUser(ctx, s.User)}
		to.tells = tells && (gone != to.server || events != to.server)
		due[to] = append(due[to], s)
	}
	if index := (destination{server: r.serverOf(ctx, r.keys.index(lease))}); wasteful && due[index] == nil {
		due[index] = nil
	}
	return due
}

// isDue reports whether a session that is dirty is to be written now. r.mu is held.
func (r *Registry) isDue(s *Session, now time.Time) bool {
	switch {
	case s.writing:
		return false
	case s.phase == abandoned:
		return now.After(s.leftAt)
	case s.phase == connected && s.written == s.version: // only the index lacks it
		return now.After(r.indexRetry)
	}
	return true
}

func (r *Registry) unwritten() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.dirty) > 0
}

// wasteful reports whether the index is there and has entries that nobody needs.
func (r *Registry) wasteful(ctx context.Context, to destination) bool {
	r.mu.Lock()
	lease, wasteful := r.lease.id, len(r.obsolete) > 0
	r.mu.Unlock()
	return wasteful && !to.tells && r.hasIndex(ctx, to.server, lease)
}
