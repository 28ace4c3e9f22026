package session

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// claims sends the claims of concurrent connections to Redis together: one that
// comes while others are under way goes with the next. Alone, it leaves at once.
type claims struct {
	registry *Registry
	queue    chan *claiming
}

// claiming is a claim on its way.
type claiming struct {
	attempt *attempt
	call    *call
	indexed bool          // the index has the entries of the attempt
	done    chan struct{} // closed once call has its answer
}

const (
	// claimBatch is how many claims go in one pipeline: some milliseconds of
	// Redis's time.
	claimBatch = 128
	// claimSenders is how many pipelines may be under way at a time.
	claimSenders = 2
)

func newClaims(r *Registry) *claims {
	return &claims{registry: r, queue: make(chan *claiming, claimBatch)}
}

// do has a claim run, and reports whether the index has its entries. The error is
// that of ctx: it is then not known whether the claim was done. That of Redis is
// in the call's answer.
func (q *claims) do(ctx context.Context, a *attempt, c *call) (indexed bool, err error) {
	w := &claiming{attempt: a, call: c, done: make(chan struct{})}
	select {
	case q.queue <- w:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	select {
	case <-w.done:
		return w.indexed, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// run sends what is queued, until ctx is done.
func (q *claims) run(ctx context.Context) {
	batch := make([]*claiming, 0, claimBatch)
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-q.queue:
			batch = q.collect(append(batch[:0], w))
			q.send(ctx, batch)
			clear(batch)
		}
	}
}

// collect adds what is queued, without waiting for more.
func (q *claims) collect(batch []*claiming) []*claiming {
	for len(batch) < claimBatch {
		select {
		case w := <-q.queue:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

// send sends claims, by lease: mostly that is one, and the index of a lease is
// written with one command. On one Redis it is written first; a Cluster may do it
// after, and only a node that dies between the two leaves a session to no sweep.
func (q *claims) send(ctx context.Context, batch []*claiming) {
	for len(batch) > 0 {
		lease := batch[0].attempt.lease
		n := 0
		index := []any{"sadd", q.registry.keys.index(lease)}
		calls := make([]*call, 0, len(batch))
		for ; n < len(batch) && batch[n].attempt.lease == lease; n++ {
			index = batch[n].attempt.appendEntries(index)
			calls = append(calls, batch[n].call)
		}
		timed, cancel := context.WithTimeout(ctx, claimTimeout)
		written := redis.NewIntCmd(timed, index...)
		_ = q.registry.runAfter(timed, written, calls...) // each call has its own error
		cancel()
		for _, w := range batch[:n] {
			w.indexed = written.Err() == nil
			close(w.done)
		}
		batch = batch[n:]
	}
}
