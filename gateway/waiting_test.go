package gateway_test

import (
	"fmt"
	"slices"
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
	publishAll := func() (codes []string, took time.Duration) {
		start := time.Now()
		for _, c := range clients {
			c.send(`{"type":"publish","ref":1,"channel":"open:1","data":%q}`, strings.Repeat("x", 60_000))
		}
		for _, c := range clients {
			codes = append(codes, c.next().str("code"))
		}
		return codes, time.Since(start)
	}
	_, reading := publishAll() // what the machine needs for so much, without waiting for Redis
	p.Blackhole(true)
	codes, took := publishAll()
	if took > answersWithin+reading {
		t.Errorf("the last was answered after %v, with Redis after %v", took, reading)
	}
	if slices.ContainsFunc(codes, func(code string) bool { return code != "unavailable" }) {
		t.Errorf("answered with %q", codes)
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
