package session_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"wssgateway/session"
)

// backup returns what puts back all that Redis has now, but for streams.
func (c *cluster) backup() (restore func()) {
	ctx := context.Background()
	var puts []func()
	for _, key := range c.keys() {
		switch kind := c.rdb.Type(ctx, key).Val(); kind {
		case "string":
			value := c.rdb.Get(ctx, key).Val()
			puts = append(puts, func() { c.rdb.Set(ctx, key, value, 0) })
		case "hash":
			fields := c.rdb.HGetAll(ctx, key).Val()
			puts = append(puts, func() { c.rdb.HSet(ctx, key, fields) })
		case "set":
			members := c.rdb.SMembers(ctx, key).Val()
			puts = append(puts, func() { c.rdb.SAdd(ctx, key, members) })
		case "zset":
			members := c.rdb.ZRangeWithScores(ctx, key, 0, -1).Val()
			puts = append(puts, func() { c.rdb.ZAdd(ctx, key, members...) })
		case "stream":
		default:
			c.t.Fatalf("%s: a %s", key, kind)
		}
	}
	return func() {
		c.redis.FlushAll()
		for _, put := range puts {
			put()
		}
	}
}

// TestSessionThatEndedDoesNotComeBackWithOlderData: Redis restarts with what it had while
// the session was connected, and nobody holds it any more.
func TestSessionThatEndedDoesNotComeBackWithOlderData(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		var w witness
		a := c.startWith(session.Config{Node: "a", Events: true, Gone: w.gone})
		stays, goes := a.claim(alice("")), a.claim(browser("bob"))
		pass(4 * time.Second)
		older := c.backup()
		goes.Session.End("client")
		later := a.claim(browser("carol"))
		pass(4 * time.Second)
		equalSlices(t, "told of", w.ids(), []string{goes.Session.ID})

		older()
		pass(4 * time.Second)
		equalSlices(t, "nodes", a.names(), []string{"a"})
		pass(11 * time.Second)
		equalSlices(t, "of bob's", a.onlineOf("bob"), nil)
		equalSlices(t, "of alice's", a.onlineOf("alice"), []string{stays.Session.ID})
		equalSlices(t, "of carol's", a.onlineOf("carol"), []string{later.Session.ID})
		equal(t, "holders told", stays.lost.Load()+later.lost.Load(), 0)
		pass(window)
		equalSlices(t, "told of", w.ids(), []string{goes.Session.ID, goes.Session.ID}) // in this history it ends later
		stays.Session.End("client")
		later.Session.End("client")
		pass(4 * time.Second)
		equal(t, "told of in all", len(w.ids()), 4)
		c.rdb.Del(context.Background(), "gw:events")
	})
}

// TestSessionThatEndedDoesNotComeBackWithAPartOfOlderData: no lease shows that a second of
// writes was lost, or that a server of a Cluster has older data.
func TestSessionThatEndedDoesNotComeBackWithAPartOfOlderData(t *testing.T) {
	for name, end := range map[string]func(*held){
		"ended": func(h *held) { h.Session.End("client") },
		"left":  func(h *held) { h.Session.Leave(10*time.Second, "client") },
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				const sessions, left = "gw:{user:alice}:sessions", "gw:{user:alice}:left"
				var w witness
				a := c.startWith(session.Config{Node: "a", Gone: w.gone})
				h := a.claim(alice(""))
				pass(time.Second)
				older := c.rdb.HGetAll(t.Context(), sessions).Val()
				end(h)
				pass(time.Second)
				c.rdb.Del(t.Context(), left)
				c.rdb.Persist(t.Context(), sessions)
				c.rdb.HSet(t.Context(), sessions, older)
				equalSlices(t, "online at first", a.online(), []string{h.Session.ID})
				pass(25 * time.Second)
				equalSlices(t, "online", a.online(), nil)
				pass(window)
				if len(w.ids()) == 0 {
					t.Error("its end was never told")
				}
			})
		})
	}
}

// TestSessionThatWasResumedIsNotTakenForOneThatCameBack: what departed is compared by claim.
func TestSessionThatWasResumedIsNotTakenForOneThatCameBack(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		h := a.claim(alice(""))
		pass(time.Second)
		h.Session.Leave(window, "client")
		pass(time.Second)
		again := b.claim(alice(h.Session.ID))
		equal(t, "resumed", again.Resumed, true)
		pass(time.Minute)
		equalSlices(t, "online", a.online(), []string{h.Session.ID})
		equal(t, "holder told", again.lost.Load(), 0)
		again.Session.End("client")
	})
}

// atCommand is a hook that runs a function after what has a command with this in an
// argument. An error of it takes the place of the answer.
type atCommand struct {
	arg   string
	after func() error
}

func (atCommand) DialHook(next redis.DialHook) redis.DialHook { return next }
func (h atCommand) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return h.process(func() error { return next(ctx, cmd) }, cmd)
	}
}

func (h atCommand) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return h.process(func() error { return next(ctx, cmds) }, cmds...)
	}
}

func (h atCommand) process(run func() error, cmds ...redis.Cmder) error {
	err := run()
	if !slices.ContainsFunc(cmds, h.in) {
		return err
	}
	failed := h.after()
	for _, cmd := range cmds {
		if failed != nil {
			cmd.SetErr(failed)
		}
	}
	return errors.Join(err, failed)
}

func (h atCommand) in(cmd redis.Cmder) bool {
	return slices.ContainsFunc(cmd.Args(), func(arg any) bool {
		s, _ := arg.(string)
		return strings.Contains(s, h.arg)
	})
}

// TestNodeThatStopsWithTwoLeasesHasNotDied: Redis came back with older data just before.
func TestNodeThatStopsWithTwoLeasesHasNotDied(t *testing.T) {
	for name, how := range map[string]struct {
		end  func(*node)
		lost int
	}{"stops": {func(n *node) { n.stop() }, 0}, "dies": {func(n *node) { n.link.cut() }, 1}} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				reg := prometheus.NewPedanticRegistry()
				a := c.start("a")
				b := c.startWith(session.Config{Node: "b", Registerer: reg})
				a.claim(alice(""))
				pass(4 * time.Second)
				older := c.backup()
				pass(4 * time.Second)
				older()
				pass(3 * time.Second)
				equalSlices(t, "nodes", b.names(), []string{"a", "b"})
				how.end(a)
				if how.lost == 0 {
					equalSlices(t, "nodes at once", b.names(), []string{"b"})
				}
				pass(20 * time.Second)
				equalSlices(t, "nodes", b.names(), []string{"b"})
				equal(t, "lost", lost(t, reg), how.lost)
			})
		})
	}
}

// TestOlderDataAreNotForgottenWhenTheNextLeaseIsRefused: the old one ends all the same.
func TestOlderDataAreNotForgottenWhenTheNextLeaseIsRefused(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		h := a.claim(alice(""))
		pass(4 * time.Second)
		older := c.backup()
		pass(4 * time.Second)
		fails := 3
		a.rdb.AddHook(atCommand{string(a.Node()) + ".2", func() error {
			if fails--; fails >= 0 {
				return errors.New("read: connection reset by peer")
			}
			return nil
		}})
		older()
		pass(25 * time.Second)
		first := "gw:{node:" + string(a.Node()) + ".1}:sessions"
		equal(t, "the old lease is over", slices.Contains(c.keys(), first), false)
		equalSlices(t, "online", a.online(), []string{h.Session.ID})
		equalSlices(t, "nodes", a.names(), []string{"a"})
		equal(t, "holder told", h.lost.Load(), 0)
	})
}

// TestClaimThatWasTakenBackIsNotRepaired: Redis has it as left.
func TestClaimThatWasTakenBackIsNotRepaired(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		reg := prometheus.NewPedanticRegistry()
		var w witness
		a := c.startWith(session.Config{Node: "a", Gone: w.gone, Registerer: reg})
		h := a.claim(alice(""))
		h.Session.Leave(window, "lost")
		pass(time.Second)
		a.link.deafen()
		if _, err := a.try(alice(h.Session.ID)); err == nil {
			t.Fatal("claimed")
		}
		a.link.mend()
		pass(45 * time.Second)
		if !slices.Contains(gather(t, reg), "gateway_sessions_repaired_total 0") {
			t.Errorf("%q", gather(t, reg))
		}
	})
}

// TestSessionThatEndedIsComparedOnceItsServerIsBack: it was away for longer than sessions
// are compared otherwise, and its last second of writes is lost. The server of the leases
// has noticed nothing.
func TestSessionThatEndedIsComparedOnceItsServerIsBack(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		const sessions, left = "gw:{user:alice}:sessions", "gw:{user:alice}:left"
		a := c.start("a")
		h := a.claim(alice(""))
		pass(time.Second)
		older := c.rdb.HGetAll(t.Context(), sessions).Val()
		h.Session.End("client")
		pass(time.Second)
		var back atomic.Bool
		a.rdb.AddHook(atCommand{"{user:alice}", func() error {
			if back.Load() {
				return nil
			}
			return errors.New("read: connection reset by peer")
		}})
		pass(2 * time.Minute)
		c.rdb.Del(t.Context(), left)
		c.rdb.HSet(t.Context(), sessions, older)
		back.Store(true)
		equalSlices(t, "online at first", a.online(), []string{h.Session.ID})
		pass(25 * time.Second)
		equalSlices(t, "online", a.online(), nil)
	})
}

// TestLostSessionDoesNotComeBackWithAPartOfOlderData: its connection here was closed because
// it had moved, and it has ended there, or because a backend had ended it.
func TestLostSessionDoesNotComeBackWithAPartOfOlderData(t *testing.T) {
	for name, end := range map[string]func(a, b *node, id string){
		"moved":             func(_, b *node, id string) { b.claim(alice(id)).Session.End("client") },
		"moved on its node": func(a, _ *node, id string) { a.claim(alice(id)).Session.End("client") },
		"disconnected":      func(a, _ *node, _ string) { a.disconnect("") },
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				const sessions = "gw:{user:alice}:sessions"
				a, b := c.start("a"), c.start("b")
				h := a.claim(alice(""))
				pass(time.Second)
				older := c.rdb.HGetAll(t.Context(), sessions).Val()
				end(a, b, h.Session.ID)
				a.Evict(h.Session.ID, h.Session.Generation)
				pass(time.Second)
				c.rdb.Del(t.Context(), "gw:{user:alice}:left", "gw:{user:alice}:ended")
				c.rdb.Persist(t.Context(), sessions)
				c.rdb.HSet(t.Context(), sessions, older)
				equalSlices(t, "online at first", a.online(), []string{h.Session.ID})
				pass(25 * time.Second)
				equalSlices(t, "online", a.online(), nil)
			})
		})
	}
}
