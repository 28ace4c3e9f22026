package session_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
	"wssgateway/session"
)

// TestFormerOwnerLearnsOfALostClaim: the claim was done and its answer was lost; who
// had the session must not keep it (finding A11).
func TestFormerOwnerLearnsOfALostClaim(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		a, b := w.start(c, "a"), w.start(c, "b")
		h := a.claim(alice(""))
		pass(time.Second)
		b.link.deafen()
		if _, err := b.try(alice(h.Session.ID)); err == nil {
			t.Fatal("claimed without an answer")
		}
		b.link.mend()
		pass(30 * time.Second)
		h.expectLost(t, session.LossMoved)
		pass(5 * time.Minute)
		equalSlices(t, "told as over", w.ids(), []string{h.Session.ID})
	})
}

// TestLostEvictOrderIsFoundOut: also on a connection that never writes (finding A11).
func TestLostEvictOrderIsFoundOut(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		h := a.claim(alice(""))
		pass(time.Second)
		moved := b.claim(alice(h.Session.ID))
		pass(30 * time.Second)
		h.expectLost(t, session.LossMoved)
		equal(t, "new holder told", moved.lost.Load(), 0)
		equalSlices(t, "online", b.online(), []string{h.Session.ID})
	})
}

// TestOrdersAreFoundOutSoonIfAskedFor: as when they are known to be lost.
func TestOrdersAreFoundOutSoonIfAskedFor(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		h := a.claim(alice(""))
		pass(time.Second)
		b.claim(alice(h.Session.ID))
		a.Verify()
		pass(5 * time.Second)
		h.expectLost(t, session.LossMoved)
	})
}

// TestPartOfTheRegistryThatIsLostIsWrittenAgain: the lease, which is elsewhere, shows
// nothing (finding A13).
func TestPartOfTheRegistryThatIsLostIsWrittenAgain(t *testing.T) {
	const sessions, channels, left = "gw:{user:alice}:sessions", "gw:{user:alice}:channels", "gw:{user:alice}:left"
	for name, keys := range map[string][]string{
		"a user": {sessions, left, channels}, "records": {sessions}, "channels": {channels}, "index": {"index"},
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				w := &witness{}
				a, b := w.start(c, "a"), w.start(c, "b")
				h := a.claim(alice(""))
				h.Session.SetChannels([]string{"room:1"})
				pass(time.Second)
				for _, key := range keys {
					if key == "index" {
						key = c.indexOf("a")
					}
					c.redis.Del(key)
				}
				pass(30 * time.Second)
				infos, err := b.User(t.Context(), "alice")
				if err != nil || len(infos) != 1 || infos[0].ID != h.Session.ID {
					t.Fatalf("after 30 s: %v %v", infos, err)
				}
				equalSlices(t, "channels", infos[0].Channels, []string{"room:1"})
				equal(t, "holder told of a loss", h.lost.Load(), 0)
				missing := int32(0)
				if keys[0] == sessions {
					missing = 1
				}
				equal(t, "holder told that it is there again", h.restored.Load(), missing)
				a.link.cut() // and what has to be is swept
				pass(window + 20*time.Second)
				equalSlices(t, "its channels", w.only(t, h).Channels, []string{"room:1"})
			})
		})
	}
}

// indexOf returns the key of the sessions of a node.
func (c *cluster) indexOf(node string) string {
	c.t.Helper()
	for _, key := range c.keys() {
		if strings.HasPrefix(key, "gw:{node:"+node+"|") {
			return key
		}
	}
	c.t.Fatal("there is no index")
	return ""
}

// TestNotesThatRedisLostAreWrittenAgain: of sessions that nobody holds, some of them
// left by their connections and some with a dead node (finding A13).
func TestNotesThatRedisLostAreWrittenAgain(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		a, dead := w.start(c, "a"), w.start(c, "dead")
		left, swept, resumed := a.claim(alice("")), dead.claim(alice("")), a.claim(alice(""))
		pass(time.Second)
		dead.link.cut()
		pass(15 * time.Second)
		left.Session.Leave(window, "lost")
		resumed.Session.Leave(window, "lost")
		pass(time.Second)
		a.claim(alice(resumed.Session.ID))
		c.redis.Del("gw:{gone}:due")
		c.redis.Del("gw:{gone}:told")
		c.redis.Del("gw:{gone}:epoch")
		pass(window - 2*time.Second)
		equalSlices(t, "told within the window", w.ids(), []string{swept.Session.ID})
		pass(10 * time.Second)
		equalSlices(t, "told", w.ids(), []string{swept.Session.ID, left.Session.ID})
	})
}

// TestDeadNodeIsSweptThoughRedisLostTheLeases: it cannot take another one (finding A13).
func TestDeadNodeIsSweptThoughRedisLostTheLeases(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		a, dead := w.start(c, "a"), w.start(c, "dead")
		kept, h := a.claim(alice("")), dead.claim(alice(""))
		pass(4 * time.Second) // a heartbeat
		dead.link.cut()
		pass(time.Second)
		c.redis.Del("gw:{nodes}:lease")
		c.redis.Del("gw:{nodes}:info")
		pass(window + 10*time.Second)
		equal(t, "node", w.only(t, h).Node, "dead")
		equalSlices(t, "online", a.online(), []string{kept.Session.ID})
		equal(t, "told", kept.lost.Load(), 0)
	})
}

// TestVerificationIsPaced: it asks for each session once in a round, in pipelines.
func TestVerificationIsPaced(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		const sessions = 2000
		for i := range sessions {
			a.claim(session.Claim{User: fmt.Sprint("u", i), Client: "web"})
		}
		pass(time.Second)
		counted := &counter{}
		a.rdb.AddHook(counted)
		pass(20 * time.Second)
		if n := counted.reads; n < sessions*9/10 || n > sessions*11/10 {
			t.Errorf("%d records were read in 20 s", n)
		}
		if n := counted.pipelines; n < 14 || n > 40 {
			t.Errorf("in %d pipelines", n)
		}
		equal(t, "written", counted.scripts, 0)
	})
}

// counter counts what a client sends.
type counter struct{ reads, pipelines, scripts int }

func (*counter) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (n *counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		reads := 0
		for _, cmd := range cmds {
			switch cmd.Name() {
			case "hget":
				reads++
			case "evalsha":
				if key, _ := cmd.Args()[3].(string); strings.HasPrefix(key, "gw:{user:") {
					n.scripts++
				}
			}
		}
		if n.reads += reads; reads > 0 {
			n.pipelines++
		}
		return next(ctx, cmds)
	}
}

// TestServerOfAClusterThatLosesItsDataIsRepaired, whatever was on it: users, leases,
// indices, notes (finding A13).
func TestServerOfAClusterThatLosesItsDataIsRepaired(t *testing.T) {
	servers := redistest.StartCluster(t, 3)
	rdb := servers.Client(t)
	a, b := run(t, rdb, session.Config{Node: "a"}), run(t, rdb, session.Config{Node: "b"})
	const users = 50
	all := make([]*held, users)
	for i := range all {
		all[i] = a.claim(session.Claim{User: fmt.Sprint("u", i), Client: "web"})
		all[i].Session.SetChannels([]string{"room:1"})
	}
	online := func() (n int) {
		for i, h := range all {
			infos, err := b.User(t.Context(), fmt.Sprint("u", i))
			if err == nil && len(infos) == 1 && infos[0].ID == h.Session.ID && len(infos[0].Channels) == 1 {
				n++
			}
		}
		return n
	}
	eventually(t, "all are there", func() bool { return online() == users })
	for _, s := range servers.Nodes {
		s.CLI("FLUSHALL")
		if n := online(); n == users {
			t.Error("the server had no data")
		}
		a.Verify() // or it takes up to 20 s
		eventually(t, "all are there again", func() bool { return online() == users })
	}
	for _, h := range all {
		equal(t, "told", h.lost.Load(), 0)
	}
}

// TestStrangeDataIsIgnored: what is damaged or of another version ends nobody, is left
// as it is, and is logged once (finding A18).
func TestStrangeDataIsIgnored(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		var log strings.Builder
		w := &witness{}
		a := c.startWith(session.Config{Node: "a", Gone: w.gone, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		h, damaged := a.claim(alice("")), a.claim(alice(""))
		h.Session.SetChannels([]string{"room:1"})
		pass(time.Second)
		h.Session.Leave(window, "lost")
		pass(time.Second)
		hset := func(key, field, value string) {
			if err := c.rdb.HSet(t.Context(), key, field, value).Err(); err != nil {
				t.Fatal(err)
			}
		}
		hset("gw:{user:alice}:channels", h.Session.ID, "v2:room:1")
		hset("gw:{user:alice}:channels", damaged.Session.ID, "[1,")
		hset("gw:{user:alice}:sessions", "s_later", "2 what a later version writes")
		hset("gw:{user:alice}:sessions", "s_huge", "1 99999999999999999999 lease claim 1 \"web\" {}")
		c.rdb.ZAdd(t.Context(), "gw:{nodes}:lease", redis.Z{Score: 1e300, Member: "evil"})
		c.rdb.ZAdd(t.Context(), "gw:{gone}:due", redis.Z{Score: 1, Member: "s_note"})
		hset("gw:{gone}:told", "s_note", "v2")
		equalSlices(t, "online", a.online(), []string{damaged.Session.ID})
		if d := a.disconnect(""); d.Connections != 1 {
			t.Errorf("disconnected: %v", d)
		}
		damaged.Session.End("disconnected")
		pass(time.Minute)
		got := w.ids()
		equal(t, "told", len(got), 2)
		equal(t, "of another version", c.redis.HGet("gw:{user:alice}:sessions", "s_later"), "2 what a later version writes")
		equal(t, "note of another version", c.redis.HGet("gw:{gone}:told", "s_note"), "v2")
		b := c.start("b") // and nodes start
		b.claim(alice("s_later")).Session.End("test")
		pass(time.Second)
		a.stop()
		equal(t, "logged", strings.Count(log.String(), "ignoring data in redis"), 1)
		c.rdb.ZRem(t.Context(), "gw:{nodes}:lease", "evil")
		c.rdb.Del(t.Context(), "gw:{user:alice}:sessions", "gw:{user:alice}:left", "gw:{user:alice}:channels", "gw:{gone}:due", "gw:{gone}:told")
	})
}

// TestSessionThatFailsHoldsUpNoOther: neither those that are over with it, nor those
// of its node, nor those that are written (finding B12).
func TestSessionThatFailsHoldsUpNoOther(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		a, b := w.start(c, "a"), w.start(c, "b")
		bob := alice("")
		bob.User = "bob"
		bad, good, writes := a.claim(alice("")), a.claim(bob), a.claim(bob)
		fails := a.claim(alice(""))
		badSwept, goodSwept := b.claim(alice("")), b.claim(bob)
		pass(time.Second)
		bad.Session.Leave(5*time.Second, "lost")
		pass(time.Second)
		c.redis.Del("gw:{user:alice}:sessions")
		if err := c.redis.Set("gw:{user:alice}:sessions", "not a hash"); err != nil {
			t.Fatal(err)
		}
		good.Session.Leave(5*time.Second, "lost")
		fails.Session.SetChannels([]string{"room:1"})
		pass(100 * time.Millisecond)
		start := time.Now()
		writes.Session.SetChannels([]string{"room:1"})
		if err := writes.Session.AwaitWritten(t.Context()); err != nil {
			t.Fatal(err)
		}
		equal(t, "another one was written after", time.Since(start), 0)
		fails.Session.End("test")
		writes.Session.End("test")
		pass(0)
		w.clear()
		b.link.cut()
		pass(10 * time.Second)
		equalSlices(t, "told", w.ids(), []string{good.Session.ID})
		pass(window + 10*time.Second)
		equalSlices(t, "told of the dead node's", w.ids(), []string{good.Session.ID, goodSwept.Session.ID})
		c.redis.Del("gw:{user:alice}:sessions") // somebody mends it
		pass(time.Minute)
		for _, h := range []*held{bad, fails} {
			if !slices.Contains(w.ids(), h.Session.ID) {
				t.Errorf("%s was not told of when it was mended", h.Session.ID)
			}
		}
		equal(t, "resumed of the dead node's", a.claim(alice(badSwept.Session.ID)).Resumed, false)
		c.redis.Del("gw:{user:alice}:left")
	})
}

// TestSessionThatCannotBeToldOfHoldsUpNoOther (finding B12).
func TestSessionThatCannotBeToldOfHoldsUpNoOther(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		var bad atomic.Pointer[string]
		a := c.startWith(session.Config{Node: "a", Gone: func(ctx context.Context, gone []session.Gone) error {
			untold := make(session.Untold)
			var others []session.Gone
			for _, g := range gone {
				if g.ID == *bad.Load() {
					untold[g.ID] = context.DeadlineExceeded
					continue
				}
				others = append(others, g)
			}
			_ = w.gone(ctx, others)
			if len(untold) > 0 {
				return untold
			}
			return nil
		}})
		one, two := a.claim(alice("")), a.claim(alice(""))
		bad.Store(&one.Session.ID)
		one.Session.Leave(time.Second, "lost")
		two.Session.Leave(time.Second, "lost")
		pass(30 * time.Second)
		equalSlices(t, "told", w.ids(), []string{two.Session.ID})
		bad.Store(new(string))
		pass(15 * time.Second)
		equalSlices(t, "told in the end", w.ids(), []string{two.Session.ID, one.Session.ID})
	})
}

// TestLeftSessionDoesNotCountThoughRedisHasLostThatItWas: the key that says so, and no
// other.
func TestLeftSessionDoesNotCountThoughRedisHasLostThatItWas(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		a := w.start(c, "a")
		h := a.claim(alice(""))
		pass(time.Second)
		h.Session.Leave(window, "lost")
		pass(time.Second)
		c.redis.Del("gw:{user:alice}:left")
		equalSlices(t, "online", a.online(), nil)
		pass(window + 10*time.Second)
		equalSlices(t, "told", w.ids(), []string{h.Session.ID})
		claim := alice("")
		claim.Limit = 2
		one, two := a.claim(claim), a.claim(claim)
		_, err := a.try(claim)
		equal(t, "third connection of two", err, session.ErrLimit)
		pass(10 * time.Minute)
		online := a.online()
		slices.Sort(online)
		want := []string{one.Session.ID, two.Session.ID}
		slices.Sort(want)
		equalSlices(t, "online", online, want)
		one.Session.SetChannels([]string{"room:1"}) // with what changes, the old goes
		pass(0)
		equal(t, "kept", c.rdb.HLen(t.Context(), "gw:{user:alice}:sessions").Val(), 2)
	})
}

// TestLeftSessionIsResumedThoughRedisHasLostThatItWas: for another window.
func TestLeftSessionIsResumedThoughRedisHasLostThatItWas(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		h := a.claim(alice(""))
		h.Session.Leave(window, "lost")
		pass(time.Second)
		c.redis.Del("gw:{user:alice}:left")
		again := b.claim(alice(h.Session.ID))
		equal(t, "resumed", again.Resumed, true)
		pass(window + 2*grave)
		equalSlices(t, "online", b.online(), []string{h.Session.ID})
	})
}

// TestConnectedSessionStaysThoughRedisHasLostTheOthers: those that were left are gone,
// and the key that says until when they could be resumed is not.
func TestConnectedSessionStaysThoughRedisHasLostTheOthers(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		for range 5 {
			a.claim(alice("")).Session.Leave(window, "lost")
		}
		pass(time.Second)
		c.redis.Del("gw:{user:alice}:sessions")
		again := a.claim(alice(""))
		for range 100 {
			pass(4 * time.Second)
			equalSlices(t, "online", a.online(), []string{again.Session.ID})
		}
		equal(t, "restored", again.restored.Load(), 0)
		equal(t, "lost", again.lost.Load(), 0)
	})
}
