package broker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// batchSize bounds a pipeline: large enough that the cost of a round trip
	// no longer shows, small enough that Redis's other clients get their turn.
	batchSize = 256
	// batchQueue bounds the commands that wait for a pipeline. A caller that
	// finds it full waits, no longer than its context.
	batchQueue = 4096
	// batchTimeout bounds one pipeline, so that commands behind a Redis that
	// does not answer fail within the time their callers have.
	batchTimeout = 4 * time.Second
)

// batcher coalesces commands of concurrent callers into pipelines: a command
// that comes while another pipeline is under way goes with the next one. There
// is no timer; alone, a command leaves at once.
//
// Its methods may be called from several goroutines.
type batcher struct {
	rdb   redis.UniversalClient
	queue chan *call // never closed: workers end with their context
	tally *tally     // of what is stored; nil if nothing is
	// exec runs a batch and closes the done of every call.
	exec func(context.Context, []*call)
}

// call is one command on its way.
type call struct {
	ctx  context.Context
	cmd  *redis.Cmd
	keys []string
	argv []any
	// script is set for a script's call: a Redis that does not have it answers
	// NOSCRIPT without having done anything, and gets it whole.
	script *script
	done   chan struct{} // closed once cmd has its result
}

// stores reports whether the call may store a message.
func (c *call) stores() bool { return c.script != nil && c.script.stores }

func newBatcher(rdb redis.UniversalClient, t *tally) *batcher {
	b := &batcher{rdb: rdb, queue: make(chan *call, batchQueue), tally: t}
	b.exec = b.execAll
	return b
}

// run sends what is queued until ctx is done. Several may run side by side.
func (b *batcher) run(ctx context.Context) {
	batch := make([]*call, 0, batchSize)
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-b.queue:
			batch = b.collect(append(batch[:0], c))
			b.exec(ctx, batch)
			clear(batch)
		}
	}
}

// collect adds what is queued, without waiting for more.
func (b *batcher) collect(batch []*call) []*call {
	for len(batch) < batchSize {
		select {
		case c := <-b.queue:
			batch = append(batch, c)
		default:
			return batch
		}
	}
	return batch
}

// execAll runs a batch in one pipeline, and in another one, with their source,
// the scripts that Redis did not have.
func (b *batcher) execAll(ctx context.Context, batch []*call) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	b.pipe(ctx, b.rdb, batch)
	var again []*call
	for _, c := range batch {
		if c.script != nil && isNoScript(c.cmd.Err()) {
			c.whole(ctx)
			again = append(again, c)
			continue
		}
		close(c.done)
	}
	if len(again) == 0 {
		return
	}
	b.pipe(ctx, b.rdb, again)
	for _, c := range again {
		close(c.done)
	}
}

// pipe runs calls in one pipeline, with what is given behind them. Each has its
// own error.
func (b *batcher) pipe(ctx context.Context, rdb redis.UniversalClient, calls []*call, behind ...redis.Cmder) {
	pipe := rdb.Pipeline()
	stores := false
	for _, c := range calls {
		if err := c.ctx.Err(); err != nil {
			c.cmd.SetErr(err) // its caller has gone
			continue
		}
		stores = stores || c.stores()
		_ = pipe.Process(ctx, once{c.cmd}) // only queues
	}
	var counted *entry
	if stores && b.tally != nil {
		counted = b.tally.add(ctx, pipe)
	}
	for _, cmd := range behind {
		_ = pipe.Process(ctx, cmd)
	}
	_, _ = pipe.Exec(ctx)
	if counted != nil {
		counted.settle(calls)
	}
}

// whole has the script's source sent, in the place of its name.
func (c *call) whole(ctx context.Context) {
	c.cmd = redis.NewCmd(ctx, c.script.args("EVAL", c.script.source, c.keys, c.argv)...)
	c.cmd.SetFirstKeyPos(3)
}

// once is a command that the client library must not send again by itself, as
// in a Cluster it does with a pipeline whose connection fails: it may have run.
// It still follows a redirection, where it has not.
type once struct{ redis.Cmder }

func (once) NoRetry() bool { return true }

// do runs one command and returns its result.
func (b *batcher) do(ctx context.Context, args ...any) (any, error) {
	return b.wait(&call{ctx: ctx, cmd: redis.NewCmd(ctx, args...)})
}

// eval runs a script and returns its result. An error leaves open whether the
// script has run.
func (b *batcher) eval(ctx context.Context, s *script, keys []string, argv ...any) (any, error) {
	cmd := redis.NewCmd(ctx, s.args("EVALSHA", s.sha, keys, argv)...)
	cmd.SetFirstKeyPos(3)
	return b.wait(&call{ctx: ctx, cmd: cmd, script: s, keys: keys, argv: argv})
}

func (b *batcher) wait(c *call) (any, error) {
	c.done = make(chan struct{})
	select {
	case b.queue <- c:
	case <-c.ctx.Done():
		return nil, fmt.Errorf("queue for Redis: %w", c.ctx.Err())
	}
	select {
	case <-c.done:
		return c.cmd.Result()
	case <-c.ctx.Done():
		return nil, fmt.Errorf("wait for Redis: %w", c.ctx.Err())
	}
}

func isNoScript(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT")
}
