package session_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// failsToRemove is a hook by which nothing is taken out of a set while it has an error.
type failsToRemove struct{ why atomic.Pointer[error] }

func (*failsToRemove) DialHook(next redis.DialHook) redis.DialHook { return next }
func (*failsToRemove) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (f *failsToRemove) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if why := f.why.Load(); why != nil && cmd.Name() == "srem" {
			cmd.SetErr(*why)
			return *why
		}
		return next(ctx, cmd)
	}
}

// refusal is an answer of Redis.
type refusal string

func (r refusal) Error() string { return string(r) }
func (refusal) RedisError()     {}

// TestIndexIsRidOfSessionsThoughThatFailed: nothing else changes afterwards.
func TestIndexIsRidOfSessionsThoughThatFailed(t *testing.T) {
	for name, why := range map[string]error{
		"refused": refusal("NOPERM no permissions to run the 'srem' command"),
		"lost":    errors.New("read: connection reset by peer"),
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				a := c.start("a")
				var f failsToRemove
				a.rdb.AddHook(&f)
				h := a.claim(alice(""))
				h.Session.SetChannels([]string{"room:1"})
				pass(time.Second)
				f.why.Store(&why)
				h.Session.End("client")
				pass(5 * time.Second)
				f.why.Store(nil)
				pass(5 * time.Second)
				for _, key := range c.keys() {
					if strings.HasPrefix(key, "gw:{node:") {
						t.Errorf("still in the index: %q", c.rdb.SMembers(t.Context(), key).Val())
					}
				}
			})
		})
	}
}
