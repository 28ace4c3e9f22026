package gateway_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
)

// TestWhatWaitsForRedisIsBounded: messages that wait for a Redis that does not answer
// count against the memory of the node; what would be too much is answered at once.
func TestWhatWaitsForRedisIsBounded(t *testing.T) {
	t.Parallel()
	m := redistest.Embedded(t)
	p := redistest.NewProxy(t, m.Addr())
	n := startNode(t, "a", dialRedis(t, p.Addr()), func(cfg *gateway.Config) { cfg.Limits.Memory = 16 << 20 })
	clients := make([]*client, 120)
	for i := range clients {
		clients[i], _ = n.connect(t, fmt.Sprint("user", i/10), "")
	}
	p.Blackhole(true)
	start := time.Now()
	for _, c := range clients {
		c.send(`{"type":"publish","ref":1,"channel":"open:1","data":%q}`, strings.Repeat("x", 60_000))
	}
	at := make([]time.Duration, len(clients))
	for i, c := range clients {
		c.expectError("unavailable")
		at[i] = time.Since(start)
	}
	if last := at[len(at)-1]; last > answersWithin {
		t.Errorf("the last was answered after %v", last)
	}
	await(t, func() error {
		if held := n.metric("gateway_client_memory_bytes"); held > 1<<20 {
			return fmt.Errorf("%v bytes are still held", held)
		}
		return nil
	})
	p.Blackhole(false)
	await(t, func() error {
		if f := clients[0].reply(`{"type":"publish","ref":2,"channel":"open:1","data":1}`); f.str("type") != "published" {
			return fmt.Errorf("got %v", f)
		}
		return nil
	})
	if n.ended("overloaded") > 0 {
		t.Error("somebody was closed for it")
	}
}
