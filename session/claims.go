package session

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// claims sends the claims of concurrent connections to Redis together, those for each
// server of a Cluster by themselves: one that does not answer holds up only its own.
type claims struct {
	registry *Registry
	fresh    chan *claimQueue // queues that need senders
	stopped  chan struct{}    // closed when there are no senders any more

	mu      sync.Mutex
	servers map[string]*claimQueue // guarded by mu; by serverOf
}

// claimQueue has the claims for one server. One that comes while others are under
// way goes with the next. Alone, it leaves at once.
type claimQueue struct {
	server  string
	waiting chan *claiming
	ended   chan struct{} // closed when nobody has used it for a while

	// Guarded by claims.mu.
	users int       // goroutines that have a claim in it, or are about to
	used  time.Time // when the last one left
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
	// claimSenders is how many pipelines may be under way to a server at a time.
	claimSenders = 2
	// claimIdle is how long the queue of a server is kept that nobody claims on: it
	// may have left the Cluster.
	claimIdle = time.Minute
)

func newClaims(r *Registry) *claims {
	return &claims{
		registry: r,
		fresh:    make(chan *claimQueue),
		stopped:  make(chan struct{}),
		servers:  make(map[string]*claimQueue),
	}
}

// do has a claim run, and reports whether the index has its entries. The error is
// that of ctx: it is then not known whether the claim was done. That of Redis is
// in the call's answer.
func (q *claims) do(ctx context.Context, a *attempt, c *call) (indexed bool, err error) {
	queue := q.enter(q.registry.serverOf(ctx, c.keys[0]))
	defer q.exit(queue)
	w := &claiming{attempt: a, call: c, done: make(chan struct{})}
	select {
	case queue.waiting <- w:
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

// enter returns the queue of a server, which stays until exit.
func (q *claims) enter(server string) *claimQueue {
	q.mu.Lock()
	queue, ok := q.servers[server]
	if !ok {
		q.endIdle()
		queue = &claimQueue{
			server:  server,
			waiting: make(chan *claiming, claimBatch),
			ended:   make(chan struct{}),
		}
		q.servers[server] = queue
	}
	queue.users++
	q.mu.Unlock()
	if !ok {
		select {
		case q.fresh <- queue:
		case <-q.stopped:
		}
	}
	return queue
}

func (q *claims) exit(queue *claimQueue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	queue.users--
	queue.used = time.Now()
}

// endIdle ends queues that nobody has used for a while. q.mu is held.
func (q *claims) endIdle() {
	for server, queue := range q.servers {
		if queue.users == 0 && time.Since(queue.used) > claimIdle {
			delete(q.servers, server)
			close(queue.ended)
		}
	}
}

// run has claims sent, until ctx is done.
func (q *claims) run(ctx context.Context) {
	var senders sync.WaitGroup
	defer senders.Wait()
	defer close(q.stopped)
	for {
		select {
		case <-ctx.Done():
			return
		case queue := <-q.fresh:
			for range claimSenders {
				senders.Go(func() { q.sendAll(ctx, queue) })
			}
		}
	}
}

// sendAll sends what is queued, until ctx is done or the queue has ended.
func (q *claims) sendAll(ctx context.Context, queue *claimQueue) {
	batch := make([]*claiming, 0, claimBatch)
	for {
		select {
		case <-ctx.Done():
			return
		case <-queue.ended:
			return
		case w := <-queue.waiting:
			batch = queue.collect(append(batch[:0], w))
			q.send(ctx, queue.server, batch)
			clear(batch)
		}
	}
}

// collect adds what is queued, without waiting for more.
func (q *claimQueue) collect(batch []*claiming) []*claiming {
	for len(batch) < claimBatch {
		select {
		case w := <-q.waiting:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

// send sends claims, by lease: mostly that is one, and the index of a lease is
// written with one command.
func (q *claims) send(ctx context.Context, server string, batch []*claiming) {
	for len(batch) > 0 {
		lease := batch[0].attempt.lease
		n := 0
		var entries []any
		calls := make([]*call, 0, len(batch))
		for ; n < len(batch) && batch[n].attempt.lease == lease; n++ {
			entries = batch[n].attempt.appendEntries(entries)
			calls = append(calls, batch[n].call)
		}
		indexed := q.registry.sendClaims(ctx, server, lease, entries, calls)
		for _, w := range batch[:n] {
			w.indexed = indexed
			close(w.done)
		}
		batch = batch[n:]
	}
}

// sendClaims sends claims under one lease, and reports whether its index has their
// entries. If one server has both, the index is written first. Else that is done side
// by side, and only a node that dies between the two leaves a session to no sweep.
func (r *Registry) sendClaims(ctx context.Context, server, lease string, entries []any, calls []*call) (indexed bool) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	if r.hasIndex(ctx, server, lease) {
		added := redis.NewIntCmd(ctx, append([]any{"sadd", r.keys.index(lease)}, entries...)...)
		_ = r.runAfter(ctx, added, calls...) // each call has its own error
		return added.Err() == nil
	}
	var adding sync.WaitGroup
	adding.Go(func() { indexed = r.addToIndex(ctx, server, lease, entries) == nil })
	_ = r.run(ctx, calls...)
	adding.Wait()
	return indexed // if not, the writer adds them
}
