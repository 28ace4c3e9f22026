package session_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"wssgateway/session"
)

// witness is told of sessions that are over, by several nodes.
type witness struct {
	mu     sync.Mutex
	refuse int // how many times it cannot be told
	told   []session.Gone
	at     []time.Time
}

func (w *witness) gone(_ context.Context, gone []session.Gone) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse > 0 {
		w.refuse--
		return errors.New("not now")
	}
	for _, g := range gone {
		w.told = append(w.told, g)
		w.at = append(w.at, time.Now())
	}
	return nil
}

// ids returns of which sessions it was told, in order.
func (w *witness) ids() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for _, g := range w.told {
		ids = append(ids, g.ID)
	}
	return ids
}

func (w *witness) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told, w.at = nil, nil
}

// only returns what it was told of the one session that it was told of, once.
func (w *witness) only(t *testing.T, h *held) session.Gone {
	t.Helper()
	if !slices.Equal(w.ids(), []string{h.Session.ID}) {
		t.Fatalf("told of %q, want %q", w.ids(), h.Session.ID)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told[0]
}

func (w *witness) start(c *cluster, name string) *node {
	return c.startWith(session.Config{Node: name, Gone: w.gone})
}

func TestSessionIsToldOfOnceWhenItsWindowIsOver(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		a := w.start(c, "a")
		w.start(c, "b")
		w.start(c, "c")
		h := a.claim(alice(""))
		h.Session.SetChannels([]string{"room:1", "user:alice"})
		pass(time.Second)
		left := time.Now()
		h.Session.Leave(window, "lost")
		pass(window - time.Millisecond)
		equalSlices(t, "told before the end", w.ids(), nil)
		pass(time.Minute)
		equalSlices(t, "told", w.ids(), []string{h.Session.ID})
		if late := w.at[0].Sub(left) - window; late > 2*time.Second {
			t.Errorf("told %s after the end", late)
		}
		g := w.told[0]
		equalSlices(t, "channels", g.Channels, []string{"room:1", "user:alice"})
		equal(t, "user, node, reason", g.User+" "+g.Node+" "+g.Reason, "alice a lost")
	})
}

func TestResumedSessionIsNotToldOf(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		a, b := w.start(c, "a"), w.start(c, "b")
		h := a.claim(alice(""))
		h.Session.Leave(window, "lost")
		pass(window - time.Second)
		again := b.claim(alice(h.Session.ID))
		pass(2 * window)
		equalSlices(t, "told while connected", w.ids(), nil)
		again.Session.Leave(window, "lost")
		pass(window - 5*time.Second)
		equalSlices(t, "told within the second window", w.ids(), nil)
		pass(10 * time.Second)
		equalSlices(t, "told", w.ids(), []string{h.Session.ID})
		equal(t, "node", w.told[0].Node, "b")
	})
}

func TestEndedSessionIsToldOfAtOnce(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		a, b := w.start(c, "a"), w.start(c, "b")
		ended, left, far := a.claim(alice("")), a.claim(alice("")), b.claim(alice(""))
		ended.Session.End("client")
		pass(0)
		equalSlices(t, "told", w.ids(), []string{ended.Session.ID})

		left.Session.Leave(window, "lost")
		b.link.cut() // far's node dies
		pass(11 * time.Second)
		d, err := a.Disconnect(t.Context(), "alice", "", "disconnected")
		if err != nil || len(d.Owners) != 0 || d.Connections != 1 {
			t.Fatalf("disconnect: %v %v", d, err)
		}
		pass(2 * time.Second)
		got := w.ids()[1:]
		slices.Sort(got)
		want := []string{left.Session.ID, far.Session.ID}
		slices.Sort(want)
		equalSlices(t, "told after disconnect", got, want)
		equal(t, "reason", w.told[1].Reason, "disconnected")
	})
}

func TestSessionsOfADeadNodeAreToldOfOnce(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		dead := w.start(c, "dead")
		for i := range 4 {
			w.start(c, fmt.Sprint("n", i))
		}
		var want []string
		for range 600 { // several batches
			h := dead.claim(session.Claim{User: fmt.Sprint("u", rand.N(100)), Client: "web"})
			h.Session.SetChannels([]string{"room:1"})
			want = append(want, h.Session.ID)
		}
		pass(time.Second)
		dead.link.cut()
		pass(window)
		equalSlices(t, "told within the window", w.ids(), nil)
		pass(20 * time.Second)
		got := w.ids()
		slices.Sort(got)
		slices.Sort(want)
		equalSlices(t, "told", got, want)
		equal(t, "reason", w.told[0].Reason, "node_lost")
		equalSlices(t, "channels", w.told[0].Channels, []string{"room:1"})
	})
}

// A user's keys are trimmed by whatever comes to them next; that must not make
// anybody forget the sessions of a dead node.
func TestSessionsOfADeadNodeAreToldOfThoughTheirUserComesBack(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		dead := w.start(c, "dead")
		claim := alice("")
		claim.Limit = 2
		old := dead.claim(claim)
		dead.link.cut()
		pass(10*time.Second + window)
		b := w.start(c, "b") // nobody has swept yet
		claim.Wanted = old.Session.ID
		equal(t, "resumed", b.claim(claim).Resumed, false)
		claim.Wanted = ""
		b.claim(claim)
		pass(10 * time.Second)
		equalSlices(t, "told", w.ids(), []string{old.Session.ID})
	})
}

func TestWhoCannotBeToldIsToldAgain(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{refuse: 3}
		a := w.start(c, "a")
		w.start(c, "b")
		h := a.claim(alice(""))
		h.Session.End("client")
		pass(40 * time.Second)
		equalSlices(t, "told", w.ids(), []string{h.Session.ID})
	})
}

func TestSessionsThatEndWhileRedisIsAwayAreToldOf(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		a, b := w.start(c, "a"), w.start(c, "b")
		ended, left := a.claim(alice("")), a.claim(alice(""))
		moved := a.claim(alice(""))
		a.link.cut()
		ended.Session.End("client")
		left.Session.Leave(10*time.Second, "client_away")
		moved.Session.Leave(10*time.Second, "client_away")
		again := b.claim(alice(moved.Session.ID))
		equal(t, "resumed", again.Resumed, true)
		pass(8 * time.Second) // not yet dead
		a.link.mend()
		pass(15 * time.Second)
		got := w.ids()
		slices.Sort(got)
		want := []string{ended.Session.ID, left.Session.ID}
		slices.Sort(want)
		equalSlices(t, "told", got, want)
	})
}

func TestEventsComeOncePerSession(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startWith(session.Config{Node: "a", Events: true})
		b := c.startWith(session.Config{Node: "b", Events: true})
		dead := c.startWith(session.Config{Node: "dead", Events: true})
		moved := a.claim(alice(""))
		pass(0)
		lost := dead.claim(alice(""))
		pass(0)
		again := b.claim(alice(moved.Session.ID))
		a.Evict(moved.Session.ID, moved.Session.Generation)
		dead.link.cut()
		pass(window + 20*time.Second)
		again.Session.End("client")
		pass(time.Second)

		id, other := moved.Session.ID, lost.Session.ID
		want := []string{
			"connected " + id + " alice a ", "connected " + other + " alice dead ",
			"disconnected " + other + " alice dead node_lost", "disconnected " + id + " alice b client",
		}
		equalSlices(t, "events", c.events(), want)
		c.rdb.Del(t.Context(), "gw:events") // for the check at the end
	})
}

// events returns the entries of the stream of events.
func (c *cluster) events() []string {
	c.t.Helper()
	entries, err := c.rdb.XRange(context.Background(), "gw:events", "-", "+").Result()
	if err != nil {
		c.t.Fatal(err)
	}
	var events []string
	for _, e := range entries {
		v := e.Values
		events = append(events, fmt.Sprint(v["event"], " ", v["session"], " ", v["user"], " ", v["node"], " ", v["reason"]))
	}
	return events
}

// Sessions begin, move, are left and end on three nodes, one of which dies and
// one of which loses its way to Redis for a while.
func TestEverySessionBeginsAndEndsOnce(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		var nodes []*node
		for _, name := range []string{"a", "b", "c"} {
			nodes = append(nodes, c.startWith(session.Config{Node: name, Gone: w.gone, Events: true}))
		}
		seen := make(map[string]bool)
		var orders []session.Owner // to b, which does not hear them while it is cut off
		for i := range 400 {
			if i == 150 {
				nodes[2].link.cut()
				nodes = nodes[:2]
			}
			if i == 250 {
				nodes[1].link.cut()
			}
			if i == 260 {
				nodes[1].link.mend()
			}
			if i < 250 || i >= 260 {
				for _, o := range orders {
					nodes[1].Evict(o.Session, o.Generation)
				}
				orders = nil
			}
			n := nodes[rand.N(len(nodes))]
			wanted := ""
			for id := range seen {
				wanted = id
				break
			}
			h, err := n.try(session.Claim{User: "alice", Wanted: wanted, Client: "web"})
			if err != nil {
				continue // its node has lost its way
			}
			seen[h.Session.ID] = true
			if p := h.Previous; p != nil && p.Node == nodes[0].Node() {
				nodes[0].Evict(p.Session, p.Generation)
			} else if p != nil {
				orders = append(orders, *p)
			}
			pass(time.Duration(rand.N(3000)) * time.Millisecond)
			switch rand.N(3) {
			case 0:
				h.Session.End("client")
			case 1:
				h.Session.Leave(time.Duration(rand.N(20))*time.Second, "lost")
			}
		}
		for _, n := range nodes {
			n.stop()
		}
		last := c.startWith(session.Config{Node: "last", Gone: w.gone, Events: true})
		pass(2 * window)

		state := make(map[string]string)
		for _, g := range c.events() {
			var kind, id string
			_, _ = fmt.Sscan(g, &kind, &id)
			if kind == "connected" && state[id] != "" || kind == "disconnected" && state[id] != "connected" {
				t.Errorf("session %s: %s after %q", id, kind, state[id])
			}
			state[id] = kind
		}
		for id := range seen {
			equal(t, "session "+id, state[id], "disconnected")
			if !slices.Contains(w.ids(), id) {
				t.Errorf("session %s: nobody was told", id)
			}
		}
		last.stop()
		c.rdb.Del(t.Context(), "gw:events")
	})
}

// TestSessionIsToldOfOnceThoughTwoNodesDieAroundIt: with the node that had it last,
// whichever is swept first (finding A5).
func TestSessionIsToldOfOnceThoughTwoNodesDieAroundIt(t *testing.T) {
	for name, between := range map[string]time.Duration{"before the first is swept": 5 * time.Second, "after": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				w := &witness{}
				a, b := w.start(c, "a"), w.start(c, "b")
				w.start(c, "c")
				h := a.claim(alice(""))
				h.Session.SetChannels([]string{"room:1"})
				pass(time.Second)
				a.link.cut()
				pass(between)
				moved := b.claim(alice(h.Session.ID))
				equal(t, "resumed", moved.Resumed, true)
				moved.Session.SetChannels([]string{"room:2"})
				pass(time.Second)
				b.link.cut()
				pass(window + 30*time.Second)
				g := w.only(t, h)
				equal(t, "node, reason", g.Node+" "+g.Reason, "b node_lost")
				equalSlices(t, "channels", g.Channels, []string{"room:2"})
				a.link.mend()
				b.link.mend()
				pass(30 * time.Second)
				// Both connections were there all the time. One goes on.
				equal(t, "lost by a", h.lost.Load(), 1)
				equal(t, "lost by b", moved.lost.Load(), 0)
				equalSlices(t, "online", b.online(), []string{h.Session.ID})
			})
		})
	}
}
