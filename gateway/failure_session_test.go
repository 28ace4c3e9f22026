package gateway_test

import (
	"fmt"
	"testing"
	"time"

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
