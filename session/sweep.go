package session

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
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
	for {
		select {
		case <-r.over:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, rand.N(r.cfg.Heartbeat)) {
			return
		}
		if err := r.sweepAll(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("sweep not finished, will repeat", "error", err)
		}
	}
}

// sweepAll sweeps what has ended by now, which another node may have done.
func (r *Registry) sweepAll(ctx context.Context) error {
	seen, err := r.readLeases(ctx)
	if err != nil {
		return fmt.Errorf("read leases: %w", err)
	}
	for lease, end := range seen.over() {
		died, err := r.sweep(ctx, lease, end)
		if err != nil {
			return fmt.Errorf("sweep %s: %w", lease, err)
		}
		died = died && !seen.lives(nodeOf(lease)) // it may have taken another lease
		if died {
			r.metrics.nodesLost.Inc()
		}
		r.log.Info("lease swept", "lease", lease, "died", died)
	}
	return nil
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
		if err := r.sweepBatch(ctx, lease, end, entries); err != nil {
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

func (r *Registry) sweepBatch(ctx context.Context, lease string, end int64, entries []string) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var calls []*call
	var refs []Ref
	done := make([]any, len(entries))
	for i, e := range entries {
		done[i] = e
		f := strings.SplitN(e, " ", 3)
		if len(f) < 3 {
			continue // not ours: only taken out
		}
		claim, id, user := f[0], f[1], f[2]
		calls = append(calls, newCall(leaveScript, r.keys.user(user),
			id, claim, lease, end, r.cfg.ResumeWindow.Milliseconds()))
		refs = append(refs, Ref{user, id})
	}
	if err := r.run(ctx, calls...); err != nil {
		return fmt.Errorf("leave sessions: %w", err)
	}
	if err := r.noteLeft(ctx, calls, refs, nodeOf(lease).Name()); err != nil {
		return err
	}
	if err := r.rdb.SRem(ctx, r.keys.index(lease), done...).Err(); err != nil {
		return fmt.Errorf("take out of index: %w", err)
	}
	return nil
}

// noteLeft notes when the sessions that were left with their node are over.
func (r *Registry) noteLeft(ctx context.Context, left []*call, refs []Ref, node string) error {
	if !r.tells() {
		return nil
	}
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	var calls []*call
	for i, c := range left {
		note, err := r.leftOutside(c, refs[i].ID, refs[i].User, node, seen)
		if err != nil {
			return fmt.Errorf("leave sessions: %w", err)
		}
		if note != nil {
			calls = append(calls, note)
		}
	}
	if len(calls) == 0 {
		return nil
	}
	if err := r.run(ctx, calls...); err != nil {
		return fmt.Errorf("note sessions that were left: %w", err)
	}
	return nil
}

// release writes what is left to write, ends the node's lease and sweeps it.
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
	r.flushAll(flushing) // if not, the lease is to end all the same

	c := newCall(releaseScript, r.keys.nodes(), held.id)
	if err := r.run(ctx, c); err != nil {
		return fmt.Errorf("end lease: %w", err)
	}
	seen, err := c.leases()
	if err != nil {
		return fmt.Errorf("end lease: %w", err)
	}
	_, err = r.sweep(ctx, held.id, seen.ends[held.id])
	return err
}
