package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// What a node holds is verified in turn, all the time: an order that got lost, a claim
// whose answer did, and a part of Redis that has lost its data are found by that,
// and by nothing else as long as the session does not change. A session costs two
// reads in a round, HGET and HSTRLEN, and a 256th of an SMISMEMBER.
const (
	// verifySteps is in how many steps a round is done.
	verifySteps = 16
	// verifyEvery is the time between two steps: a round takes 20 s, so that what
	// is wrong is right within 30.
	verifyEvery = 1250 * time.Millisecond
	// verifyHurry is the same in a round that was asked for: 4 s, less than others
	// wait before they take a session that they do not find for one that is over.
	verifyHurry = 250 * time.Millisecond
	// verifyTimeout bounds one batch.
	verifyTimeout = time.Second
)

// Verify has all that this node holds compared with Redis within a few seconds:
// orders may have been lost, or data of Redis. It does not wait.
func (r *Registry) Verify() {
	select {
	case r.hurry <- struct{}{}:
	default:
	}
}

// verifyHeld verifies what the node holds, again and again, until ctx is done.
func (r *Registry) verifyHeld(ctx context.Context) {
	next := time.NewTimer(rand.N(verifyEvery))
	defer next.Stop()
	for step, hurried := 0, 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-r.hurry:
			if hurried == 0 {
				next.Reset(verifyHurry)
			}
			hurried = verifySteps
		case <-next.C:
			pause := verifyEvery
			if hurried > 0 {
				hurried--
				pause = verifyHurry
			}
			next.Reset(pause)
			r.verifyStep(ctx, step, pause)
			step = (step + 1) % verifySteps
		}
	}
}

// verifyStep verifies one part of what the node holds, evenly over half of the
// time that it has, each server's by itself.
func (r *Registry) verifyStep(ctx context.Context, step int, within time.Duration) {
	lease, due := r.verifiable(step)
	servers := make(map[string][]*Session)
	for _, s := range due {
		server := r.serverOfUser(ctx, s.User)
		servers[server] = append(servers[server], s)
	}
	var all sync.WaitGroup
	if r.cfg.Events {
		all.Go(func() { r.verifyEvents(ctx) })
	}
	if step == 0 {
		all.Go(func() { r.verifyDeparted(ctx, within) })
	}
	for server, due := range servers {
		all.Go(func() { r.verifyServer(ctx, server, lease, due, within) })
	}
	all.Wait()
}

// verifyServer verifies sessions on one server. What it does not answer is left to the
// next round.
func (r *Registry) verifyServer(ctx context.Context, server, lease string, due []*Session, within time.Duration) {
	batches := time.Duration((len(due) + batchSize - 1) / batchSize)
	for len(due) > 0 {
		batch := due[:min(batchSize, len(due))]
		due = due[len(batch):]
		if !r.verifyBatch(ctx, server, lease, batch) {
			return
		}
		if len(due) > 0 && !sleep(ctx, within/2/batches) {
			return
		}
	}
}

// verifiable returns those sessions of a part that Redis should have as they are. Once
// in a round it does away with what need not be kept for a Redis that loses it.
func (r *Registry) verifiable(step int) (lease string, due []*Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if step == 0 {
		r.notes.forget()
	}
	if !time.Now().Before(r.lease.until) {
		return "", nil // others may have let them be left: all are written again
	}
	for _, s := range r.held.parts[step] {
		if r.clean(s, r.lease.id) {
			due = append(due, s)
		}
	}
	return r.lease.id, due
}

// clean reports whether a session that is connected was written under a lease, the
// present one, and has not changed since. r.mu is held.
func (r *Registry) clean(s *Session, lease string) bool {
	_, dirty := r.dirty[s]
	return !dirty && s.phase == connected && s.lease == lease && r.lease.id == lease
}

// verification is what Redis has of some sessions.
type verification struct {
	indexed  *redis.BoolSliceCmd // nil if that is not asked now
	records  []*redis.StringCmd
	channels []*redis.IntCmd // their lengths
}

// verifyBatch has those sessions written again which Redis does not have as they are:
// that restores them, or finds out that they are someone else's. What cannot be read
// is left to the next round; that Redis is away, others tell. It reports whether there
// was an answer.
func (r *Registry) verifyBatch(ctx context.Context, server, lease string, batch []*Session) bool {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	pipe := r.rdb.Pipeline()
	var v verification
	elsewhere := !r.hasIndex(ctx, server, lease)
	if !elsewhere || r.tryIndex() {
		entries := make([]any, len(batch))
		for i, s := range batch {
			entries[i] = entry(s.claim, s.ID, s.User)
		}
		v.indexed = pipe.SMIsMember(ctx, r.keys.index(lease), entries...)
	}
	for _, s := range batch {
		v.records = append(v.records, pipe.HGet(ctx, r.keys.sessions(s.User), s.ID))
		v.channels = append(v.channels, pipe.HStrLen(ctx, r.keys.channels(s.User), s.ID))
	}
	_, _ = pipe.Exec(ctx) // sets the error of each command
	if elsewhere && v.indexed != nil && v.indexed.Err() != nil {
		r.spareIndex()
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range batch {
		if r.clean(s, lease) && !r.verified(s, v, i) {
			r.metrics.repaired.Inc()
			r.touch(s)
		}
	}
	return slices.ContainsFunc(v.channels, func(c *redis.IntCmd) bool { return c.Err() == nil || answered(c.Err()) })
}

// verified reports whether Redis has a session as it is, or did not say. r.mu is
// held.
func (r *Registry) verified(s *Session, v verification, i int) bool {
	indexed := v.indexed == nil || v.indexed.Err() != nil || v.indexed.Val()[i]
	if !indexed {
		s.lease = "" // it is added by the next write
	}
	text, err := v.records[i].Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return indexed
	}
	own, ours := owned(text, s.Generation, s.lease, s.claim)
	if text != "" && !ours {
		r.foundStrange("sessions", s.User, s.ID)
	}
	length, err := v.channels[i].Result()
	same := err != nil || length == int64(len(formatChannels(s.channels, s.given)))
	return indexed && own && same
}

// foundStrange tells, once, that Redis has something that is not of this version. It
// is left alone.
func (r *Registry) foundStrange(key, user, session string) {
	r.strange.Do(func() {
		r.log.Warn("ignoring data in redis that is damaged or of another version; this is logged once",
			"key", key, "user", user, "session", session)
	})
}
