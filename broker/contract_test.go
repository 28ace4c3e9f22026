package broker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
)

// backend is a kind of Redis, for two nodes that have nothing else in common.
type backend struct {
	a, b    redis.UniversalClient   // of the two nodes; a may be far away
	servers []redis.UniversalClient // straight to every server with data
	slow    bool                    // do less, as everything takes longer
}

// pair is a fresh pair of nodes on a backend, under a prefix of its own.
type pair struct {
	backend
	a, b *node
}

func startPair(t testing.TB, be backend) pair {
	t.Helper()
	prefix := strings.ReplaceAll(t.Name(), "/", ".") + ":"
	return pair{be, startNode(t, be.a, prefix, "a"), startNode(t, be.b, prefix, "b")}
}

// flush makes Redis lose everything.
func (be backend) flush(t testing.TB) {
	t.Helper()
	for _, s := range be.servers {
		if err := s.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// subscribers counts the links that are subscribed to a pub/sub channel.
func (p pair) subscribers(t testing.TB, live string) (n int64) {
	t.Helper()
	for _, s := range p.servers {
		counts := s.PubSubNumSub
		if p.b.layout.sharded {
			counts = s.PubSubShardNumSub
		}
		reply, err := counts(t.Context(), live).Result()
		if err != nil {
			t.Fatal(err)
		}
		n += reply[live]
	}
	return n
}

// testBroker is what a Broker promises, on any backend.
func testBroker(t *testing.T, be backend) {
	tests := []struct {
		name string
		test func(*testing.T, pair)
	}{
		{"a position is vouched for only if nothing after it is gone", testPositions},
		{"a position from before Redis lost its data is not vouched for", testPositionsAfterFlush},
		{"at least size and at most a tenth more is kept", testRetention},
		{"a page follows on the page before", testPages},
		{"a page is bounded in bytes", testPagesInBytes},
		{"nothing published after Subscribe returned is lost", testSubscribeThenPublish},
		{"all subscribers see one order", testOrder},
		{"a key is stored once", testIdempotency},
		{"a key counts for its channel and scope", testKeySpaces},
		{"strangers on pub/sub disturb nobody", testStrangers},
		{"what Redis has lost does not hold up what comes after", testLostQueue},
		{"churn loses and leaves nothing", testChurn},
		{"a second subscription is refused", testSubscribedTwice},
		{"a class without history is live", testLiveOnly},
		{"one channel carries messages with and without id", testMixedClasses},
		{"what is told of users alternates", testMembers},
		{"of who has left is told once, unless back", testDepartures},
		{"a late member changes nothing", testLateMembers},
		{"calls are bounded, and trimmed when acknowledged", testCalls},
		{"calls are bounded in bytes", testCallsAreBoundedInBytes},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) { tt.test(t, startPair(t, be)) })
	}
}

func TestEmbedded(t *testing.T) {
	t.Parallel()
	addr := redistest.Embedded(t).Addr()
	testBroker(t, backend{
		a: dial(t, addr), b: dial(t, addr),
		servers: []redis.UniversalClient{dial(t, addr)}, slow: true, // it compiles a script at every call
	})
}

func TestServer(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	testBroker(t, backend{a: s.Client(t), b: s.Client(t), servers: []redis.UniversalClient{s.Client(t)}})
}

func TestServerFarAway(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s.Addr())
	proxy.SetLatency(20 * time.Millisecond)
	testBroker(t, backend{
		a: dial(t, proxy.Addr()), b: s.Client(t),
		servers: []redis.UniversalClient{s.Client(t)}, slow: true,
	})
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3)
	be := backend{a: c.Client(t), b: c.Client(t)}
	for _, s := range c.Nodes {
		be.servers = append(be.servers, s.Client(t))
	}
	testBroker(t, be)
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	testBroker(t, backend{
		a: s.Client(t), b: s.Client(t),
		servers: []redis.UniversalClient{s.Master().Client(t)},
	})
}

// dial returns a client of what listens at addr, as redistest's own are.
func dial(t testing.TB, addrs ...string) redis.UniversalClient {
	t.Helper()
	c := redis.NewUniversalClient(clientOptions(addrs...))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func clientOptions(addrs ...string) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs: addrs, Protocol: 2, MaxRetries: -1, DialerRetries: 1,
		DisableIdentity: true, ContextTimeoutEnabled: true,
	}
}

// split is a client whose pub/sub links take another way than its commands.
type split struct {
	redis.UniversalClient
	link redis.UniversalClient
}

func (s split) Subscribe(ctx context.Context, channels ...string) *redis.PubSub {
	return s.link.Subscribe(ctx, channels...)
}

// room returns a fresh channel.
func room(i int) string { return fmt.Sprintf("room:%d", i) }
