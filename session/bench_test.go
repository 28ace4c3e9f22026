package session_test

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"wssgateway/broker/redistest"
	"wssgateway/session"
)

// BenchmarkClaim is a client that connects and closes: a claim, its channels,
// its end.
func BenchmarkClaim(b *testing.B) {
	rdb := redistest.Start(b).Client(b)
	var users atomic.Int64
	n := run(b, rdb, session.Config{Node: "a"})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c := alice("")
			c.User = strconv.FormatInt(users.Add(1), 10)
			h := n.claim(c)
			h.Session.SetChannels([]string{"room:42", "user:alice", "broadcast"})
			h.Session.Leave(10*time.Second, "test")
		}
	})
	n.stop()
	if n.Sessions() != 0 {
		b.Errorf("%d sessions are left", n.Sessions())
	}
}
