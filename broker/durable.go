package broker

import (
	"context"
	"errors"
	"fmt"
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
// All keys of a batcher are on one server.
func newDurableBatcher(rdb redis.UniversalClient, t *tally) *batcher {
	b := newBatcher(rdb, t)
	b.exec = b.execDurably
	return b
}

// execDurably runs calls of scripts, on the master that has their keys.
func (b *batcher) execDurably(ctx context.Context, batch []*call) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	master, err := masterOf(ctx, b.rdb, batch[0].keys[0])
	if err == nil {
		b.pipeWaiting(ctx, master, batch)
	}
	for _, c := range batch {
		if err != nil {
			c.cmd.SetErr(fmt.Errorf("find master: %w", err))
		}
		close(c.done)
	}
}

// pipeWaiting runs calls in one pipeline and waits for a replica. Scripts go with
// their source: to send it only when it is missing would mean to wait twice.
func (b *batcher) pipeWaiting(ctx context.Context, master redis.UniversalClient, calls []*call) {
	for _, c := range calls {
		c.whole(ctx)
	}
	wait := redis.NewIntCmd(ctx, "WAIT", 1, replicaTimeout.Milliseconds())
	b.pipe(ctx, master, calls, wait)
	for _, c := range calls {
		switch err := c.cmd.Err(); {
		case err == nil && wait.Err() != nil:
			c.cmd.SetErr(fmt.Errorf("%w: %w", ErrNotReplicated, wait.Err()))
		case err == nil && wait.Val() < 1:
			c.cmd.SetErr(ErrNotReplicated)
		case err != nil:
			reloadTopology(ctx, b.rdb, err)
		}
	}
}
