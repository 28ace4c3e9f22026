package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrNotReplicated is the end of a durable publish that no replica has
// acknowledged in time. The message is stored and handed on, and may be lost if
// the master dies now.
var ErrNotReplicated = errors.New("broker: no replica has acknowledged")

// replicaTimeout is how long a replica has to acknowledge: long for one that is
// in step, and short enough for the publisher to be answered in its five seconds.
const replicaTimeout = 2 * time.Second

// newDurableBatcher returns a batcher whose commands are done once a replica has
// them: each pipeline ends with WAIT, which counts what its own connection wrote.
func newDurableBatcher(rdb redis.UniversalClient) *batcher {
	b := newBatcher(rdb)
	b.exec = b.execDurably
	return b
}

// execDurably runs calls of scripts, on each master those that are its.
func (b *batcher) execDurably(ctx context.Context, batch []*call) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	for master, calls := range b.byMaster(ctx, batch) {
		b.pipeWaiting(ctx, master, calls)
	}
	for _, c := range batch {
		close(c.done)
	}
}

// byMaster sorts calls by the server that has their keys. Those for which there
// is none have failed.
func (b *batcher) byMaster(ctx context.Context, batch []*call) map[redis.UniversalClient][]*call {
	groups := make(map[redis.UniversalClient][]*call)
	cluster, ok := b.rdb.(*redis.ClusterClient)
	for _, c := range batch {
		master := b.rdb
		if ok {
			m, err := cluster.MasterForKey(ctx, c.keys[0])
			if err != nil {
				c.cmd.SetErr(fmt.Errorf("find master: %w", err))
				continue
			}
			master = m
		}
		groups[master] = append(groups[master], c)
	}
	return groups
}

// pipeWaiting runs calls in one pipeline and waits for a replica. Scripts go with
// their source: to send it only when it is missing would mean to wait twice.
func (b *batcher) pipeWaiting(ctx context.Context, master redis.UniversalClient, calls []*call) {
	pipe := master.Pipeline()
	for _, c := range calls {
		if err := c.ctx.Err(); err != nil {
			c.cmd.SetErr(err) // its caller has gone
			continue
		}
		c.whole(ctx)
		_ = pipe.Process(ctx, once{c.cmd}) // only queues
	}
	wait := redis.NewIntCmd(ctx, "WAIT", 1, replicaTimeout.Milliseconds())
	_ = pipe.Process(ctx, wait)
	_, _ = pipe.Exec(ctx) // each command has its own error
	for _, c := range calls {
		switch err := c.cmd.Err(); {
		case err == nil && wait.Err() != nil:
			c.cmd.SetErr(fmt.Errorf("%w: %w", ErrNotReplicated, wait.Err()))
		case err == nil && wait.Val() < 1:
			c.cmd.SetErr(ErrNotReplicated)
		case err != nil && strings.HasPrefix(err.Error(), "MOVED"):
			b.rdb.(*redis.ClusterClient).ReloadState(ctx)
		}
	}
}
