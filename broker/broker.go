// Package broker carries messages between nodes through Redis: it publishes,
// subscribes and replays. What it promises, on one Redis as in a Cluster:
//
//   - every subscriber of a channel gets its messages in the one order in which
//     Redis stored them, each once;
//   - a gap (a lost link, a deaf one, a message that pub/sub dropped) is filled
//     from the channel's stream before anything newer is delivered, or said
//     aloud with Reset if the stream no longer has it;
//   - a position is vouched for only if all after it is still there.
//
// A message's payload is opaque here. Channels without history are live only:
// at most once, no ids, no promise.
package broker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// Config is what a Broker needs to know.
type Config struct {
	Prefix     string                // of every key and channel in Redis
	Node       string                // unique among the nodes that run, over restarts too
	Logger     *slog.Logger          // required
	Registerer prometheus.Registerer // nil: metrics are kept, but nowhere to be seen
}

// clusterLanes is the number of lanes in a Cluster: the most shards over which
// channels spread, at the price of as many pub/sub connections per node.
const clusterLanes = 16

// batchWorkers is how many pipelines of a lane may be under way: two, so that one
// is filled while the other is answered.
const batchWorkers = 2

// Broker publishes to channels and subscribes to them. Its methods may be
// called from several goroutines; those that talk to Redis return only while
// Run runs or when their context is done.
type Broker struct {
	layout  layout
	log     *slog.Logger
	batch   *queues
	lanes   []*lane
	clock   clock
	metrics *metrics
	backlog backlog
}

// New returns a Broker on rdb, which remains the caller's. rdb must not retry
// by itself (MaxRetries: -1): a publish sent twice would be stored twice.
func New(rdb redis.UniversalClient, cfg Config) *Broker {
	cluster, _ := rdb.(*redis.ClusterClient)
	b := &Broker{
		layout:  layout{prefix: cfg.Prefix, lanes: 1, sharded: cluster != nil},
		log:     cfg.Logger,
		metrics: newMetrics(cfg.Registerer),
	}
	if cluster != nil {
		b.layout.lanes = clusterLanes
	}
	b.batch = &queues{layout: b.layout, cluster: cluster, servers: make(map[string]int)}
	for i := range b.layout.lanes {
		l := newLane(b, rdb, i, cfg.Node)
		b.lanes = append(b.lanes, l)
		b.batch.lanes = append(b.batch.lanes, l.batch)
		if cluster != nil {
			b.batch.others = append(b.batch.others, newBatcher(rdb, nil))
		}
	}
	return b
}

// Run keeps the broker's links to Redis until ctx is done, then returns nil. It
// leaves nothing behind. Redis being away is no reason to return.
func (b *Broker) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, l := range b.lanes {
		wg.Go(func() { l.run(ctx) })
	}
	for _, q := range b.batch.others {
		for range batchWorkers {
			wg.Go(func() { q.run(ctx) })
		}
	}
	wg.Wait()
	return nil
}

// ErrDeaf is returned by Ready while pub/sub is not proven to deliver.
var ErrDeaf = errors.New("broker: pub/sub has not delivered this node's probe")

// Ready returns nil if Redis answers and every link has delivered the node's
// probe within the last patience, not counting the time in which the node itself
// was too busy to read it.
func (b *Broker) Ready(patience time.Duration) error {
	for _, l := range b.lanes {
		if l.hearing.silence() >= patience {
			return ErrDeaf
		}
	}
	return nil
}

func (b *Broker) lane(channel string) *lane { return b.lanes[b.layout.laneOf(channel)] }
