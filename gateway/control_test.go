package gateway

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"wssgateway/broker"
	"wssgateway/broker/redistest"
	"wssgateway/session"
)

// TestOrdersFromBeforeTheChannelStands: a node obeys them once each, and those that
// come later too (finding B10).
func TestOrdersFromBeforeTheChannelStands(t *testing.T) {
	rdb := redistest.EmbeddedClient(t, redistest.Embedded(t))
	log := slog.New(slog.DiscardHandler)
	b := broker.New(rdb, broker.Config{Prefix: "gw:", Node: "a", Logger: log})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = b.Run(ctx) })

	shares := make(chan float64, 1000)
	sessions := session.New(rdb, session.Config{Prefix: "gw:", Node: "a"})
	ctl := &control{broker: b, sessions: sessions, log: log, rebalance: func(share float64) { shares <- share }}
	give := func(share float64) {
		if err := ctl.give(ctx, sessions.Node(), order{Op: opRebalance, Share: share}); err != nil {
			t.Fatal(err)
		}
	}
	const before, all = 150, 300
	for i := range before {
		give(float64(i))
	}
	running.Go(func() { ctl.run(ctx) })
	for i := range all - before {
		give(float64(before + i)) // some of them while it subscribes
	}
	seen := make(map[float64]int)
	deadline := time.After(30 * time.Second)
	for len(seen) < all {
		select {
		case share := <-shares:
			seen[share]++
		case <-deadline:
			t.Fatalf("%d of %d orders were obeyed", len(seen), all)
		}
	}
	for share, n := range seen {
		if n != 1 {
			t.Errorf("order %v was obeyed %d times", share, n)
		}
	}
}
