package session_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"wssgateway/broker/redistest"
	"wssgateway/session"
)

const (
	window = 2 * time.Minute // of the nodes under test
	grave  = time.Minute     // for which a session that is over is kept
	ended  = time.Hour       // for which it is remembered that one was disconnected
)

func TestMain(m *testing.M) {
	logging.Disable() // the client's; nodes without Redis would fill the screen
	os.Exit(m.Run())
}

// cluster is nodes on one embedded Redis in a bubble of fake time.
type cluster struct {
	t     *testing.T
	redis *miniredis.Miniredis
	rdb   redis.UniversalClient // the test's own way to Redis
	nodes []*node
}

// inCluster runs test in a bubble. At its end all nodes stop, and once every
// window is over nothing may be left in Redis.
func inCluster(t *testing.T, test func(t *testing.T, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := redistest.InMemory(t)
		c := &cluster{t: t, redis: m, rdb: redistest.EmbeddedClient(t, m)}
		test(t, c)
		for _, n := range c.nodes {
			n.stop()
		}
		pass(10 * time.Second)
		nobody := func(context.Context, []session.Gone) error { return nil }
		sweeper := c.startWith(session.Config{Node: "sweeper", Gone: nobody})
		pass(10*time.Second + window)
		sweeper.stop()
		pass(grave)
		c.rdb.Del(context.Background(), "gw:{gone}:epoch", "gw:{gw:events}:epoch") // stay
		remembered := func(key string) bool { return strings.HasSuffix(key, "}:ended") }
		if keys := slices.DeleteFunc(c.keys(), remembered); len(keys) > 0 {
			t.Errorf("left behind in Redis: %q", keys)
		}
		pass(ended)
		if keys := c.keys(); len(keys) > 0 {
			t.Errorf("left behind in Redis: %q", keys)
		}
	})
}

// pass lets d of the bubble's time pass and everything due in it happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (c *cluster) keys() []string {
	c.t.Helper()
	keys, err := c.rdb.Keys(context.Background(), "*").Result()
	if err != nil {
		c.t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

// node is one running registry with its own way to Redis.
type node struct {
	*session.Registry
	t      testing.TB
	rdb    redis.UniversalClient
	prefix string
	link   *link
	stop   func()
}

func (c *cluster) start(name string) *node {
	return c.startWith(session.Config{Node: name})
}

func (c *cluster) startWith(cfg session.Config) *node {
	l := &link{dialer: c.redis.Dial}
	n := run(c.t, l.client(c.t), cfg)
	n.link = l
	c.nodes = append(c.nodes, n)
	synctest.Wait() // it has its lease
	return n
}

// run starts a node; it stops, at the latest, when the test ends.
func run(t testing.TB, rdb redis.UniversalClient, cfg session.Config) *node {
	t.Helper()
	cfg.Prefix = cmp.Or(cfg.Prefix, "gw:")
	cfg.ResumeWindow = window
	n := &node{Registry: session.New(rdb, cfg), t: t, rdb: rdb, prefix: cfg.Prefix}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// held is a claimed session and what its holder was told.
type held struct {
	session.Claimed
	lost     atomic.Int32 // how often
	restored atomic.Int32 // how often
	why      atomic.Value // session.Loss
}

func (h *held) SessionLost(why session.Loss) {
	h.lost.Add(1)
	h.why.Store(why)
}

func (h *held) SessionRestored() { h.restored.Add(1) }

// expectLost fails the test unless the holder was told once, and why.
func (h *held) expectLost(t *testing.T, why session.Loss) {
	t.Helper()
	equal(t, "holder told", h.lost.Load(), 1)
	equal(t, "why", h.why.Load(), any(why))
}

// alice is a claim by a browser of hers; wanted may be empty.
func alice(wanted string) session.Claim {
	return session.Claim{User: "alice", Wanted: wanted, Device: "my phone", Client: "web", IP: "192.0.2.1"}
}

func (n *node) try(c session.Claim) (*held, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	h := &held{}
	c.Holder = h
	var err error
	h.Claimed, err = n.Claim(ctx, c)
	return h, err
}

func (n *node) claim(c session.Claim) *held {
	n.t.Helper()
	h, err := n.try(c)
	if err != nil {
		n.t.Fatalf("claim: %v", err)
	}
	return h
}

// online returns the ids of alice's connected sessions.
func (n *node) online() []string {
	n.t.Helper()
	return n.onlineOf("alice")
}

func (n *node) onlineOf(users ...string) (ids []string) {
	n.t.Helper()
	for _, user := range users {
		infos, err := n.User(context.Background(), user)
		if err != nil {
			n.t.Fatalf("user: %v", err)
		}
		for _, i := range infos {
			ids = append(ids, i.ID)
		}
	}
	return ids
}

func (n *node) names() []string {
	n.t.Helper()
	infos, err := n.Nodes(context.Background())
	if err != nil {
		n.t.Fatalf("nodes: %v", err)
	}
	var names []string
	for _, i := range infos {
		names = append(names, i.Name)
	}
	return names
}

// equal fails the test unless got is want.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func equalSlices(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// link is a node's way to Redis, which a test can break.
type link struct {
	dialer func() (net.Conn, error)

	mu    sync.Mutex
	down  bool
	deaf  bool
	delay time.Duration // of what is sent
	conns []net.Conn
}

func (l *link) client(t testing.TB) redis.UniversalClient {
	rdb := redis.NewClient(&redis.Options{
		Addr: "in memory", MaxRetries: -1, ContextTimeoutEnabled: true, DialerRetries: 1,
		// Without it the client looks up its address, outside the bubble.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		Dialer:                   func(context.Context, string, string) (net.Conn, error) { return l.dial() },
	})
	t.Cleanup(func() {
		l.mend()
		_ = rdb.Close()
		time.Sleep(2 * time.Second) // the client dials on for that long
	})
	return rdb
}

func (l *link) dial() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, errors.New("the link is down")
	}
	conn, err := l.dialer()
	if err != nil {
		return nil, err
	}
	c := &linkConn{Conn: conn, link: l, queue: make(chan []byte, 1024)}
	l.conns = append(l.conns, c)
	go func() {
		for b := range c.queue {
			l.wait()
			_, _ = conn.Write(b) // fails once closed
		}
	}()
	return c, nil
}

// cut closes the connections and lets no more through until mend.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

// deafen loses every answer from now until mend.
func (l *link) deafen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = true
}

// slow has what is sent take so long, each time, until mend.
func (l *link) slow(delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = delay
}

func (l *link) wait() {
	l.mu.Lock()
	delay := l.delay
	l.mu.Unlock()
	time.Sleep(delay)
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down, l.deaf, l.delay = false, false, 0
}

// linkConn takes what is written without waiting for the reader, as a socket
// does and the embedded Redis's pipe does not: a pipeline would block it.
type linkConn struct {
	net.Conn
	link   *link
	queue  chan []byte
	mu     sync.Mutex // guards closed, and the queue against a late write
	closed bool
}

func (c *linkConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	c.queue <- bytes.Clone(b)
	return len(b), nil
}

func (c *linkConn) SetWriteDeadline(time.Time) error { return nil }

func (c *linkConn) Close() error {
	err := c.Conn.Close() // first: it frees a write that hangs
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.queue)
	}
	return err
}

func (c *linkConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		c.link.mu.Lock()
		deaf := c.link.deaf
		c.link.mu.Unlock()
		if err != nil || !deaf {
			return n, err
		}
	}
}
