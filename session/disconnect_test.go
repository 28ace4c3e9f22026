package session_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/session"
)

// disconnect ends sessions of alice and returns what that ended.
func (n *node) disconnect(id string) session.Disconnected {
	n.t.Helper()
	d, err := n.Disconnect(context.Background(), "alice", id, "disconnected")
	if err != nil {
		n.t.Fatalf("disconnect: %v", err)
	}
	return d
}

// TestDisconnectIsFinalForANodeThatWasAway: it loses the session when it comes back,
// be that within its lease, after it, or long after the session is forgotten
// (finding A4).
func TestDisconnectIsFinalForANodeThatWasAway(t *testing.T) {
	for _, away := range []time.Duration{5 * time.Second, 15 * time.Second, 5 * time.Minute, 50 * time.Minute, 2 * time.Hour} {
		t.Run(away.String(), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				a, b := c.start("a"), c.start("b")
				h := a.claim(alice(""))
				pass(time.Second)
				a.link.cut()
				pass(min(away-time.Second, 20*time.Second))
				equal(t, "connections ended", b.disconnect("").Connections, 1)
				equal(t, "ended once more", b.disconnect("").Connections, 0)
				pass(away - min(away-time.Second, 20*time.Second))
				equal(t, "told while it is away", h.lost.Load(), 0)
				a.link.mend()
				pass(25 * time.Second)
				why := session.LossDisconnected
				if away > ended {
					why = session.LossForgotten
				}
				h.expectLost(t, why)
				equalSlices(t, "online", b.online(), nil)
				equal(t, "resumed", b.claim(alice(h.Session.ID)).Resumed, false)
			})
		})
	}
}

// TestDisconnectIsFinalForSessionsThatAreForgotten: the node is away for so long that
// its sessions are over for everybody else (finding A4).
func TestDisconnectIsFinalForSessionsThatAreForgotten(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		one, two, bobs := a.claim(alice("")), a.claim(alice("")), a.claim(session.Claim{User: "bob", Client: "web"})
		pass(2 * time.Hour) // since the nodes have started
		a.link.cut()
		pass(10*time.Second + window + 2*grave)
		equal(t, "known", c.redis.Exists("gw:{user:alice}:sessions"), false)
		b.disconnect(one.Session.ID)
		later := b.claim(alice(""))
		pass(time.Minute)
		a.link.mend()
		pass(10 * time.Second)
		one.expectLost(t, session.LossDisconnected)
		equal(t, "another one of alice's", two.lost.Load(), 0)

		a.link.cut()
		pass(10*time.Second + window + 2*grave)
		b.disconnect("")
		later.Session.End("disconnected")
		again := b.claim(alice(""))
		a.link.mend()
		pass(10 * time.Second)
		two.expectLost(t, session.LossDisconnected)
		equal(t, "bob's", bobs.lost.Load(), 0)
		c.redis.Del("gw:{user:alice}:sessions")
		c.redis.Del("gw:{user:alice}:left") // what came later is written back
		pass(25 * time.Second)
		equalSlices(t, "online", b.online(), []string{again.Session.ID})
	})
}

// TestDisconnectIsFinalForAFormerOwner: the session moved while its first node was
// away, and its second one has said that it is over (finding A4).
func TestDisconnectIsFinalForAFormerOwner(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		h := a.claim(alice(""))
		pass(time.Second)
		a.link.cut()
		moved := b.claim(alice(h.Session.ID))
		pass(5 * time.Second)
		b.disconnect("")
		moved.Session.End("disconnected")
		pass(10 * time.Minute)
		a.link.mend()
		pass(25 * time.Second)
		h.expectLost(t, session.LossDisconnected)
		equalSlices(t, "online", b.online(), nil)
	})
}

// TestLostDisconnectOrderIsFoundOut: nobody tells the node (finding A4).
func TestLostDisconnectOrderIsFoundOut(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		h, other := a.claim(alice("")), a.claim(alice(""))
		pass(time.Second)
		d := b.disconnect(h.Session.ID)
		equal(t, "owners", len(d.Owners), 1)
		pass(30 * time.Second)
		h.expectLost(t, session.LossDisconnected)
		equal(t, "the other one", other.lost.Load(), 0)
		equalSlices(t, "online", b.online(), []string{other.Session.ID})
	})
}

// TestLeftSessionsAreNotCountedAsDisconnected: they have no connection. Those whose
// node went without a word may have.
func TestLeftSessionsAreNotCountedAsDisconnected(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		pass(2 * time.Hour)
		left, away := b.claim(alice("")), a.claim(alice(""))
		left.Session.Leave(window, "lost")
		pass(time.Second)
		a.link.cut()
		pass(15 * time.Second)
		equal(t, "connections", b.disconnect("").Connections, 1)
		for _, h := range []*held{left, away} {
			equal(t, "resumed", b.claim(alice(h.Session.ID)).Resumed, false)
		}
		remembered := c.rdb.ZRange(t.Context(), "gw:{user:alice}:ended", 0, -1).Val()
		slices.Sort(remembered)
		equalSlices(t, "remembered", remembered, []string{"*", away.Session.ID})
	})
}

// TestDisconnectIsNotForgottenOnTheWordOfAFormerOwner: two former owners are away. The
// client of the first one has gone when it comes back; the second one still has its own.
func TestDisconnectIsNotForgottenOnTheWordOfAFormerOwner(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b, d := c.start("a"), c.start("b"), c.start("d")
		h := a.claim(alice(""))
		pass(time.Second)
		a.link.cut()
		moved := b.claim(alice(h.Session.ID))
		equal(t, "resumed", moved.Resumed, true)
		pass(time.Second)
		b.link.cut()
		pass(20 * time.Second)
		h.Session.Leave(window, "lost")
		d.disconnect(h.Session.ID)
		pass(5 * time.Second)
		a.link.mend()
		pass(3 * time.Minute)
		b.link.mend()
		pass(30 * time.Second)
		moved.expectLost(t, session.LossDisconnected)
		equalSlices(t, "online", d.online(), nil)
	})
}

// TestDisconnectIsFinalForWhatRedisHasJustLost: nobody has verified it yet, and nobody is
// away (findings A4, A13).
func TestDisconnectIsFinalForWhatRedisHasJustLost(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		pass(2 * time.Hour)
		one, two := a.claim(alice("")), a.claim(alice(""))
		lose := func() {
			pass(time.Second)
			for _, key := range []string{"sessions", "left", "channels"} {
				c.redis.Del("gw:{user:alice}:" + key)
			}
		}
		lose()
		b.disconnect(one.Session.ID)
		pass(25 * time.Second)
		one.expectLost(t, session.LossDisconnected)
		equal(t, "the other one", two.lost.Load(), 0)
		lose()
		b.disconnect("")
		pass(time.Second)
		later := b.claim(alice(""))
		lose()
		pass(25 * time.Second)
		two.expectLost(t, session.LossDisconnected)
		equalSlices(t, "online", b.online(), []string{later.Session.ID})
		b.disconnect("no id")
		equal(t, "remembered", c.rdb.ZScore(t.Context(), "gw:{user:alice}:ended", "no id").Val(), 0)
	})
}

// TestDisconnectIsFinalForAllThatRedisHasJustLost: a node is cut off, Redis loses all,
// and a backend disconnects the user before anybody has noticed either. The node comes
// back when all that is known elsewhere is long settled.
func TestDisconnectIsFinalForAllThatRedisHasJustLost(t *testing.T) {
	for _, all := range []bool{true, false} {
		t.Run(fmt.Sprint("all sessions: ", all), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				a, b := c.start("a"), c.start("b")
				h := a.claim(alice(""))
				pass(2 * time.Hour)
				a.link.cut()
				for _, key := range c.keys() {
					c.redis.Del(key)
				}
				id := h.Session.ID
				if all {
					id = ""
				}
				b.disconnect(id)
				pass(5 * time.Minute)
				a.link.mend()
				pass(30 * time.Second)
				h.expectLost(t, session.LossDisconnected)
				equalSlices(t, "online", b.online(), nil)
			})
		})
	}
}

// TestLeaveThatWasWrittenIsNotRepeatedAfterADisconnect: its answer was lost, and what
// it wrote has been ended and forgotten since.
func TestLeaveThatWasWrittenIsNotRepeatedAfterADisconnect(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		h := a.claim(alice(""))
		a.claim(alice("")).Session.Leave(time.Second, "lost") // Redis has the script
		pass(2 * time.Second)
		a.link.deafen()
		h.Session.Leave(window, "lost")
		pass(100 * time.Millisecond)
		a.link.cut()
		equal(t, "connections", b.disconnect("").Connections, 0)
		pass(grave + 10*time.Second)
		a.link.mend()
		pass(5 * time.Second)
		equal(t, "resumed", b.claim(alice(h.Session.ID)).Resumed, false)
	})
}

// TestDisconnectIsToldOfAtOnceThoughTheConnectionBreaks: before its node has heard of
// it, so that the node notes a whole window.
func TestDisconnectIsToldOfAtOnceThoughTheConnectionBreaks(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprint("node away: ", away), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				w := &witness{}
				a, b := w.start(c, "a"), w.start(c, "b")
				h := a.claim(alice(""))
				h.Session.SetChannels([]string{"room:1"})
				pass(5 * time.Second)
				if away {
					a.link.cut()
				}
				b.disconnect("")
				h.Session.Leave(window, "lost")
				pass(100 * time.Millisecond)
				a.link.mend()
				pass(5 * time.Second)
				equalSlices(t, "channels", w.only(t, h).Channels, []string{"room:1"})
				pass(2 * window)
				w.only(t, h)
			})
		})
	}
}

// TestDisconnectOnADyingNodeIsToldOfOnce: its lease still runs (finding A5).
func TestDisconnectOnADyingNodeIsToldOfOnce(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		a, b := w.start(c, "a"), w.start(c, "b")
		h := a.claim(alice(""))
		h.Session.SetChannels([]string{"room:1"})
		pass(time.Second)
		a.link.cut() // for good
		pass(3 * time.Second)
		equal(t, "connections", b.disconnect("").Connections, 1)
		pass(10 * time.Minute)
		g := w.only(t, h)
		equal(t, "node, reason", g.Node+" "+g.Reason, "a disconnected")
		equalSlices(t, "channels", g.Channels, []string{"room:1"})
	})
}

// afterPipeline runs something after each pipeline of a client.
type afterPipeline func()

func (afterPipeline) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (afterPipeline) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (f afterPipeline) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		f()
		return err
	}
}

// diesWhenLeft cuts a node off right after the pipeline by which alice's session has
// no connection any more.
func (c *cluster) diesWhenLeft(n *node, id string) {
	n.rdb.AddHook(afterPipeline(func() {
		if _, err := c.redis.ZScore("gw:{user:alice}:left", id); err == nil {
			n.link.cut()
		}
	}))
}

// TestDisconnectIsToldOfThoughBothNodesDie: the one that had the session, and the one
// that ended it, right then (finding A5).
func TestDisconnectIsToldOfThoughBothNodesDie(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		a, b := w.start(c, "a"), w.start(c, "b")
		w.start(c, "c")
		h := a.claim(alice(""))
		h.Session.SetChannels([]string{"room:1"})
		pass(time.Second)
		a.link.cut()
		c.diesWhenLeft(b, h.Session.ID)
		_, _ = b.Disconnect(t.Context(), "alice", "", "disconnected")
		pass(10 * time.Minute)
		g := w.only(t, h)
		equal(t, "node, reason", g.Node+" "+g.Reason, "a disconnected")
		equalSlices(t, "channels", g.Channels, []string{"room:1"})
	})
}

// TestSweepThatDiesIsToldOf: the sweeper lets a dead node's session be left and dies,
// and nobody sweeps until its window, or even its record, is gone (finding B7).
func TestSweepThatDiesIsToldOf(t *testing.T) {
	for _, later := range []time.Duration{10 * time.Second, window + 10*time.Second, window + 2*grave} {
		t.Run(later.String(), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				w := &witness{}
				a, b := w.start(c, "a"), w.start(c, "b")
				h := a.claim(alice(""))
				h.Session.SetChannels([]string{"room:1"})
				pass(time.Second)
				a.link.cut()
				c.diesWhenLeft(b, h.Session.ID)
				pass(20 * time.Second)
				equal(t, "left", c.redis.Exists("gw:{user:alice}:left"), true)
				pass(later)
				w.start(c, "c")
				pass(window + 20*time.Second)
				g := w.only(t, h)
				equal(t, "node, reason", g.Node+" "+g.Reason, "a node_lost")
				equalSlices(t, "channels", g.Channels, []string{"room:1"})
			})
		})
	}
}

// TestLateNoteHidesNothing: of a node that no longer has the session (finding A12).
func TestLateNoteHidesNothing(t *testing.T) {
	for _, late := range []time.Duration{9 * time.Second, window + 30*time.Second} {
		t.Run(late.String(), func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				w := &witness{}
				a, b := w.start(c, "a"), w.start(c, "b")
				h := a.claim(alice(""))
				h.Session.SetChannels([]string{"room:1"})
				pass(time.Second)
				a.link.cut()
				pass(time.Second)
				h.Session.Leave(window, "lost")
				again := b.claim(alice(h.Session.ID))
				again.Session.SetChannels([]string{"room:1", "room:9"})
				pass(5 * time.Second)
				again.Session.Leave(window, "lost")
				pass(late - 5*time.Second)
				a.link.mend()
				pass(5 * time.Minute)
				g := w.only(t, h)
				equal(t, "node", g.Node, "b")
				equalSlices(t, "channels", g.Channels, []string{"room:1", "room:9"})
			})
		})
	}
}

// disconnectsAndClaimsLeaveOneTruth: whatever comes first, who holds a session knows
// it, and who has lost it finds out.
func disconnectsAndClaimsLeaveOneTruth(t *testing.T, a, b *node) {
	first := a.claim(alice(""))
	const rounds = 40
	all := make([]*held, rounds)
	atOnce(rounds, func(i int) {
		n := []*node{a, b}[i%2]
		if i%4 == 0 {
			if _, err := n.Disconnect(t.Context(), "alice", "", "disconnected"); err != nil {
				t.Errorf("disconnect: %v", err)
			}
			return
		}
		h, err := n.try(alice(first.Session.ID))
		if err != nil {
			t.Errorf("claim: %v", err)
			return
		}
		all[i] = h
	})
	all = append(all, first)
	all = slices.DeleteFunc(all, func(h *held) bool { return h == nil })
	for _, h := range all {
		h.Session.SetChannels([]string{"room:1"}) // the write finds out
	}
	eventually(t, "who holds a session and who is online are the same", func() bool {
		var holding []string
		for _, h := range all {
			if h.Session.Connected() && h.lost.Load() == 0 {
				holding = append(holding, h.Session.ID)
			}
		}
		online := a.online()
		slices.Sort(holding)
		slices.Sort(online)
		return slices.Equal(holding, online)
	})
	if _, err := a.Disconnect(t.Context(), "alice", "", "disconnected"); err != nil {
		t.Fatal(err)
	}
	a.Verify()
	b.Verify()
	eventually(t, "all have lost theirs", func() bool { return a.Sessions()+b.Sessions() == 0 })
	equal(t, "resumed", b.claim(alice(first.Session.ID)).Resumed, false)
}
