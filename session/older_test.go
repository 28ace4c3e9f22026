package session_test

import (
	"context"
	"testing"
	"time"

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
