package gateway_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"testing"
	"time"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
	"wssgateway/session"
)

// TestManySessionsEndAtOnce: what it takes to tell of them does not grow with their
// number, a server that hangs holds up no leave on the others, and what it held up is
// told when it is back.
func TestManySessionsEndAtOnce(t *testing.T) {
	c, hung := startCluster(t)
	rdb := c.Client(t)
	n := startNode(t, "a", rdb, func(cfg *gateway.Config) { cfg.Lease, cfg.Heartbeat = time.Minute, time.Second })
	healthy := beside(c, hung, "who:", laneTag, membersTag)
	held := on(c, hung, "who:h", laneTag, membersTag)
	observer, _ := n.connect(t, beside(c, hung, "o", userTag), "channel="+healthy+"&channel="+held)
	addGhosts(t, rdb, healthy, "dave")
	addGhosts(t, rdb, held, "dave", "erin")
	gone := []session.Gone{{ID: "s_dave", User: "dave", Channels: []string{healthy, held}}}
	for i := range 5000 {
		name := strconv.Itoa(i)
		gone = append(gone, session.Gone{ID: "s_" + name, User: name, Channels: []string{held, "plain:1", held + "b", healthy}})
	}
	gone = append(gone, session.Gone{ID: "s_erin", User: "erin", Channels: []string{held}})

	hung.Pause()
	resume := hung.Resume
	defer func() { resume() }()
	peak, err := goroutinesOf(t, func(ctx context.Context) error { return n.Gone(ctx, gone) })
	if peak > 5000 { // 256 for each of 16 lanes, and some for what else there is
		t.Errorf("%d goroutines", peak)
	}
	untold, _ := errors.AsType[session.Untold](err)
	if untold["s_dave"] == nil || untold["s_erin"] == nil || untold["s_0"] == nil {
		t.Errorf("not said to be untold: %v", err)
	}
	expectLeaves(t, observer, healthy+" dave")

	hung.Resume()
	resume = func() {}
	await(t, func() error { return n.Gone(t.Context(), gone) })
	expectLeaves(t, observer, held+" dave", held+" erin")
	if left := rdb.HLen(t.Context(), "gw:"+membersTag(held)+":members:*presence:"+held).Val(); left != 1 {
		t.Errorf("%d members are left, want the observer alone", left)
	}
}

// on returns a name, of which all keys are on one server.
func on(c *redistest.Cluster, server *redistest.Server, prefix string, keys ...func(name string) string) string {
next:
	for i := 0; ; i++ {
		name := prefix + strconv.Itoa(i)
		for _, key := range keys {
			if serverOf(c, "gw:"+key(name)) != server {
				continue next
			}
		}
		return name
	}
}

// goroutinesOf runs f for as long as a handler of ended sessions has, and returns how
// many goroutines there were meanwhile at the most.
func goroutinesOf(t *testing.T, f func(context.Context) error) (peak int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	done := make(chan error)
	go func() { done <- f(ctx) }()
	for {
		select {
		case err := <-done:
			return peak, err
		case <-time.After(time.Millisecond):
			peak = max(peak, runtime.NumGoroutine())
		}
	}
}

// expectLeaves returns when these have left, each told of once: "who:1 alice".
func expectLeaves(t *testing.T, observer *client, want ...string) {
	t.Helper()
	left := make(map[string]bool)
	for range want {
		f := observer.expect("leave")
		left[f.str("channel")+" "+f.str("user")] = true
	}
	for _, w := range want {
		if !left[w] {
			t.Errorf("left: %v, want %q", left, want)
		}
	}
}
