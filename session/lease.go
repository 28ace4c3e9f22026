package session

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// lease is what this node's sessions are valid by.
type lease struct {
	id     string    // "": none yet
	number int       // of the leases this node has had, or may have
	until  time.Time // no later than its end, by this node's clock
	ends   int64     // its end, ms of Redis's clock
	shaky  bool      // a heartbeat has failed since the last that worked
	warned time.Time // when that was last logged
	lost   bool      // Redis has said that it is over
	older  bool      // Redis has come back with older data under it
}

// leases is what Redis knew of all leases at one moment.
type leases struct {
	now  int64            // that moment, ms of Redis's clock
	at   time.Time        // when the answer had come, by this node's clock
	ends map[string]int64 // ms of Redis's clock
	info map[string]string
}

// running reports whether a lease had not ended at that moment.
func (l leases) running(lease string) bool { return l.ends[lease] > l.now }

// knows reports whether all of the leases were there.
func (l leases) knows(leases []string) bool {
	return !slices.ContainsFunc(leases, func(lease string) bool { return l.ends[lease] == 0 })
}

// over returns the leases that had ended, with their ends.
func (l leases) over() map[string]int64 {
	over := make(map[string]int64)
	for lease, end := range l.ends {
		if end <= l.now {
			over[lease] = end
		}
	}
	return over
}

// replaced reports whether the node of a lease had taken another one after it.
func (l leases) replaced(lease string) bool {
	for other := range l.ends {
		if nodeOf(other) == nodeOf(lease) && numberOf(other) > numberOf(lease) {
			return true
		}
	}
	return false
}

// clock returns what Redis's clock shows at t, or a little less.
func (l leases) clock(t time.Time) int64 { return l.now + t.Sub(l.at).Milliseconds() }

// holdLease renews the node's lease until ctx is done.
func (r *Registry) holdLease(ctx context.Context) {
	var wait backoff
	for {
		pause := r.cfg.Heartbeat
		if err := r.beat(ctx); err == nil {
			wait.reset()
		} else if ctx.Err() == nil {
			r.missedBeat(err)
			pause = wait.next()
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// beat renews the lease, or takes a new one if there is none or it is over.
func (r *Registry) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Heartbeat)
	defer cancel()
	start := time.Now()
	held := r.currentLease()
	if held.id != "" {
		c := newCall(renewScript, r.keys.nodes(), held.id, r.cfg.Lease.Milliseconds(), r.info())
		if err := r.run(ctx, c); err != nil {
			return fmt.Errorf("renew lease: %w", err)
		}
		seen, err := c.leases()
		if err != nil {
			return fmt.Errorf("renew lease: %w", err)
		}
		switch before, ok := c.endBefore(); {
		case !ok:
			if r.firstTime(&r.lease.lost) {
				r.log.Warn("lease lost", "lease", held.id)
			}
		case held.older || before < held.ends:
			// Redis has lost writes. What ended since is there again under this lease,
			// and ends with it: what is held is written again under the next one.
			if r.firstTime(&r.lease.older) { // the renewal has moved the end
				r.log.Warn("redis came back with older data, writing all sessions again", "lease", held.id)
			}
		default:
			r.tookLease(held, start, seen, held.shaky)
			r.metrics.renewals[leaseRenewed].Inc()
			return nil
		}
	}
	return r.acquire(ctx, held, start)
}

// acquire takes the lease after held. Only the first one ends those of an
// earlier life of the node: if two nodes have one name, both shall go on.
func (r *Registry) acquire(ctx context.Context, held lease, start time.Time) error {
	name := ""
	if held.id == "" {
		name = r.cfg.Node
	}
	next := lease{id: r.node.lease(held.number + 1), number: held.number + 1}
	r.mu.Lock()
	r.lease.number = next.number // it may be taken, and over, though no answer comes
	r.mu.Unlock()
	args := []any{next.id, r.cfg.Lease.Milliseconds(), r.info(), name}
	if held.id != "" {
		args = append(args, held.id)
	}
	for lease := range r.knownLeases() { // Redis may have lost those of dead nodes
		args = append(args, lease)
	}
	c := newCall(acquireScript, r.keys.nodes(), args...)
	if err := r.run(ctx, c); err != nil {
		return fmt.Errorf("acquire lease: %w", err)
	}
	seen, err := c.leases()
	if err != nil {
		return fmt.Errorf("acquire lease: %w", err)
	}
	r.tookLease(next, start, seen, true)
	r.metrics.renewals[leaseAcquired].Inc()
	r.log.Info("lease acquired", "lease", next.id)
	return nil
}

// tookLease notes a lease asked for at start, and lets all sessions be written
// again if Redis may not have them as they are. After a long absence those that
// Redis does not have may have been disconnected.
func (r *Registry) tookLease(l lease, start time.Time, seen leases, rewrite bool) {
	l.until = start.Add(r.cfg.Lease)
	l.ends = seen.ends[l.id]
	l.shaky, l.lost = false, false
	r.mu.Lock()
	if l.id != r.lease.id {
		r.obsolete = nil // the index of the lease before is swept as a whole
	}
	away := time.Duration(seen.now-r.lease.ends)*time.Millisecond + r.cfg.Lease
	doubtful := r.lease.id != "" && away > endedKept
	r.lease = l
	r.seen = seen
	close(r.renewed)
	r.renewed = make(chan struct{})
	if rewrite {
		for s := range r.held.all() {
			s.told, s.since = false, seen.now
			r.touch(s)
		}
	}
	if doubtful {
		for s := range r.dirty {
			s.doubtful = true
		}
	}
	r.mu.Unlock()
	if rewrite {
		r.cfg.Restored()
	}
	r.offerSweep(seen)
}

// firstTime sets a flag of the lease, and reports whether it was not set: the same may be
// found again and again until there is another lease.
func (r *Registry) firstTime(flag *bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := !*flag
	*flag = true
	return first
}

func (r *Registry) missedBeat(err error) {
	r.metrics.renewals[leaseError].Inc()
	r.mu.Lock()
	due := !r.lease.shaky || time.Since(r.lease.warned) >= warnEvery
	r.lease.shaky = true
	if due {
		r.lease.warned = time.Now()
	}
	r.mu.Unlock()
	if due {
		r.log.Warn("heartbeat failed", "error", err)
	}
}

// knownLeases returns those that there were at the last heartbeat.
func (r *Registry) knownLeases() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.ends // never changed
}

func (r *Registry) currentLease() lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lease
}

// awaitLease returns the node's lease once it has one that is surely running.
func (r *Registry) awaitLease(ctx context.Context) (string, leases, error) {
	for {
		r.mu.Lock()
		held, seen, renewed := r.lease, r.seen, r.renewed
		r.mu.Unlock()
		if time.Now().Before(held.until) {
			return held.id, seen, nil
		}
		select {
		case <-renewed:
		case <-ctx.Done():
			return "", leases{}, fmt.Errorf("wait for lease: %w", context.Cause(ctx))
		}
	}
}

// readLeases asks Redis for the leases.
func (r *Registry) readLeases(ctx context.Context) (leases, error) {
	c := r.leasesCall()
	if err := r.run(ctx, c); err != nil {
		return leases{}, err
	}
	return c.leases()
}

func (r *Registry) leasesCall() *call { return newCall(leasesScript, r.keys.nodes()) }

// leases returns the leases in the answer of a script about the nodes.
func (c *call) leases() (leases, error) {
	answer, err := c.answer.Slice()
	if err != nil {
		return leases{}, err
	}
	if len(answer) < 2 {
		return leases{}, errAnswer
	}
	now, ok := answer[0].(int64)
	table, ok2 := answer[1].([]any)
	if !ok || !ok2 {
		return leases{}, errAnswer
	}
	l := leases{now: now, at: time.Now(), ends: make(map[string]int64)}
	for lease, ends := range pairs(table) {
		// One that is no time is nobody's: it is not known here.
		if end, err := strconv.ParseInt(ends, 10, 64); err == nil {
			l.ends[lease] = end
		}
	}
	if len(answer) > 2 {
		if info, ok := answer[2].([]any); ok {
			l.info = pairs(info)
		}
	}
	return l, nil
}

// endBefore returns the end that the lease had before it was renewed.
func (c *call) endBefore() (int64, bool) {
	answer, err := c.answer.Slice()
	if err != nil || len(answer) < 3 {
		return 0, false
	}
	s, _ := answer[2].(string)
	ends, err := strconv.ParseInt(s, 10, 64)
	return ends, err == nil
}

func pairs(list []any) map[string]string {
	m := make(map[string]string, len(list)/2)
	s := texts(list)
	for i := 0; i+1 < len(s); i += 2 {
		m[s[i]] = s[i+1]
	}
	return m
}
