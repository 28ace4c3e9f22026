package broker

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"
)

// queues are the pipelines to Redis: one for each lane, so that in a Cluster a
// server that does not answer holds up nothing but its own. Keys that are in no
// lane go by the server they are on.
//
// Its methods may be called from several goroutines.
type queues struct {
	layout  layout
	lanes   []*batcher
	cluster *redis.ClusterClient // nil if there is one server: it has every key
	others  []*batcher           // for keys in no lane, in a Cluster

	mu      sync.Mutex
	servers map[string]int // guarded by mu: which of others has a server's keys
}

// eval runs a script and returns its result. An error leaves open whether the
// script has run.
func (q *queues) eval(ctx context.Context, s *script, keys []string, argv ...any) (any, error) {
	return q.of(ctx, keys[0]).eval(ctx, s, keys, argv...)
}

// do runs one command, whose first argument is its key, and returns its result.
func (q *queues) do(ctx context.Context, args ...any) (any, error) {
	key, _ := args[1].(string)
	return q.of(ctx, key).do(ctx, args...)
}

func (q *queues) of(ctx context.Context, key string) *batcher {
	if lane, ok := q.layout.laneOfKey(key); ok {
		return q.lanes[lane]
	}
	addr := "" // of a server that is not known: the command will say why
	if master, err := q.cluster.MasterForKey(ctx, key); err == nil {
		addr = master.Options().Addr
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	i, ok := q.servers[addr]
	if !ok {
		if len(q.servers) == len(q.others) {
			clear(q.servers) // more have come and gone than there are queues
		}
		i = len(q.servers)
		q.servers[addr] = i
	}
	return q.others[i]
}
