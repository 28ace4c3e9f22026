package session

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// offerSweep hands leases to sweepEnded if some have ended.
func (r *Registry) offerSweep(seen leases) {
	if len(seen.over()) == 0 {
		return
	}
	select {
	case <-r.over: // an older view
	default:
	}
	r.over <- seen // room: only the heartbeat sends
}

// sweepEnded sweeps the leases of dead nodes until ctx is done. Every node
// does: there is no leader, two that sweep the same lease do no harm, and what
// one leaves half done another finds. They start at different times so that
// mostly one does the work.
func (r *Registry) sweepEnded(ctx context.Context) {
	var warning warning
	for {
		select {
		case <-r.over:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, rand.N(r.cfg.Heartbeat)) {
			return
		}
		if err := r.sweepAll(ctx); err != nil && ctx.Err() == nil && warning.due() {
			r.log.Warn("sweeping the sessions of dead nodes failed, retrying", "error", err)
		}
	}
}

// sweepAll sweeps what has ended by now, which another node may have done.
func (r *Registry) sweepAll(ctx context.Context) error {
	seen, err := r.readLeases(ctx)
	if err != nil {
		return fmt.Errorf("read leases: %w", err)
	}
	var failed error
	for lease, end := range seen.over() {
		died, err := r.sweep(ctx, lease, end)
		if err != nil {
			failed = fmt.Errorf("sweep %s: %w", lease, err)
			continue
		}
		died = died && !seen.replaced(lease)
		if died {
			r.metrics.nodesLost.Inc()
		}
		r.log.Info("lease swept", "lease", lease, "died", died)
	}
	return failed
}

// sweep lets every session still connected under a lease be left since its
// end, and forgets the lease. An entry leaves the index only after its session
// was dealt with. died: the node did not end the lease itself, and no other node
// has swept it.
func (r *Registry) sweep(ctx context.Context, lease string, end int64) (died bool, err error) {
	for {
		entries, err := r.rdb.SRandMemberN(ctx, r.keys.index(lease), batchSize).Result()
		if err != nil {
			return false, fmt.Errorf("read index: %w", err)
		}
		if len(entries) == 0 {
			break
		}
		if n, err := r.sweepServers(ctx, lease, end, entries); err != nil && n == 0 {
			return false, err
		}
	}
	forget := newCall(forgetScript, r.keys.nodes(), lease)
	if err := r.run(ctx, forget); err != nil {
		return false, fmt.Errorf("forget lease: %w", err)
	}
	n, err := forget.answer.Int()
	return n == 1, err
}

// sweepServers is sweepBatch for each server's sessions by themselves: one that does not
// answer takes all the time that there is for a batch.
func (r *Registry) sweepServers(ctx context.Context, lease string, end int64, entries []string) (n int, failed error) {
	servers := make(map[string][]string)
	for _, e := range entries {
		user := e[strings.LastIndexByte(e, ' ')+1:]
		server := r.serverOfUser(ctx, user)
		servers[server] = append(servers[server], e)
	}
	var mu sync.Mutex // guards n and failed
	var all sync.WaitGroup
	for _, entries := range servers {
		all.Go(func() {
			done, err := r.sweepBatch(ctx, lease, end, entries)
			mu.Lock()
			defer mu.Unlock()
			n += done
			failed = cmp.Or(failed, err)
		})
	}
	all.Wait()
	return n, failed
}

// sweepBatch lets the sessions of some entries be left, and returns how many. One
// that fails stays, and holds up no other.
func (r *Registry) sweepBatch(ctx context.Context, lease string, end int64, entries []string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var departures []departure
	var done []any
	for _, e := range entries {
		f := strings.SplitN(e, " ", 3)
		if len(f) < 3 {
			done = append(done, e) // not ours: only taken out
			continue
		}
		departures = append(departures, departure{
			claim: f[0], id: f[1], user: f[2], lease: lease, at: end, window: r.cfg.ResumeWindow,
		})
	}
	departures, failed := r.noteDepartures(ctx, departures)
	calls := make([]*call, len(departures))
	for i, d := range departures {
		calls[i] = r.leave(d)
	}
	if len(calls) > 0 {
		_ = r.run(ctx, calls...) // each call has its own error
	}
	for i, c := range calls {
		if err := c.answer.Err(); err != nil {
			failed = fmt.Errorf("leave session: %w", err)
			continue
		}
		done = append(done, entry(departures[i].claim, departures[i].id, departures[i].user))
	}
	if len(done) == 0 {
		return 0, failed
	}
	if err := r.rdb.SRem(ctx, r.keys.index(lease), done...).Err(); err != nil {
		return 0, fmt.Errorf("take out of index: %w", err)
	}
	return len(done), failed
}

// noteDepartures notes when the sessions that are about to be left are over. It
// returns those of which that is done, or is not to be.
func (r *Registry) noteDepartures(ctx context.Context, all []departure) (noted []departure, failed error) {
	if !r.tells() || len(all) == 0 {
		return all, nil
	}
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	looks := make([]*call, len(all))
	for i, d := range all {
		looks[i] = r.look(d)
	}
	_ = r.run(ctx, looks...) // each call has its own error
	notes := make(map[int]*call)
	var calls []*call
	for i, d := range all {
		note, err := r.note(d, looks[i], seen)
		switch {
		case err != nil:
			failed = fmt.Errorf("look at session: %w", err)
		case note == nil:
			noted = append(noted, d)
		default:
			notes[i] = note
			calls = append(calls, note)
		}
	}
	if len(calls) > 0 {
		_ = r.run(ctx, calls...)
	}
	calls = calls[:0]
	for i, note := range notes {
		if err := note.answer.Err(); err != nil {
			failed = fmt.Errorf("note session: %w", err)
			continue
		}
		calls = append(calls, note)
		noted = append(noted, all[i])
	}
	r.keepNotes(calls)
	return noted, failed
}

// release writes what is left to write, ends the node's leases and sweeps them.
func (r *Registry) release(ctx context.Context) error {
	held := r.currentLease()
	if held.id == "" {
		return nil
	}
	r.mu.Lock()
	r.lease.until = time.Time{} // nothing is claimed any more
	r.mu.Unlock()
	flushing, cancel := context.WithTimeout(ctx, releaseTimeout*3/4)
	defer cancel()
	r.writeAll(flushing) // if not, the lease is to end all the same
	failed := r.endLease(ctx, held.id)
	for lease := range r.knownLeases() { // that before it may still be running
		if nodeOf(lease) == r.node && lease != held.id {
			failed = cmp.Or(failed, r.endLease(ctx, lease))
		}
	}
	return failed
}

// endLease ends a lease of this node and sweeps it.
func (r *Registry) endLease(ctx context.Context, lease string) error {
	c := newCall(releaseScript, r.keys.nodes(), lease)
	if err := r.run(ctx, c); err != nil {
		return fmt.Errorf("end lease: %w", err)
	}
	seen, err := c.leases()
	if err != nil {
		return fmt.Errorf("end lease: %w", err)
	}
	_, err = r.sweep(ctx, lease, seen.ends[lease])
	return err
}
