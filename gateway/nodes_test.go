package gateway_test

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestMessagesCrossNodes(t *testing.T) {
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		a, b := startNode(t, "a", connect()), startNode(t, "b", connect())
		alice, hello := a.connect(t, "alice", "channel=room:1")
		t.Log(hello)
		bob, _ := b.connect(t, "bob", "channel=room:1&channel=plain:1")

		alice.send(`{"type":"publish","ref":1,"channel":"room:1","event":"chat","data":{"text":"hi"}}`)
		first := bob.expect("message")
		if first.str("from") != "alice" || first.str("channel") != "room:1" || first.str("event") != "chat" {
			t.Errorf("bob got %v", first)
		}
		own, reply := alice.next(), alice.next()
		if own.str("type") == "published" {
			own, reply = reply, own
		}
		if own.str("id") != first.str("id") || reply.str("id") != first.str("id") || reply["ref"] != 1.0 {
			t.Errorf("alice got %v and %v", own, reply)
		}

		bob.send(`{"type":"publish","to":"alice","data":"psst"}`)
		if m := alice.expect("message"); m.str("channel") != "user:alice" || m.str("to") != "alice" || m.str("data") != "psst" {
			t.Errorf("alice got %v", m)
		}
		alice.send(`{"type":"publish","channel":"plain:1","data":[1]}`)
		if m := bob.expect("message"); m["id"] != nil || m.str("channel") != "plain:1" {
			t.Errorf("bob got %v", m)
		}
		a.publish(t, `{"channel":"broadcast","data":true}`)
		if m := bob.expect("message"); m.str("channel") != "broadcast" {
			t.Errorf("bob got %v", m)
		}
	})
}

func TestBackendDisconnectsSessionsOnAllNodes(t *testing.T) {
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		a, b := startNode(t, "a", connect()), startNode(t, "b", connect())
		one, hello := a.connect(t, "alice", "")
		two, _ := b.connect(t, "alice", "")
		bob, _ := b.connect(t, "bob", "")

		expectDisconnected := func(path string, want float64) {
			t.Helper()
			status, answer := a.call(t, "DELETE", path, "")
			if m, _ := answer.(map[string]any); status != 200 || m["disconnected"] != want {
				t.Errorf("DELETE %s: %d %v, want %v disconnected", path, status, answer, want)
			}
		}
		expectDisconnected("/v1/users/alice/sessions/s_unknown", 0)
		expectDisconnected("/v1/users/bob/sessions/"+hello.str("session"), 0)
		expectDisconnected("/v1/users/alice/sessions/"+hello.str("session"), 1)
		one.expectClose(4003)
		expectDisconnected("/v1/users/alice/sessions", 1)
		two.expectClose(4003)

		if _, again := b.connect(t, "alice", "session="+hello.str("session")); again["resumed"] != false {
			t.Errorf("a session that the backend ended was resumed: %v", again)
		}
		bob.send(`{"type":"ping","ref":1}`)
		bob.expect("pong")
	})
}
