package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
)

// TestFrozenReadersOfAReplay: who comes back to a large channel and reads nothing
// costs a page, however much there is (finding H5). It is not parallel: it measures
// the memory of the process.
func TestFrozenReadersOfAReplay(t *testing.T) {
	n := startNode(t, "a", redistest.Start(t).Client(t), deep)
	n.big(t, "deep:1", 100)
	const readers = 30
	before := memory(t)
	for i := range readers {
		c := n.bare(t, "connect=1&channel=deep:1@0&access_token="+token(fmt.Sprint("user", i)), "")
		_ = c
	}
	await(t, func() error {
		if got := n.metric("gateway_replayed_total"); got < 2*readers {
			return fmt.Errorf("%v messages were replayed", got)
		}
		return nil
	})
	const most = 2*(128<<10+60_000) + 100_000 // a page as it was read and as it waits, and a connection
	// Also what is being read at the moment comes to rest.
	await(t, func() error {
		if got := (memory(t).heap - before.heap) / readers; got > most {
			return fmt.Errorf("each holds %d bytes, want %d at most", got, most)
		}
		return nil
	})
}

// TestFrozenReplaysCostNobodyElse: readers of a replay that do not read fill the memory
// of the node, and are given up; who holds less is not.
func TestFrozenReplaysCostNobodyElse(t *testing.T) {
	t.Parallel()
	const slowOnes, hostile, memory, small = 10, 140, 16 << 20, 800
	rdb := redistest.Start(t).Client(t)
	n := startNode(t, "a", rdb, deep, func(cfg *gateway.Config) {
		cfg.Limits.Memory = memory
	})
	fill := func(channel string, size, count int) {
		body := strings.Repeat(fmt.Sprintf(`,{"channel":%q,"data":%q}`, channel, strings.Repeat("x", size)), 20)[1:]
		for len(stored(t, rdb, channel)) < count {
			if status, answer := n.call(t, "POST", "/v1/publish", "["+body+"]"); status != http.StatusOK {
				t.Fatalf("%d %v", status, answer)
			}
		}
	}
	fill("deep:small", 700, small)
	fill("deep:big", 15000, 200)
	var slow []*client
	for i := range slowOnes {
		c := n.narrow(t, fmt.Sprintf("access_token=%s&connect=1", token(fmt.Sprint("slow", i))))
		c.expect("connected")
		c.send(`{"type":"subscribe","channel":"deep:small","since":"0"}`)
		slow = append(slow, c)
	}
	await(t, func() error {
		if n.metric("gateway_client_memory_bytes") < slowOnes*40_000 {
			return fmt.Errorf("memory %v", n.metric("gateway_client_memory_bytes"))
		}
		return nil
	})
	taken := make(map[*client]int)
	take := func(c *client, n int) error {
		for taken[c] < n {
			f, err := c.read()
			if err != nil {
				return err
			}
			if f["type"] == "message" {
				taken[c]++
			}
		}
		return nil
	}
	pace := time.NewTicker(time.Second)
	defer pace.Stop()
	crawl := func() { // a socket that does not move is given up, and on a slow machine all takes long
		select {
		case <-pace.C:
		default:
			return
		}
		for _, c := range slow {
			_ = take(c, min(taken[c]+10, small/2)) // who was closed is counted below
		}
	}
	var frozen []*client
	for i := range hostile {
		crawl()
		c := n.narrow(t, fmt.Sprintf("access_token=%s&connect=1", token(fmt.Sprint("hostile", i/10))))
		c.expect("connected")
		frozen = append(frozen, c)
	}
	for _, c := range frozen {
		c.send(`{"type":"subscribe","channel":"deep:big","since":"0"}`)
	}
	await(t, func() error {
		crawl()
		if n.ended("overloaded") == 0 {
			return fmt.Errorf("memory %v", n.metric("gateway_client_memory_bytes"))
		}
		return nil
	})
	await(t, func() error { // also what was given up has come back
		crawl()
		if held := n.metric("gateway_client_memory_bytes"); held > memory {
			return fmt.Errorf("%v bytes are held", held)
		}
		return nil
	})
	lost := 0
	for _, c := range slow {
		if take(c, small) != nil {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d clients that hold little were closed", lost, slowOnes)
	}
}
