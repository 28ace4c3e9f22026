package gateway_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
)

// holder is one connection of a session, read all the time.
type holder struct {
	journal *journal
	hello   frame
	ended   chan struct{} // closed with the connection

	mu   sync.Mutex // guards what follows
	last string     // the last message it got
	err  error      // that ended it
}

// hold connects with a session and a position, and follows a channel.
func (n *node) hold(t *testing.T, user, session, channel, since string) *holder {
	query := "access_token=" + token(user) + "&session=" + session + "&channel=" + url.QueryEscape(channel)
	if since != "" {
		query += "@" + since
	}
	c := n.dial(t, query)
	h := &holder{journal: &journal{channel: channel}, ended: make(chan struct{}), last: since}
	var err error
	if h.hello, err = c.read(); err != nil || h.hello.str("type") != "connected" {
		// Another one was faster: closed before it was told.
		h.err = err
		close(h.ended)
		return h
	}
	told := h.hello.channel(channel)
	h.journal.steps = append(h.journal.steps, step{kind: "connected", since: since, last: told.str("last")})
	go func() {
		defer close(h.ended)
		for {
			f, err := c.readLong()
			h.mu.Lock()
			if err != nil {
				h.err = err
				h.mu.Unlock()
				return
			}
			if h.journal.message(f) {
				h.last = f.str("id")
			}
			h.mu.Unlock()
		}
	}()
	return h
}

func (h *holder) position() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

func (h *holder) alive() bool {
	select {
	case <-h.ended:
		return false
	default:
		return true
	}
}

// awaitNewer waits until the connection has got a message after a position.
func (h *holder) awaitNewer(t *testing.T, than string) {
	t.Helper()
	await(t, func() error {
		if !newer(h.position(), than) {
			return fmt.Errorf("nothing came after %s, alive: %v", than, h.alive())
		}
		return nil
	})
}

// awaitPosition waits until the connection has got the message with the id.
func (h *holder) awaitPosition(t *testing.T, id string) {
	t.Helper()
	await(t, func() error {
		if at := h.position(); at != id {
			return fmt.Errorf("is at %s of %s, alive: %v", at, id, h.alive())
		}
		return nil
	})
}

func (h *holder) check(t *testing.T, stored []string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.journal.check(t, stored)
}

// TestTakeover moves a session from node to node, also to both at once, while
// messages come through both.
func TestTakeover(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		const channel, rounds = "deep:1", 100
		nodes := []*node{startNode(t, "a", connect(), deep), startNode(t, "b", connect(), deep)}
		p := publishSteadily(t, channel, nodes...)
		random := rand.New(rand.NewPCG(5, 6))
		first := nodes[0].hold(t, "alice", "", channel, "0")
		session := first.hello.str("session")
		all := []*holder{first}
		current := first
		for round := range rounds {
			at := current.position()
			current.awaitNewer(t, at)
			at = current.position() // what it has seen; the old one may go on meanwhile
			claims := 1 + random.IntN(2)
			next := make([]*holder, claims)
			var wg sync.WaitGroup
			for i := range next {
				wg.Go(func() { next[i] = nodes[(round+i)%2].hold(t, "alice", session, channel, at) })
			}
			wg.Wait()
			all = append(all, next...)
			for _, h := range next {
				if h.hello != nil && (h.hello["resumed"] != true || h.hello.str("session") != session) {
					t.Fatalf("round %d: %v", round, h.hello)
				}
			}
			current = survivor(t, append([]*holder{current}, next...))
		}
		p.stop()
		_, answer := nodes[0].call(t, "GET", "/v1/users/alice", "")
		if sessions := answer.(map[string]any)["sessions"].([]any); len(sessions) != 1 {
			t.Errorf("at the end: %v", sessions)
		}
		for _, n := range nodes {
			await(t, func() error {
				if got := n.metric("gateway_connections"); got > 1 {
					return fmt.Errorf("%s: %v connections", n.name, got)
				}
				return nil
			})
		}
		ids := stored(t, connect(), channel)
		current.awaitPosition(t, ids[len(ids)-1])
		for _, h := range all {
			h.check(t, ids)
		}
	})
}

// survivor waits until one of the connections is left, and returns it. The others
// must have been told that the session has moved.
func survivor(t *testing.T, holders []*holder) (left *holder) {
	t.Helper()
	await(t, func() error {
		alive := 0
		for _, h := range holders {
			if h.alive() {
				alive++
				left = h
			}
		}
		if alive != 1 {
			return fmt.Errorf("%d of %d connections are alive", alive, len(holders))
		}
		return nil
	})
	for _, h := range holders {
		if h != left && websocket.CloseStatus(h.err) != 4002 {
			t.Fatalf("ended with %v, want 4002", h.err)
		}
	}
	return left
}

// TestNodeKilled takes a node from Redis and from its clients at once. One of
// them comes back elsewhere immediately, the other never.
func TestNodeKilled(t *testing.T) {
	t.Parallel()
	const channel = "deep:1"
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s.Addr())
	a, b := startNode(t, "a", dialRedis(t, s.Addr()), deep), startNode(t, "b", dialRedis(t, proxy.Addr()), deep)
	p := publishSteadily(t, channel, a)
	returns, stays := b.hold(t, "alice", "", channel, "0"), b.hold(t, "bob", "", channel, "")
	returns.awaitNewer(t, "")

	proxy.SetTarget("127.0.0.1:1") // nobody there
	proxy.Cut()
	at := returns.position()
	again := a.hold(t, "alice", returns.hello.str("session"), channel, at)
	if again.hello["resumed"] != true || again.hello.channel(channel)["recovered"] != true {
		t.Errorf("got %v", again.hello)
	}
	again.awaitNewer(t, at)

	await(t, func() error { // ten seconds after the last heartbeat
		_, nodes := a.call(t, "GET", "/v1/nodes", "")
		_, user := a.call(t, "GET", "/v1/users/bob", "")
		if list := nodes.(map[string]any)["nodes"].([]any); len(list) != 1 || user.(map[string]any)["online"] != false {
			return fmt.Errorf("%v, %v", nodes, user)
		}
		return nil
	})
	back := a.hold(t, "bob", stays.hello.str("session"), channel, stays.position())
	if back.hello["resumed"] != true {
		t.Errorf("after the sweep: %v", back.hello)
	}
	if status := b.readyz(); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz of the node without Redis: %d", status)
	}
	p.stop()
	ids := stored(t, dialRedis(t, s.Addr()), channel)
	for _, h := range []*holder{again, back} {
		h.awaitPosition(t, ids[len(ids)-1])
	}
	for _, h := range []*holder{returns, stays, again, back} {
		h.check(t, ids)
	}
}
