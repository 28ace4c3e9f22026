package gateway_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
)

// recovered logs how long something took to be as before.
func recovered(t *testing.T, since time.Time, what string) {
	t.Helper()
	t.Logf("recovered in %v: %s", time.Since(since).Round(time.Millisecond), what)
}

var errWaiting = errors.New("not yet")

// reopenings returns how many links to Redis the node has opened again.
func (n *node) reopenings(t *testing.T) (total float64) {
	t.Helper()
	families, err := n.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "gateway_link_reopenings_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			total += m.GetCounter().GetValue()
		}
	}
	return total
}

// awaitMore waits until a publisher has had n more messages acknowledged.
func (p *publisher) awaitMore(t *testing.T, n int64) {
	t.Helper()
	want := p.acked.Load() + n
	await(t, func() error {
		if p.acked.Load() < want {
			return errWaiting
		}
		return nil
	})
}

// awaitRefused waits until a publisher has been refused n times more.
func (p *publisher) awaitRefused(t *testing.T, n int64) {
	t.Helper()
	want := p.refused.Load() + n
	await(t, func() error {
		if p.refused.Load() < want {
			return errWaiting
		}
		return nil
	})
}

// TestSlowRedis is 200 ms away: everything is slow, and nothing is taken for dead.
func TestSlowRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s.Addr())
	a, b := startNode(t, "a", dialRedis(t, proxy.Addr()), deep), startNode(t, "b", dialRedis(t, s.Addr()), deep)
	p, followers := followed(t, a, b)
	proxy.SetLatency(200 * time.Millisecond)
	start := time.Now()
	refused := p.refused.Load()
	for time.Since(start) < 8*time.Second {
		p.awaitMore(t, 2)
		if a.readyz() != http.StatusOK {
			t.Error("a node with a slow Redis is not ready")
		}
	}
	if p.refused.Load() > refused {
		t.Errorf("%d publishes were refused", p.refused.Load()-refused)
	}
	t.Logf("the slowest publish took %v", time.Duration(p.slowest.Load()).Round(time.Millisecond))
	if n := a.reopenings(t); n > 0 {
		t.Errorf("%v links were given up", n)
	}
	proxy.SetLatency(0)
	awaitFollowers(t, p.stop(), followers...)
	recovered(t, start.Add(8*time.Second), "Redis was 200 ms away, each way")
	for _, f := range followers {
		f.check(false)
	}
}

// TestFullRedis refuses writes for a while: publishes fail, connections stay.
func TestFullRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := startNode(t, "a", dialRedis(t, s.Addr()), deep), startNode(t, "b", dialRedis(t, s.Addr()), deep)
	p, followers := followed(t, a, b)
	s.CLI("CONFIG", "SET", "maxmemory", "1mb")
	p.awaitRefused(t, 20)
	if slowest := time.Duration(p.slowest.Load()); slowest > answersWithin {
		t.Errorf("a publish was answered after %v", slowest)
	}
	s.CLI("CONFIG", "SET", "maxmemory", "0")
	start := time.Now()
	p.awaitMore(t, 20)
	recovered(t, start, "Redis was full")
	awaitFollowers(t, p.stop(), followers...)
	for _, f := range followers {
		f.check(false)
		f.checkEnd(stored(t, dialRedis(t, s.Addr()), "deep:1"))
	}
}

// TestEvictingRedis throws away what it likes: what is lost is told, and nothing
// comes twice or out of order.
func TestEvictingRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := startNode(t, "a", dialRedis(t, s.Addr()), deep), startNode(t, "b", dialRedis(t, s.Addr()), deep)
	p, followers := followed(t, a, b)
	s.CLI("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
	s.CLI("CONFIG", "SET", "maxmemory", "1mb") // less than it uses: every write evicts
	p.awaitRefused(t, 1)
	s.CLI("CONFIG", "SET", "maxmemory", "0")
	start := time.Now()
	p.awaitMore(t, 50)
	recovered(t, start, "Redis had evicted keys")
	awaitFollowers(t, p.stop(), followers...)
	for _, f := range followers {
		f.check(true)
	}
}

// TestReadOnlyRedis is what a node sees whose master became a replica: its
// publishes fail, and it is told so, until there is a master again.
func TestReadOnlyRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := startNode(t, "a", dialRedis(t, s.Addr()), deep), startNode(t, "b", dialRedis(t, s.Addr()), deep)
	p, followers := followed(t, a, b)
	s.CLI("CONFIG", "SET", "replica-serve-stale-data", "yes")
	s.CLI("REPLICAOF", "127.0.0.1", "1") // nobody is there: it keeps its data
	p.awaitRefused(t, 20)
	if slowest := time.Duration(p.slowest.Load()); slowest > answersWithin {
		t.Errorf("a publish was answered after %v", slowest)
	}
	s.CLI("REPLICAOF", "NO", "ONE")
	start := time.Now()
	p.awaitMore(t, 20)
	recovered(t, start, "the master was a replica for a while")
	awaitFollowers(t, p.stop(), followers...)
	for _, f := range followers {
		f.check(false)
		f.checkEnd(stored(t, dialRedis(t, s.Addr()), "deep:1"))
	}
}

// TestFailoverThatLosesMessages: the replica that takes over has not got the last
// messages. What is lost is told, ids go on growing, and nothing is repeated.
func TestFailoverThatLosesMessages(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	behind := redistest.NewProxy(t, master.Addr()) // the replica's way to it
	replica := redistest.StartReplicaOf(t, behind.Addr())
	proxy := redistest.NewProxy(t, master.Addr())
	a, b := startNode(t, "a", dialRedis(t, proxy.Addr()), deep), startNode(t, "b", dialRedis(t, proxy.Addr()), deep)
	p, followers := followed(t, a, b)
	behind.Blackhole(true)
	p.awaitMore(t, 50)
	awaitFollowers(t, p.acked.Load(), followers...)
	_, hello := a.connect(t, "late", "channel=deep:1")
	position := hello.channel("deep:1").str("last")
	replica.CLI("REPLICAOF", "NO", "ONE")
	proxy.SetTarget(replica.Addr())
	master.Kill()
	proxy.Cut()
	start := time.Now()
	p.awaitMore(t, 20)
	recovered(t, start, "a failover lost the last messages")
	awaitFollowers(t, p.stop(), followers...)
	for _, f := range followers {
		f.check(true)
		if f.resets.Load() == 0 {
			t.Error("what was lost was not told")
		}
	}
	if _, hello := b.connect(t, "late", "channel=deep:1@"+position); hello.channel("deep:1")["recovered"] != false {
		t.Errorf("a position that is lost: %v", hello.channel("deep:1"))
	}
}

// TestHalfOpenLink: Redis's answers no longer come, and nobody says so.
func TestHalfOpenLink(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s.Addr())
	a, b := startNode(t, "a", dialRedis(t, s.Addr()), deep), startNode(t, "b", dialRedis(t, proxy.Addr()), deep)
	followers := []*follower{a.follow(t, "alice", "deep:1"), b.follow(t, "bob", "deep:1")}
	p := publishSteadily(t, "deep:1", a)
	awaitFollowers(t, 10, followers...)
	proxy.SwallowAnswers(true)
	p.awaitMore(t, 50)
	b.awaitReadyz(t, http.StatusServiceUnavailable)
	proxy.SwallowAnswers(false)
	start := time.Now()
	b.awaitReadyz(t, http.StatusOK)
	awaitFollowers(t, p.stop(), followers...)
	recovered(t, start, "a link was half open")
	for _, f := range followers {
		f.check(false)
		f.checkEnd(stored(t, dialRedis(t, s.Addr()), "deep:1"))
	}
}

// TestDurableClass: without a replica a publish fails, and says why.
func TestDurableClass(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	n := startNode(t, "a", dialRedis(t, s.Addr()), func(cfg *gateway.Config) {
		open := cfg.Classes["open"]
		open.Durable = true
		cfg.Classes["open"] = open
	})
	c, _ := n.connect(t, "alice", "channel=open:1")
	c.send(`{"type":"publish","ref":1,"channel":"open:1","data":1,"key":"k"}`)
	c.expect("message")
	if f := c.expectError("unavailable"); f.str("message") != "published, but no replica has it, so that it may still be lost; try again with the same key" {
		t.Errorf("%v", f)
	}
	redistest.StartReplica(t, s)
	c.send(`{"type":"publish","ref":2,"channel":"open:1","data":1,"key":"k"}`)
	c.expect("published")
	c.quiet()
}
