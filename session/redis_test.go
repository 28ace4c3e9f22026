package session_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
	"wssgateway/session"
)

// TestEveryRedis runs with two nodes on every kind of Redis, in real time, what
// depends on Redis itself: that scripts are atomic, find their keys and are found.
func TestEveryRedis(t *testing.T) {
	clients := map[string]func(t *testing.T) redis.UniversalClient{
		"embedded": func(t *testing.T) redis.UniversalClient {
			rdb := redis.NewClient(&redis.Options{Addr: redistest.Embedded(t).Addr(), MaxRetries: -1})
			t.Cleanup(func() { _ = rdb.Close() })
			return rdb
		},
		"server":  func(t *testing.T) redis.UniversalClient { return redistest.Start(t).Client(t) },
		"cluster": func(t *testing.T) redis.UniversalClient { return redistest.StartCluster(t, 3).Client(t) },
	}
	tests := map[string]func(t *testing.T, a, b *node){
		"concurrent claims leave one owner": concurrentClaimsLeaveOneOwner,
		"limit holds over all nodes":        limitHoldsOverAllNodes,
		"session moves and is left":         sessionMovesAndIsLeft,
		"what is left behind expires":       whatIsLeftBehindExpires,
		"the end is told":                   theEndIsTold,
		"disconnects and claims":            disconnectsAndClaimsLeaveOneTruth,
		"scripts are loaded again":          scriptsAreLoadedAgain,
	}
	for kind, client := range clients {
		t.Run(kind, func(t *testing.T) {
			rdb := client(t)
			for name, test := range tests {
				t.Run(name, func(t *testing.T) {
					// Each test has its own keys.
					prefix := strings.ReplaceAll(name, " ", "-") + ":"
					test(t, run(t, rdb, session.Config{Prefix: prefix, Node: "a"}),
						run(t, rdb, session.Config{Prefix: prefix, Node: "b"}))
				})
			}
		})
	}
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// atOnce runs n calls of do at the same time.
func atOnce(n int, do func(i int)) {
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-start
			do(i)
		})
	}
	close(start)
	all.Wait()
}

func concurrentClaimsLeaveOneOwner(t *testing.T, a, b *node) {
	const claims = 50
	nodes := map[session.NodeID]*node{a.Node(): a, b.Node(): b}
	id := a.claim(alice("")).Session.ID
	all := make([]*held, claims)
	atOnce(claims, func(i int) {
		n := []*node{a, b}[i%2]
		h, err := n.try(alice(id))
		if err != nil {
			t.Errorf("claim: %v", err)
			return
		}
		all[i] = h
		if p := h.Previous; p != nil {
			nodes[p.Node].Evict(p.Session, p.Generation)
		}
	})
	if t.Failed() {
		return
	}
	slices.SortFunc(all, func(x, y *held) int { return int(x.Session.Generation) - int(y.Session.Generation) })
	for i, h := range all {
		equal(t, "resumed", h.Resumed, true)
		equal(t, "generation", h.Session.Generation, uint64(i+2))
	}
	last := all[claims-1]
	eventually(t, "all but one lost", func() bool { return a.Sessions()+b.Sessions() == 1 })
	for _, h := range all[:claims-1] {
		equal(t, "told", h.lost.Load(), 1)
	}
	equal(t, "owner told", last.lost.Load(), 0)
	infos, err := a.User(t.Context(), "alice")
	if err != nil || len(infos) != 1 {
		t.Fatalf("user: %v %v", infos, err)
	}
	equal(t, "generation", infos[0].Owner.Generation, last.Session.Generation)
}

func limitHoldsOverAllNodes(t *testing.T, a, b *node) {
	claim := alice("")
	claim.Limit = 10
	var granted, refused sync.Map
	atOnce(100, func(i int) {
		_, err := []*node{a, b}[i%2].try(claim)
		switch {
		case err == nil:
			granted.Store(i, true)
		case errors.Is(err, session.ErrLimit):
			refused.Store(i, true)
		default:
			t.Errorf("claim: %v", err)
		}
	})
	count := func(m *sync.Map) (n int) {
		m.Range(func(any, any) bool { n++; return true })
		return n
	}
	equal(t, "granted", count(&granted), 10)
	equal(t, "refused", count(&refused), 90)
	equal(t, "held", a.Sessions()+b.Sessions(), 10)
	equal(t, "online", len(a.online()), 10)
}

func sessionMovesAndIsLeft(t *testing.T, a, b *node) {
	h := a.claim(alice(""))
	h.Session.SetChannels([]string{"room:42"})
	eventually(t, "channels written", func() bool {
		infos, err := b.User(t.Context(), "alice")
		return err == nil && len(infos) == 1 && slices.Equal(infos[0].Channels, []string{"room:42"})
	})
	moved := b.claim(alice(h.Session.ID))
	equal(t, "previous", *moved.Previous, session.Owner{Node: a.Node(), Session: h.Session.ID, Generation: 1})
	equalSlices(t, "nodes", b.names(), []string{"a", "b"})
	moved.Session.Leave(time.Minute, "test")
	eventually(t, "left", func() bool { return len(a.online()) == 0 })
	again := a.claim(alice(h.Session.ID))
	equal(t, "generation", again.Session.Generation, 3)
	equal(t, "previous", again.Previous, nil)

	b.stop()
	a.stop() // sweeps what it still holds
	c := run(t, a.rdb, session.Config{Prefix: a.prefix, Node: "c"})
	equal(t, "resumed", c.claim(alice(h.Session.ID)).Resumed, true)
	equalSlices(t, "nodes", c.names(), []string{"c"})
}

func whatIsLeftBehindExpires(t *testing.T, a, b *node) {
	for range 5 {
		h := a.claim(alice(""))
		b.claim(alice(h.Session.ID)).Session.End("test")
		a.claim(alice("")).Session.Leave(50*time.Millisecond, "test")
	}
	a.stop()
	b.stop()
	eventually(t, "what is left expires", func() bool {
		for _, key := range allKeys(t, a.rdb, a.prefix) {
			if ttl := a.rdb.PTTL(t.Context(), key).Val(); ttl < 0 || ttl > grave {
				return false
			}
		}
		return true
	})
}

func theEndIsTold(t *testing.T, a, b *node) {
	w := &witness{}
	tells := func(name string) *node {
		return run(t, a.rdb, session.Config{Prefix: a.prefix + "told:", Node: name, Gone: w.gone, Events: true})
	}
	c, d := tells("c"), tells("d")
	h := c.claim(alice(""))
	moved := d.claim(alice(h.Session.ID))
	c.Evict(h.Session.ID, h.Session.Generation)
	moved.Session.Leave(100*time.Millisecond, "lost")
	eventually(t, "told", func() bool { return len(w.ids()) > 0 })
	eventually(t, "two events", func() bool { return a.rdb.XLen(t.Context(), a.prefix+"told:events").Val() == 2 })
	refs := []session.Ref{{User: "alice", ID: h.Session.ID}, {User: "alice", ID: c.claim(alice("")).Session.ID}}
	alive, err := c.Alive(t.Context(), refs)
	if err != nil || !slices.Equal(alive, []bool{false, true}) {
		t.Errorf("alive: %v, %v", alive, err)
	}
	c.stop()
	d.stop()
	equalSlices(t, "told", w.ids(), []string{h.Session.ID})
}

func allKeys(t *testing.T, rdb redis.UniversalClient, prefix string) (keys []string) {
	t.Helper()
	var mu sync.Mutex
	collect := func(ctx context.Context, c *redis.Client) error {
		k, err := c.Keys(ctx, prefix+"*").Result()
		mu.Lock()
		defer mu.Unlock()
		keys = append(keys, k...)
		return err
	}
	var err error
	switch c := rdb.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(t.Context(), collect)
	case *redis.Client:
		err = collect(t.Context(), c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func scriptsAreLoadedAgain(t *testing.T, a, b *node) {
	a.claim(alice(""))
	if err := a.rdb.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	h := b.claim(alice(""))
	equal(t, "resumed", a.claim(alice(h.Session.ID)).Resumed, true)
	equal(t, "online", len(a.online()), 2)
}

// A Redis that was frozen goes on with what it had received, in any order.
func TestClaimThatRedisComesToLateIsNotDone(t *testing.T) {
	server := redistest.Start(t)
	rdb := server.Client(t)
	a := run(t, rdb, session.Config{Node: "a"})
	old := a.claim(alice(""))
	old.Session.Leave(time.Minute, "test")
	eventually(t, "left", func() bool { return len(a.online()) == 0 })

	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	atOnce(10, func(i int) {
		c := alice([]string{"", old.Session.ID}[i%2])
		c.Holder = &held{}
		if _, err := a.Claim(ctx, c); err == nil {
			t.Error("claimed from a frozen Redis")
		}
	})
	server.Resume()
	equal(t, "resumed", a.claim(alice(old.Session.ID)).Resumed, true)
	equal(t, "generation", a.claim(alice(old.Session.ID)).Session.Generation, 3)
	equal(t, "online", len(a.online()), 1)
}
