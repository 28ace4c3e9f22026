package session_test

import (
	"testing"
	"time"
)

func TestLeftSessionIsResumedWithinItsWindow(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		id := a.claim(alice("")).Session.ID
		for i, n := range []*node{b, a, b} {
			h := n.claim(alice(id))
			equal(t, "resumed", h.Resumed, true)
			if i > 0 && h.Previous != nil {
				t.Errorf("previous: %v", h.Previous)
			}
			h.Session.Leave(window, "test")
			pass(window - time.Millisecond)
		}
		h := a.claim(alice(id))
		equal(t, "resumed at the last moment", h.Resumed, true)
		equal(t, "generation", h.Session.Generation, 5)
		h.Session.Leave(10*time.Second, "test")
		pass(10 * time.Second)
		equal(t, "resumed after its window", a.claim(alice(id)).Resumed, false)
	})
}

func TestEndedSessionIsNotResumed(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		ended, both := a.claim(alice("")), a.claim(alice(""))
		ended.Session.End("test")
		both.Session.Leave(window, "test")
		pass(time.Second)
		both.Session.End("test")
		ended.Session.Leave(window, "test") // comes late
		pass(time.Second)
		equal(t, "held", a.Sessions(), 0)
		for _, h := range []*held{ended, both} {
			equal(t, "resumed", a.claim(alice(h.Session.ID)).Resumed, false)
		}
	})
}

func TestKeysGoWithTheLongestWindow(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		ttl := func() time.Duration { return c.rdb.PTTL(t.Context(), "gw:{user:alice}:sessions").Val() }
		short, long := a.claim(alice("")), a.claim(alice(""))
		long.Session.Leave(window, "test")
		pass(0)
		equal(t, "ttl with a connection", ttl(), -1)
		short.Session.Leave(10*time.Second, "test")
		pass(0)
		equal(t, "ttl without", ttl(), window+grave)
		back := a.claim(alice(long.Session.ID))
		equal(t, "ttl with one again", ttl(), -1)
		back.Session.Leave(time.Second, "test")
		pass(0)
		equal(t, "ttl of the other", ttl(), 10*time.Second+grave)
		pass(10*time.Second + grave)
		equal(t, "exists", c.redis.Exists("gw:{user:alice}:sessions"), false)
	})
}

func TestWindowCountsFromTheEndOfTheConnection(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		kept, over := a.claim(alice("")), a.claim(alice(""))
		a.link.cut()
		over.Session.Leave(5*time.Second, "test")
		kept.Session.Leave(8*time.Second, "test")
		pass(6 * time.Second)
		a.link.mend()
		pass(1999 * time.Millisecond)
		equal(t, "resumed after its window", b.claim(alice(over.Session.ID)).Resumed, false)
		equal(t, "resumed within its window", b.claim(alice(kept.Session.ID)).Resumed, true)
	})
}

func TestChangesAreKeptUntilRedisIsBack(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		stays, leaves, ends := a.claim(alice("")), a.claim(alice("")), a.claim(alice(""))
		a.link.cut()
		stays.Session.SetChannels([]string{"room:1"})
		stays.Session.SetChannels([]string{"room:2"})
		leaves.Session.Leave(window, "test")
		ends.Session.End("test")
		pass(time.Minute)
		equalSlices(t, "online while the node is away", b.online(), nil)

		a.link.mend()
		pass(4 * time.Second)
		infos, err := b.User(t.Context(), "alice")
		if err != nil || len(infos) != 1 {
			t.Fatalf("user: %v %v", infos, err)
		}
		equal(t, "online", infos[0].ID, stays.Session.ID)
		equalSlices(t, "channels", infos[0].Channels, []string{"room:2"})
		equal(t, "left resumed", b.claim(alice(leaves.Session.ID)).Resumed, true)
		equal(t, "ended resumed", b.claim(alice(ends.Session.ID)).Resumed, false)
		equal(t, "told", stays.lost.Load(), 0)
	})
}
