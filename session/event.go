package session

import (
	"context"
	"time"
)

// event is the kind of an entry of the stream of events. Each session has one
// of each, whatever moves and repetitions there are between.
type event string

const (
	eventConnected    event = "connected"
	eventDisconnected event = "disconnected"
)

// eventsKept is about how many events are kept for backends that are away: some
// 20 MB of Redis.
const eventsKept = 100_000

// connectedCall writes that a session of this node began. Nothing is written if it was
// before, and the session has not begun again since. r.mu is held.
func (r *Registry) connectedCall(s *Session) *call {
	return r.eventCall(eventConnected, s.since, s.ID, s.User, r.cfg.Node, s.reason)
}

// disconnectedCall writes that a session is over, unless that was written before.
func (r *Registry) disconnectedCall(g Gone) *call {
	return r.eventCall(eventDisconnected, 0, g.ID, g.User, g.Node, g.Reason)
}

func (r *Registry) eventCall(e event, since int64, id, user, node, reason string) *call {
	return newCall(eventScript, r.keys.events(), string(e), id, user, node, reason, eventsKept,
		since, endedKept.Milliseconds(), eventsKept)
}

// verifyEvents has those that were told of as connected told of again if Redis has lost
// what it knows of that. The lease, which may be on another server, does not show it.
func (r *Registry) verifyEvents(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	pipe := r.rdb.Pipeline()
	pipe.SetNX(ctx, r.keys.eventsEpoch(), random(8), 0)
	read := pipe.Get(ctx, r.keys.eventsEpoch())
	if _, err := pipe.Exec(ctx); err != nil {
		return // the next step asks again
	}
	before := r.eventsEpoch
	r.eventsEpoch = read.Val()
	if before == "" || before == r.eventsEpoch {
		return
	}
	r.log.Warn("redis lost the state of session events, writing connected events again")
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.seen.clock(time.Now())
	for s := range r.held.all() {
		s.told, s.since = false, now
		r.touch(s)
	}
	for s := range r.dirty {
		if s.phase == left { // its end is not told of yet
			s.told = false
		}
	}
}
