package session

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// departedKept is how long a session that has gone from here is still compared with
	// Redis, at the least, and then until it has answered: two rounds, or more while its
	// server is away. A Redis that restarts, or a replica that takes its place, may lose
	// the last second of writes, and with it that the session has gone.
	departedKept = verifySteps * verifyEvery
	// departedMost is of how many that is done, about 3 MB: the last ones.
	departedMost = 16_384
)

// departed is a session that Redis has as left by its connection here, or lost to another
// one, or ended.
type departed struct {
	id, user, claim string
	until           time.Time
	done            bool // Redis has it as left, and had until then; guarded by Registry.mu
}

// keepDeparted has a session compared with Redis for a while. r.mu is held.
func (r *Registry) keepDeparted(s *Session) {
	if len(r.departed) == departedMost {
		r.departed = r.departed[1:]
	}
	r.departed = append(r.departed, &departed{id: s.ID, user: s.User, claim: s.claim, until: time.Now().Add(departedKept)})
}

// recentlyDeparted returns those that are still to be compared.
func (r *Registry) recentlyDeparted() []*departed {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.departed = slices.DeleteFunc(r.departed, func(d *departed) bool { return d.done })
	if len(r.departed) == 0 {
		r.departed = nil
	}
	return slices.Clone(r.departed)
}

// verifyDeparted lets those sessions be left again that Redis has as connected, though
// they were left: nobody holds them, so nothing else would. It takes half of the time
// that it has.
func (r *Registry) verifyDeparted(ctx context.Context, within time.Duration) {
	servers := make(map[string][]*departed)
	for _, d := range r.recentlyDeparted() {
		server := r.serverOfUser(ctx, d.user)
		servers[server] = append(servers[server], d)
	}
	var all sync.WaitGroup
	for _, gone := range servers {
		all.Go(func() {
			batches := time.Duration((len(gone) + batchSize - 1) / batchSize)
			for batch := range slices.Chunk(gone, batchSize) {
				if !r.verifyDepartedBatch(ctx, batch) || !sleep(ctx, within/2/batches) {
					return // what it does not answer is left to the next round
				}
			}
		})
	}
	all.Wait()
}

// verifyDepartedBatch reports whether Redis answered.
func (r *Registry) verifyDepartedBatch(ctx context.Context, batch []*departed) bool {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	pipe := r.rdb.Pipeline()
	records := make([]*redis.StringCmd, len(batch))
	ends := make([]*redis.FloatCmd, len(batch)) // of their windows, if they are left
	for i, d := range batch {
		records[i] = pipe.HGet(ctx, r.keys.sessions(d.user), d.id)
		ends[i] = pipe.ZScore(ctx, r.keys.left(d.user), d.id)
	}
	_, err := pipe.Exec(ctx)
	back := make(map[string][]string) // entries by lease
	r.mu.Lock()
	for i, d := range batch {
		lease, connected := connectedBy(records[i].Val(), d.claim)
		switch read := known(records[i].Err()) && known(ends[i].Err()); {
		case read && connected && ends[i].Err() != nil:
			back[lease] = append(back[lease], entry(d.claim, d.id, d.user))
		case read && time.Now().After(d.until):
			d.done = true
		}
	}
	r.mu.Unlock()
	for lease, entries := range back {
		n, failed := r.sweepBatch(ctx, lease, 0, entries)
		r.metrics.repaired.Add(float64(n))
		if failed != nil {
			err = failed
		}
	}
	return err == nil || answered(err)
}

// known reports whether err, of a read, says at most that there is nothing.
func known(err error) bool { return err == nil || errors.Is(err, redis.Nil) }

// connectedBy reports whether a record says that a session is connected by a claim, and
// under which lease.
func connectedBy(text, claim string) (lease string, ok bool) {
	f := strings.Split(text, " ")
	if len(f) != 7 || f[0] != recordVersion || f[3] != claim { // an eighth is its state
		return "", false
	}
	return f[2], true
}
