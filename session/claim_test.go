package session_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"wssgateway/session"
)

func TestClaimCreatesSession(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		h := a.claim(alice(""))
		if !strings.HasPrefix(h.Session.ID, "s_") || len(h.Session.ID) != 24 {
			t.Errorf("id: %q", h.Session.ID)
		}
		equal(t, "resumed", h.Resumed, false)
		equal(t, "generation", h.Session.Generation, 1)
		equal(t, "held", a.Sessions(), 1)
		h.Session.SetChannels([]string{"room:42", "user:alice"})
		pass(time.Second)

		infos, err := b.User(t.Context(), "alice")
		if err != nil || len(infos) != 1 {
			t.Fatalf("user: %v %v", infos, err)
		}
		got := infos[0]
		equal(t, "id", got.ID, h.Session.ID)
		equal(t, "device", got.Device, "my phone")
		equal(t, "client", got.Client, "web")
		equal(t, "ip", got.IP, "192.0.2.1")
		equal(t, "node", got.Node, "a")
		equal(t, "owner", got.Owner, session.Owner{Node: a.Node(), Session: h.Session.ID, Generation: 1})
		equal(t, "connected at", got.ConnectedAt.Equal(h.Session.ConnectedAt), true)
		equalSlices(t, "channels", got.Channels, []string{"room:42", "user:alice"})
	})
}

func TestWantedSessionMovesToAnotherNode(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		old := a.claim(alice(""))
		old.Session.SetChannels([]string{"room:42", "orders"})
		old.Session.SetGiven([]string{"orders"})
		pass(time.Second)

		moved := b.claim(alice(old.Session.ID))
		equal(t, "resumed", moved.Resumed, true)
		equal(t, "id", moved.Session.ID, old.Session.ID)
		equal(t, "generation", moved.Session.Generation, 2)
		equalSlices(t, "given", moved.Session.Given(), []string{"orders"})
		equalSlices(t, "channels", moved.Session.Channels(), []string{"room:42", "orders"})
		equal(t, "previous", *moved.Previous, session.Owner{Node: a.Node(), Session: old.Session.ID, Generation: 1})

		a.Evict(moved.Previous.Session, moved.Previous.Generation)
		equal(t, "told", old.lost.Load(), 1)
		old.Session.End("test")
		pass(time.Second)
		equalSlices(t, "online", a.online(), []string{moved.Session.ID})
		equal(t, "new holder told", moved.lost.Load(), 0)
	})
}

func TestSessionMovesOnTheSameNode(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		old := a.claim(alice(""))
		moved := a.claim(alice(old.Session.ID))
		equal(t, "resumed", moved.Resumed, true)
		equal(t, "previous", moved.Previous, nil)
		equal(t, "told", old.lost.Load(), 1)
		equal(t, "held", a.Sessions(), 1)
		a.Evict(old.Session.ID, old.Session.Generation) // comes late
		equal(t, "new holder told", moved.lost.Load(), 0)
	})
}

func TestLostSessionIsFoundByTheNextWrite(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		old := a.claim(alice(""))
		moved := b.claim(alice(old.Session.ID))
		old.Session.SetChannels([]string{"room:42"})
		pass(time.Second)
		equal(t, "told", old.lost.Load(), 1)
		equal(t, "held by a", a.Sessions(), 0)
		equalSlices(t, "channels", moved.Session.Channels(), nil)
	})
}

func TestWhatIsNotTheUsersIsNotResumed(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		other := alice("")
		other.User = "bob"
		bobs := a.claim(other)
		for _, wanted := range []string{bobs.Session.ID, "s_", "s_AAAAAAAAAAAAAAAAAAAAAA", "a b", "\x00\xff", strings.Repeat("x", 1<<16)} {
			h := a.claim(alice(wanted))
			equal(t, "resumed", h.Resumed, false)
			h.Session.End("test")
		}
		equal(t, "told", bobs.lost.Load(), 0)
	})
}

func TestLimitCountsConnectionsOfOneClient(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		web := alice("")
		web.Limit = 2
		first := a.claim(web)
		second := b.claim(web)
		if _, err := a.try(web); !errors.Is(err, session.ErrLimit) {
			t.Errorf("third: %v", err)
		}
		mobile := web
		mobile.Client = "mobile app"
		a.claim(mobile)

		back := web
		back.Wanted = first.Session.ID
		equal(t, "resumed at the limit", b.claim(back).Resumed, true)

		second.Session.Leave(time.Minute, "test")
		pass(time.Second)
		third := a.claim(web)
		back.Wanted = second.Session.ID
		if _, err := a.try(back); !errors.Is(err, session.ErrLimit) {
			t.Errorf("a left session on top of the limit: %v", err)
		}
		third.Session.End("test")
		pass(time.Second)
		equal(t, "resumed below the limit", a.claim(back).Resumed, true)
	})
}

func TestLeftSessionsAreBounded(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		limited := alice("")
		limited.Limit = 50
		var last *held
		for range 150 {
			last = a.claim(limited)
			last.Session.Leave(window, "test")
			pass(time.Millisecond)
		}
		n, err := c.rdb.HLen(t.Context(), "gw:{user:alice}:sessions").Result()
		if err != nil || n > 101 {
			t.Errorf("%d sessions are kept (%v)", n, err)
		}
		equal(t, "newest resumed", a.claim(alice(last.Session.ID)).Resumed, true)
	})
}

func TestClaimFailsWithItsContext(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		a.link.cut()
		if _, err := a.try(alice("")); err == nil {
			t.Error("claimed without Redis")
		}
		pass(15 * time.Second) // the lease is over
		start := time.Now()
		if _, err := a.try(alice("")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("claim: %v", err)
		}
		equal(t, "waited", time.Since(start), 5*time.Second)
		a.link.mend()
		a.claim(alice(""))
	})
}

func TestClaimWithoutAnswerIsTakenBack(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		old := a.claim(alice(""))
		old.Session.Leave(window, "test")
		pass(time.Second)

		a.link.deafen()
		if _, err := a.try(alice("")); err == nil {
			t.Error("claimed without an answer")
		}
		if _, err := a.try(alice(old.Session.ID)); err == nil {
			t.Error("resumed without an answer")
		}
		a.link.mend()
		pass(3 * time.Second)
		equalSlices(t, "online", a.online(), nil)
		equal(t, "can be resumed", a.claim(alice(old.Session.ID)).Resumed, true)
	})
}

func TestDisconnectedSessionsAreNotResumed(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		here, gone, kept := a.claim(alice("")), a.claim(alice("")), a.claim(alice(""))
		gone.Session.Leave(window, "test")
		pass(time.Second)

		d, err := b.Disconnect(t.Context(), "alice", here.Session.ID, "test")
		if err != nil || len(d.Owners) != 1 || d.Connections != 1 {
			t.Fatalf("disconnect: %v %v", d, err)
		}
		equal(t, "owner", d.Owners[0], session.Owner{Node: a.Node(), Session: here.Session.ID, Generation: 1})
		here.Session.End("test")
		equalSlices(t, "online", b.online(), []string{kept.Session.ID})

		if d, err = b.Disconnect(t.Context(), "alice", "", "test"); err != nil || len(d.Owners) != 1 || d.Connections != 1 {
			t.Fatalf("disconnect all: %v %v", d, err)
		}
		kept.Session.End("test")
		pass(time.Second)
		for _, h := range []*held{here, gone, kept} {
			equal(t, "resumed", b.claim(alice(h.Session.ID)).Resumed, false)
		}
	})
}
