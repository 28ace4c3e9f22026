package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"wssgateway/examples/hostile/attack"
	"wssgateway/examples/lab"
)

// stream is where calls for the backend are in Redis.
const stream = "gw:calls:" + attack.Stream

// backend answers calls, as whoever would answer them does.
type backend struct {
	redis    *redis
	answered atomic.Int64
}

func newBackend(ctx context.Context, socket string) (*backend, error) {
	r, err := dialRedis(ctx, socket)
	if err != nil {
		return nil, err
	}
	_, err = r.do([]string{"XGROUP", "CREATE", stream, "backends", "$", "MKSTREAM"})
	return &backend{redis: r}, err
}

// run answers calls until ctx is done.
func (b *backend) run(ctx context.Context) error {
	for ctx.Err() == nil {
		answer, err := b.redis.do([]string{"XREADGROUP", "GROUP", "backends", "one", "COUNT", "100", "BLOCK", "200", "STREAMS", stream, ">"})
		if err == nil {
			err = b.answer(answer)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("backend: %w", err)
		}
	}
	return nil
}

// answer answers the calls that were read: a list of streams, each a name and a
// list of entries, each an id and a list of fields.
func (b *backend) answer(read any) error {
	var commands [][]string
	streams, _ := read.([]any)
	for _, s := range streams {
		pair, _ := s.([]any)
		entries, _ := pair[1].([]any)
		for _, e := range entries {
			entry, _ := e.([]any)
			id, _ := entry[0].(string)
			fields := make(map[string]string)
			for list := strs(entry[1]); len(list) > 1; list = list[2:] {
				fields[list[0]] = list[1]
			}
			if to := fields["reply_to"]; to != "" {
				commands = append(commands, []string{"PUBLISH", to, fmt.Sprintf(`{"ref":%q,"data":{"order":1}}`, fields["ref"])})
				b.answered.Add(1)
			}
			commands = append(commands, []string{"XACK", stream, "backends", id})
		}
	}
	if len(commands) == 0 {
		return nil
	}
	_, err := b.redis.do(commands...)
	return err
}

// caller is a good client who calls the backend, twice a second.
type caller struct {
	client        *usual
	calls, failed int
	why           error
}

func (c *caller) run(ctx context.Context) {
	for lab.Pause(ctx, 500*time.Millisecond) == nil {
		c.calls++
		if err := c.client.call(context.WithoutCancel(ctx)); err != nil {
			c.failed++
			c.why = err
		}
	}
}

func (c *caller) figure() lab.Figure {
	f := lab.Zero("good calls failed", c.failed)
	f.Value = fmt.Sprintf("%d of %d", c.failed, c.calls)
	if c.why != nil {
		f.Value += ", " + c.why.Error()
	}
	f.OK = f.OK && c.calls > 0
	return f
}

// foreign returns the streams of calls that no backend has made.
func foreign(ctx context.Context, socket string) ([]string, error) {
	r, err := dialRedis(ctx, socket)
	if err != nil {
		return nil, err
	}
	keys, err := r.do([]string{"KEYS", "gw:calls:*"})
	if err != nil {
		return nil, err
	}
	var others []string
	for _, key := range strs(keys) {
		if key != stream {
			others = append(others, key)
		}
	}
	return others, nil
}
