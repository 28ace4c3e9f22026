package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// tallyTTL is how long the count of a node that stores nothing more is kept.
	tallyTTL = 7 * 24 * time.Hour
	// tallyRenewal is how often the expiry of a count that grows is renewed.
	tallyRenewal = time.Hour
)

// tally finds out that Redis has gone back to older data: that it was restarted
// from what is on its disk, or that a replica took over which lacks the end. It
// counts, in Redis, the pipelines by which the node has stored something, each as
// the last command of that pipeline. What Redis keeps is always a beginning of what
// it was told, so if the count that was answered last is there, all is there that
// the node has seen stored before it. If the count is lower, something is gone.
// Nobody else writes the key: no message of another node can hide the loss.
//
// Its methods may be called from several goroutines.
type tally struct {
	key  string
	gone func(newest ID) // told of a loss, with the newest id that may be gone
	seen func() ID       // the newest id that the node has seen

	mu      sync.Mutex
	count   int64     // the newest that Redis has answered
	newest  ID        // the newest id that was there with it
	losses  int       // that were found; an answer from before one says nothing
	renewed time.Time // when the expiry of the key was last set
}

// reading is what was known before Redis was asked for the count.
type reading struct {
	count  int64
	losses int
	newest ID
}

func (t *tally) read() reading {
	newest := t.seen()
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.renewed) > tallyTTL-tallyRenewal {
		t.count = 0 // the key may have expired
	}
	return reading{t.count, t.losses, newest}
}

// check takes in the count that Redis has, which must be at least the least one,
// and the newest id that was there with it.
func (t *tally) check(before reading, count, least int64, newest ID) {
	t.mu.Lock()
	if t.losses != before.losses {
		t.mu.Unlock()
		return
	}
	lost := count < least
	gone := t.newest
	if lost {
		t.losses++
		t.count, t.newest = count, ID{}
	} else {
		t.count = max(t.count, count)
		t.newest = later(t.newest, newest)
	}
	t.mu.Unlock()
	if lost {
		t.gone(gone)
	}
}

// entry counts one pipeline.
type entry struct {
	tally  *tally
	before reading
	cmd    *redis.IntCmd
}

// add ends a pipeline that stores something.
func (t *tally) add(ctx context.Context, pipe redis.Pipeliner) *entry {
	e := &entry{tally: t, before: t.read(), cmd: redis.NewIntCmd(ctx, "INCR", t.key)}
	_ = pipe.Process(ctx, once{e.cmd}) // only queues
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.renewed) > tallyRenewal {
		t.renewed = time.Now()
		_ = pipe.Process(ctx, once{redis.NewBoolCmd(ctx, "PEXPIRE", t.key, tallyTTL.Milliseconds())})
	}
	return e
}

// settle takes in how the pipeline went. What was stored by one that broke off
// before its count is not known to be found missing later: it is not acknowledged.
func (e *entry) settle(calls []*call) {
	err := e.cmd.Err()
	var reply redis.Error
	switch {
	case err == nil:
		newest := e.before.newest
		for _, c := range calls {
			if id, err := parseIDReply(c.cmd.Val()); err == nil {
				newest = later(newest, id)
			}
		}
		e.tally.check(e.before, e.cmd.Val(), e.before.count+1, newest)
		return
	case errors.As(err, &reply):
		return // Redis counts nothing now: it is full, or somebody else uses the key
	}
	for _, c := range calls {
		if c.stores() && c.cmd.Err() == nil {
			c.cmd.SetErr(fmt.Errorf("confirm: %w", err))
		}
	}
}
