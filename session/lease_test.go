package session_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wssgateway/broker/redistest"
	"wssgateway/session"
)

func TestDeadNodesSessionsHaveLeft(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		claim := alice("")
		claim.Limit = 2
		h, other := a.claim(claim), a.claim(claim)
		a.link.cut()
		pass(10 * time.Second)
		equalSlices(t, "online", b.online(), nil)
		equalSlices(t, "nodes", b.names(), []string{"b"})
		b.claim(claim).Session.End("test") // theirs do not count

		pass(window - 5*time.Second)
		claim.Wanted = h.Session.ID
		moved := b.claim(claim)
		equal(t, "resumed within the window", moved.Resumed, true)
		pass(6 * time.Second)
		claim.Wanted = other.Session.ID
		equal(t, "resumed after the window", b.claim(claim).Resumed, false)

		a.link.mend()
		pass(5 * time.Second)
		equal(t, "told", h.lost.Load(), 1)
		equal(t, "new holder told", moved.lost.Load(), 0)
	})
}

func TestDeadNodesSessionsDoNotCountBeforeTheSweep(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		claim := alice("")
		claim.Limit = 1
		a := c.start("a")
		h := a.claim(claim)
		a.link.cut()
		pass(10*time.Second - time.Millisecond)
		b := c.start("b") // has seen the lease running
		if _, err := b.try(claim); err == nil {
			t.Error("a node that may live does not count")
		}
		pass(time.Second)
		b.claim(claim)
		claim.Wanted, claim.Limit = h.Session.ID, 2
		equal(t, "resumed", b.claim(claim).Resumed, true)
	})
}

func TestWindowOfDeadNodeEndsWithoutAnyNode(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		h := a.claim(alice(""))
		a.link.cut()
		pass(10*time.Second + window)
		b := c.start("b")
		equal(t, "resumed", b.claim(alice(h.Session.ID)).Resumed, false)
	})
}

// TestAHeartbeatThatGoesOnFailingIsToldAgain: what is wrong may have changed, but
// once a minute is enough.
func TestAHeartbeatThatGoesOnFailingIsToldAgain(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		var log strings.Builder
		a := c.startWith(session.Config{Node: "a", Logger: slog.New(slog.NewTextHandler(&log, nil))})
		a.link.cut()
		pass(150 * time.Second)
		a.link.mend()
		pass(20 * time.Second)
		a.stop() // nobody writes to the log any more
		equal(t, "told in two minutes and a half", strings.Count(log.String(), "heartbeat failed"), 3)
	})
}

func TestLeaseLostAndTakenAgain(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		h := a.claim(alice(""))
		h.Session.SetChannels([]string{"room:42"})
		a.link.cut()
		pass(20 * time.Second) // b has swept it
		a.link.mend()
		pass(4 * time.Second)
		equalSlices(t, "online", b.online(), []string{h.Session.ID})
		equalSlices(t, "nodes", b.names(), []string{"a", "b"})
		equal(t, "told", h.lost.Load(), 0)
		equal(t, "node of owner", b.claim(alice(h.Session.ID)).Previous.Node, a.Node())
	})
}

func TestFlushedRedisIsRestored(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		h := b.claim(alice(a.claim(alice("")).Session.ID))
		h.Session.SetChannels([]string{"room:42"})
		pass(time.Second)
		c.redis.FlushAll()
		inBetween := b.claim(alice("")) // before any heartbeat
		pass(4 * time.Second)

		infos, err := a.User(t.Context(), "alice")
		if err != nil || len(infos) != 2 {
			t.Fatalf("user: %v %v", infos, err)
		}
		equal(t, "owner", infos[0].Owner, session.Owner{Node: b.Node(), Session: h.Session.ID, Generation: 2})
		equalSlices(t, "channels", infos[0].Channels, []string{"room:42"})
		equal(t, "claimed in between", infos[1].ID, inBetween.Session.ID)
		equalSlices(t, "nodes", a.names(), []string{"a", "b"})
		equal(t, "told", h.lost.Load(), 0)
	})
}

func TestNameThatComesBackEndsTheEarlierLease(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		b := c.start("b")
		old := c.start("a|b")
		h := old.claim(alice(""))
		old.link.cut()
		pass(time.Second)
		equalSlices(t, "online", b.online(), []string{h.Session.ID})

		again := c.start("a|b")
		c.start("a") // not that name
		equal(t, "other life", again.Node() == old.Node(), false)
		equalSlices(t, "online after", b.online(), nil)
		equalSlices(t, "nodes", b.names(), []string{"a", "a|b", "b"})
		moved := again.claim(alice(h.Session.ID))
		equal(t, "resumed", moved.Resumed, true)
		moved.Session.Leave(window, "test")

		pass(window)
		old.link.mend() // two nodes have the name now
		pass(10 * time.Second)
		equalSlices(t, "nodes at the end", b.names(), []string{"a", "a|b", "a|b", "b"})
	})
}

func TestStoppedNodeLeavesItsSessions(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		h := a.claim(alice(""))
		ended := a.claim(alice(""))
		ended.Session.End("test")
		a.stop()
		equalSlices(t, "online", b.online(), nil)
		equalSlices(t, "nodes", b.names(), []string{"b"})
		moved := b.claim(alice(h.Session.ID))
		equal(t, "resumed", moved.Resumed, true)
		equal(t, "previous", moved.Previous, nil)
		equal(t, "ended resumed", b.claim(alice(ended.Session.ID)).Resumed, false)
	})
}

func TestStopDoesNotWaitForRedis(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		a.claim(alice("")).Session.End("test")
		a.link.deafen()
		start := time.Now()
		a.stop()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestTwoSweepersDoWhatOneDoes(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		const sessions = 600 // more than two batches
		a := c.start("a")
		ids := make([]string, sessions)
		for i := range ids {
			ids[i] = a.claim(alice("")).Session.ID
		}
		a.link.cut()
		b, d := c.start("b"), c.start("d")
		pass(20 * time.Second)
		left, err := c.rdb.ZCard(t.Context(), "gw:{user:alice}:left").Result()
		equal(t, "left", left, sessions)
		equal(t, "error", err, nil)
		equal(t, "resumed", b.claim(alice(ids[0])).Resumed, true)
		equal(t, "resumed", d.claim(alice(ids[sessions-1])).Resumed, true)
		equal(t, "online", len(d.online()), 2)
	})
}

// A sweeper that dies may have dealt with sessions that are still in the index.
func TestSweepAgainChangesNothing(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		moved, left := a.claim(alice("")), a.claim(alice(""))
		pass(time.Second)
		index := c.keys()[0]
		entries := c.rdb.SMembers(t.Context(), index).Val()
		lease := c.rdb.ZRangeWithScores(t.Context(), "gw:{nodes}:lease", 0, 0).Val()[0]
		a.link.cut()
		pass(20 * time.Second)
		h := b.claim(alice(moved.Session.ID))
		until := c.rdb.ZScore(t.Context(), "gw:{user:alice}:left", left.Session.ID).Val()

		c.rdb.ZAdd(t.Context(), "gw:{nodes}:lease", lease)
		for _, e := range entries {
			c.rdb.SAdd(t.Context(), index, e)
		}
		pass(10 * time.Second)
		equal(t, "index exists", c.redis.Exists(index), false)
		equalSlices(t, "online", b.online(), []string{h.Session.ID})
		equal(t, "window", c.rdb.ZScore(t.Context(), "gw:{user:alice}:left", left.Session.ID).Val(), until)
	})
}

// A failover may lose what was acknowledged: the claim of a session, and the
// last heartbeat.
func TestWritesLostByFailoverAreRestored(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		before := c.rdb.ZRangeWithScores(t.Context(), "gw:{nodes}:lease", 0, 0).Val()[0]
		pass(4 * time.Second) // a heartbeat
		h := a.claim(alice(""))
		c.rdb.Del(t.Context(), "gw:{user:alice}:sessions")
		c.rdb.ZAdd(t.Context(), "gw:{nodes}:lease", before)
		pass(3 * time.Second)
		equalSlices(t, "online", a.online(), []string{h.Session.ID})
	})
}

func TestNodesAreDescribed(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		b := c.start("b")
		stats := session.Stats{Connections: 7, Channels: 3}
		started := time.Now()
		a := run(t, (&link{dialer: c.redis.Dial}).client(t), session.Config{
			Node: "a", Version: "1.2.3", Stats: func() session.Stats { return stats },
		})
		c.nodes = append(c.nodes, a)
		pass(time.Second)
		nodes, err := b.Nodes(t.Context())
		if err != nil || len(nodes) != 2 {
			t.Fatalf("nodes: %v %v", nodes, err)
		}
		want := session.NodeInfo{
			Name: "a", Node: a.Node(), Connections: 7, Channels: 3, Version: "1.2.3",
			StartedAt: nodes[0].StartedAt,
		}
		equal(t, "node", nodes[0], want)
		equal(t, "started", nodes[0].StartedAt.Equal(started), true)
		equal(t, "name", a.Node().Name(), "a")
	})
}

// TestALostLeaseIsToldOnce: a Redis that is full is asked for another one all the time,
// and has none.
func TestALostLeaseIsToldOnce(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client(t)
	var log strings.Builder
	reg := prometheus.NewPedanticRegistry()
	a := run(t, rdb, session.Config{
		Node: "a", Lease: 300 * time.Millisecond, Heartbeat: 100 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: reg,
	})
	h := a.claim(alice(""))
	s.CLI("CONFIG", "SET", "maxmemory", "1")
	failed := func() (n int) {
		for _, line := range gather(t, reg) {
			_, _ = fmt.Sscanf(line, "gateway_node_lease_renewals_total error %d", &n)
		}
		return n
	}
	eventually(t, "the lease is over", func() bool { return len(a.names()) == 0 })
	before := failed()
	eventually(t, "heartbeats have failed", func() bool { return failed() >= before+4 })
	s.CLI("CONFIG", "SET", "maxmemory", "0")
	eventually(t, "it has a lease", func() bool { return slices.Equal(a.names(), []string{"a"}) })
	eventually(t, "the session is there", func() bool { return slices.Equal(a.online(), []string{h.Session.ID}) })
	a.stop() // nobody writes to the log any more
	for text, times := range map[string]int{"lease lost": 1, "heartbeat failed": 1, "OOM": 1, "lease acquired": 2} {
		equal(t, "times told: "+text, strings.Count(log.String(), text), times)
	}
	equal(t, "holder told", h.lost.Load(), 0)
}
