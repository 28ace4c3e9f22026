package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
	"wssgateway/session"
)

// briefLease has a node count as dead, and its sessions as left, after a second.
func briefLease(cfg *gateway.Config) {
	cfg.Lease, cfg.Heartbeat = time.Second, 300*time.Millisecond
}

// disconnect ends the sessions of a user through the server API, and returns how
// many connections that ended.
func (n *node) disconnect(t *testing.T, user string) any {
	t.Helper()
	status, answer := n.call(t, "DELETE", "/v1/users/"+user+"/sessions", "")
	if status != 200 {
		t.Fatalf("disconnect: %d %v", status, answer)
	}
	return answer.(map[string]any)["disconnected"]
}

// TestDisconnectReachesANodeThatWasAway: its clients were connected all the time
// (finding A4).
func TestDisconnectReachesANodeThatWasAway(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s.Addr())
	a := startNode(t, "a", dialRedis(t, s.Addr()), briefLease)
	b := startNode(t, "b", dialRedis(t, proxy.Addr()), briefLease)
	alice, hello := b.connect(t, "alice", "channel=room:1")
	bob, _ := b.connect(t, "bob", "")

	proxy.SetTarget("127.0.0.1:1") // nobody there
	proxy.Cut()
	await(t, func() error {
		_, answer := a.call(t, "GET", "/v1/users/alice", "")
		if answer.(map[string]any)["online"] != false {
			return fmt.Errorf("%v", answer)
		}
		return nil
	})
	if n := a.disconnect(t, "alice"); n != 1.0 {
		t.Errorf("disconnected: %v", n)
	}
	if n := a.disconnect(t, "alice"); n != 0.0 {
		t.Errorf("disconnected once more: %v", n)
	}
	proxy.SetTarget(s.Addr())
	alice.expectClose(4003)
	if _, again := a.connect(t, "alice", "session="+hello.str("session")); again["resumed"] != false {
		t.Errorf("resumed: %v", again)
	}
	bob.send(`{"type":"ping","ref":1}`)
	bob.expect("pong")
}

// TestDisconnectWhoseOrderIsLost: the node finds out by itself (finding A4).
func TestDisconnectWhoseOrderIsLost(t *testing.T) {
	t.Parallel()
	a, b := startTwo(t)
	alice, _ := b.connect(t, "alice", "")
	if _, err := a.sessions.Disconnect(t.Context(), "alice", "", "disconnected"); err != nil {
		t.Fatal(err)
	}
	b.sessions.Verify() // else it takes up to 20 s
	alice.expectClose(4003)
}

// TestEvictionWhoseOrderIsLost: the former owner finds out by itself (finding A11).
func TestEvictionWhoseOrderIsLost(t *testing.T) {
	t.Parallel()
	a, b := startTwo(t)
	alice, hello := b.connect(t, "alice", "")
	claimed(t, a, "alice", hello.str("session"))
	b.sessions.Verify()
	alice.expectClose(4002)
}

// claimed claims a session without telling its former owner.
func claimed(t *testing.T, n *node, user, id string) *session.Session {
	t.Helper()
	c, err := n.sessions.Claim(t.Context(), session.Claim{User: user, Wanted: id, Client: "web", Holder: nobody{}})
	if err != nil || !c.Resumed {
		t.Fatalf("claim: %v %v", c.Resumed, err)
	}
	return c.Session
}

// nobody holds a session.
type nobody struct{}

func (nobody) SessionLost(session.Loss) {}
func (nobody) SessionRestored()         {}

// TestPresenceOfASessionThatRedisHadLost: others took it for over meanwhile
// (finding A13).
func TestPresenceOfASessionThatRedisHadLost(t *testing.T) {
	t.Parallel()
	rdb := embedded(t)
	a := startNode(t, "a", rdb)
	alice, hello := a.connect(t, "alice", "channel=who:1")
	_, _ = a.connect(t, "bob", "channel=who:1")
	alice.expectChange("join", "bob")
	alice.expectPresent("alice 1", "bob 1")
	for _, key := range []string{"sessions", "left", "channels"} {
		rdb.Del(t.Context(), "gw:{user:bob}:"+key)
	}
	rdb.Del(t.Context(), "gw:{0}:members:*presence:who:1", "gw:{0}:users:*presence:who:1")
	a.sessions.Verify()
	alice.expectChange("join", "bob")
	_, answer := a.call(t, "GET", "/v1/users/bob", "")
	if answer.(map[string]any)["online"] != true {
		t.Errorf("%v", answer)
	}
	_ = hello
}

// holdEnter keeps what enters a session into a channel from reaching Redis.
type holdEnter struct {
	session string
	held    chan struct{} // closed when it is held
	release chan struct{}
	reached chan struct{} // closed when Redis has answered
	once    sync.Once
}

func (*holdEnter) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*holdEnter) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (h *holdEnter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if slices.Contains(cmd.Args(), any("enter")) && slices.Contains(cmd.Args(), any(h.session)) {
				first := false
				h.once.Do(func() { first = true })
				if !first {
					break
				}
				close(h.held)
				<-h.release
				defer close(h.reached)
			}
		}
		return next(ctx, cmds)
	}
}

// TestLateEnterLeavesNoGhost: a session enters a channel, moves, and is not on the
// channel under its new owner, before Redis gets to the first; its former owner knows
// of that at once, or later (finding B6).
func TestLateEnterLeavesNoGhost(t *testing.T) {
	t.Parallel()
	for name, told := range map[string]bool{"told": true, "not told": false} {
		t.Run(name, func(t *testing.T) {
			m := redistest.Embedded(t)
			slow := redistest.EmbeddedClient(t, m)
			a, b := startNode(t, "a", slow), startNode(t, "b", redistest.EmbeddedClient(t, m))
			_, _ = b.connect(t, "bob", "channel=who:1")
			watching, _ := b.connect(t, "carol", "")
			watching.expectPresent("bob 1")
			alice, hello := a.connect(t, "alice", "")
			id := hello.str("session")
			h := &holdEnter{session: id, held: make(chan struct{}), release: make(chan struct{}), reached: make(chan struct{})}
			slow.AddHook(h)
			alice.send(`{"type":"subscribe","ref":1,"channel":"who:1"}`)
			<-h.held
			if told {
				_, _ = b.connect(t, "alice", "session="+id)
				alice.expectClose(4002)
				close(h.release)
				<-h.reached
			} else {
				moved := claimed(t, b, "alice", id)
				moved.SetChannels([]string{"user:alice"})
				if err := moved.AwaitWritten(t.Context()); err != nil {
					t.Fatal(err)
				}
				close(h.release)
				<-h.reached
				alice.expect("subscribed")
				a.sessions.Verify()
				alice.expectClose(4002)
			}
			watching.expectPresent("bob 1")
		})
	}
}

// TestAuditEndsGhosts: of a session that has moved, and is not on the channel under
// its new owner (finding B6).
func TestAuditEndsGhosts(t *testing.T) {
	t.Parallel()
	rdb := embedded(t)
	a := startNode(t, "a", rdb, briefLease)
	bob, _ := a.connect(t, "bob", "channel=who:1")
	_, hello := a.connect(t, "alice", "")
	claimed(t, a, "alice", hello.str("session"))
	rdb.HSet(t.Context(), "gw:{0}:members:*presence:who:1", hello.str("session"), "1 alice")
	rdb.HSet(t.Context(), "gw:{0}:users:*presence:who:1", "alice", "1")
	bob.expectPresent("alice 1", "bob 1")
	a.Restored()
	bob.expectChange("leave", "alice")
	bob.expectPresent("bob 1")
}
