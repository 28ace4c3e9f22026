package lab_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/redis/go-redis/v9"

	"wssgateway/client"
	"wssgateway/examples/lab"
)

const (
	lease  = 6 * time.Second
	window = 4 * time.Second
	room   = "who:1"
	// enough is what a test may take in all. It builds the program, which may take as
	// long as the rest of it.
	enough = 4 * time.Minute
)

var deadNodeConfig = fmt.Sprintf(`
lease: %s
heartbeat: 1s
resume_window: %s
events: true
drain_delay: 0s
drain_timeout: 10s
classes: {who: {presence: true}}
`, lease, window)

// TestNodeThatIsKilled: of its clients some come back, and find their session
// on another node at once; of the others everybody hears, once, when their
// windows are over, and nothing of them or of the node remains.
func TestNodeThatIsKilled(t *testing.T) {
	t.Parallel()
	const returning, vanishing = 20, 20
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	defer cancel()
	l := startLab(ctx, t, "dead", "two", "three")
	dead := l.Nodes[0]
	watchers := []*watcher{watch(ctx, t, l.Nodes[1], "watcher-2"), watch(ctx, t, l.Nodes[2], "watcher-3")}
	var back, gone []*visitor
	for i := range returning {
		back = append(back, visit(ctx, t, fmt.Sprint("back-", i), dead, l.Nodes[1:]))
	}
	for i := range vanishing {
		gone = append(gone, visit(ctx, t, fmt.Sprint("gone-", i), dead, nil))
	}
	rdb := redis.NewClient(&redis.Options{Network: "unix", Addr: l.Redis.Socket()})
	defer rdb.Close()
	await(ctx, t, "all are there", func() bool { return rdb.HLen(ctx, "gw:{0}:users:*presence:"+room).Val() == 2+returning+vanishing })

	killed := time.Now()
	if err := dead.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, v := range back {
		await(ctx, t, v.user+" is back", func() bool { return v.resumed.Load() > 0 })
	}
	// Up to a second of it is the client's backoff.
	t.Logf("recovered in %v: %d sessions of a killed node resumed", time.Since(killed).Round(time.Millisecond), returning)
	if took := time.Since(killed); took > lease {
		t.Errorf("sessions were resumed only after %v", took)
	}
	for _, w := range watchers {
		await(ctx, t, w.user+" has heard of all", func() bool { return w.count("-") == vanishing })
	}
	took := time.Since(killed)
	t.Logf("recovered in %v: %d leaves told (lease %v, window %v)", took.Round(time.Millisecond), vanishing, lease, window)
	if took < window || took > lease+window+5*time.Second {
		t.Errorf("leaves were told after %v", took)
	}
	await(ctx, t, "nothing is left to be told", func() bool { return rdb.ZCard(ctx, "gw:{gone}:due").Val() <= returning })
	for _, v := range gone {
		for _, w := range watchers {
			if story := w.story(v.user); story != "+-" {
				t.Errorf("%s heard of %s: %q", w.user, v.user, story)
			}
		}
	}
	for _, v := range back {
		for _, w := range watchers {
			if story := w.story(v.user); story != "+" {
				t.Errorf("%s heard of %s: %q", w.user, v.user, story)
			}
		}
		if v.resumed.Load() != 1 || v.fresh.Load() != 1 {
			t.Errorf("%s: resumed %d times, %d new sessions", v.user, v.resumed.Load(), v.fresh.Load())
		}
	}
	checkEvents(ctx, t, rdb, vanishing)
	checkRemains(ctx, t, rdb, 2+returning)
}

// checkEvents: each session that has gone was told of once, with its reason.
func checkEvents(ctx context.Context, t *testing.T, rdb *redis.Client, vanished int) {
	t.Helper()
	await(ctx, t, "events", func() bool {
		n := 0
		for _, e := range rdb.XRange(ctx, "gw:events", "-", "+").Val() {
			if e.Values["event"] == "disconnected" {
				n++
			}
		}
		return n >= vanished
	})
	connected, disconnected := map[any]int{}, map[any]int{}
	for _, e := range rdb.XRange(ctx, "gw:events", "-", "+").Val() {
		session := e.Values["session"]
		switch e.Values["event"] {
		case "connected":
			connected[session]++
		case "disconnected":
			disconnected[session]++
			if e.Values["reason"] != "node_lost" || e.Values["node"] != "dead" || !strings.HasPrefix(fmt.Sprint(e.Values["user"]), "gone-") {
				t.Errorf("event %v", e.Values)
			}
		}
	}
	if len(disconnected) != vanished {
		t.Errorf("%d sessions were told of as over, want %d", len(disconnected), vanished)
	}
	for session, n := range disconnected {
		if n != 1 || connected[session] != 1 {
			t.Errorf("session %v: %d times connected, %d times disconnected", session, connected[session], n)
		}
	}
}

// checkRemains: nothing of the dead node is left, and only who is there is there.
func checkRemains(ctx context.Context, t *testing.T, rdb *redis.Client, present int64) {
	t.Helper()
	if n := rdb.HLen(ctx, "gw:{0}:members:*presence:"+room).Val(); n != present {
		t.Errorf("%d members, want %d", n, present)
	}
	for _, key := range rdb.Keys(ctx, "gw:{node:dead|*").Val() {
		t.Errorf("left behind: %s", key)
	}
	for _, lease := range rdb.ZRange(ctx, "gw:{nodes}:lease", 0, -1).Val() {
		if strings.HasPrefix(lease, "dead|") {
			t.Errorf("lease left behind: %s", lease)
		}
	}
	if open := rdb.HLen(ctx, "gw:{gw:events}:open").Val(); open != present {
		t.Errorf("%d sessions are open, want %d", open, present)
	}
}

// visitor is a client that was on the node.
type visitor struct {
	user           string
	fresh, resumed atomic.Int32
}

// visit connects a client to a node, and to one of the others when that is dead;
// without others it vanishes.
func visit(ctx context.Context, t *testing.T, user string, first *lab.Node, others []*lab.Node) *visitor {
	t.Helper()
	v := &visitor{user: user}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		to := first
		if v.fresh.Load() > 0 {
			if len(others) == 0 {
				return nil, fmt.Errorf("%s has vanished", user)
			}
			to = others[len(user)%len(others)]
		}
		return (&net.Dialer{}).DialContext(ctx, network, to.Public)
	}
	connect(ctx, t, user, dial, client.Handler{}, func(c client.Connected) {
		if c.Resumed {
			v.resumed.Add(1)
		} else {
			v.fresh.Add(1)
		}
	})
	return v
}

// watcher hears who comes and goes: "+" and "-" by user.
type watcher struct {
	user string

	mu    sync.Mutex // guards what follows
	heard map[string]string
}

func watch(ctx context.Context, t *testing.T, n *lab.Node, user string) *watcher {
	t.Helper()
	w := &watcher{user: user, heard: make(map[string]string)}
	hear := func(what string) func(channel, user string) {
		return func(_, user string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.heard[user] += what
		}
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, n.Public)
	}
	connect(ctx, t, user, dial, client.Handler{Joined: hear("+"), Left: hear("-")}, nil)
	return w
}

func (w *watcher) story(user string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard[user]
}

// count returns of how many users something was the last that was heard.
func (w *watcher) count(last string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, story := range w.heard {
		if strings.HasSuffix(story, last) {
			n++
		}
	}
	return n
}

// connect connects a client until the test is over.
func connect(ctx context.Context, t *testing.T, user string, dial func(context.Context, string, string) (net.Conn, error),
	h client.Handler, connected func(client.Connected),
) {
	t.Helper()
	c, err := client.New("ws://gateway/ws", client.Options{
		Token: func(context.Context) (string, error) {
			return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": user, "subscribe": []string{"*"}}).SignedString([]byte(lab.Secret))
		},
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}},
		Connected:  connected,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Subscribe(room, h); err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Run(running) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", user, err)
		}
	})
	if err := c.AwaitConnected(ctx); err != nil {
		t.Fatalf("%s: %v", user, err)
	}
}

func await(ctx context.Context, t *testing.T, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		if lab.Pause(ctx, 10*time.Millisecond) != nil {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// TestDrainedNodeLeavesNothing: its sessions have moved, and it exits with 0.
func TestDrainedNodeLeavesNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	defer cancel()
	l := startLab(ctx, t, "dead", "two")
	w := watch(ctx, t, l.Nodes[1], "watcher")
	var moving []*visitor
	for i := range 20 {
		moving = append(moving, visit(ctx, t, fmt.Sprint("moving-", i), l.Nodes[0], l.Nodes[1:]))
	}
	await(ctx, t, "all have come", func() bool { return w.count("+") == 20 })
	start := time.Now()
	code, err := l.Nodes[0].Terminate()
	if took := time.Since(start); err != nil || code != 0 || took > 11*time.Second { // at the end of the drain at the latest
		t.Errorf("ended with %d after %v: %v", code, took, err)
	}
	rdb := redis.NewClient(&redis.Options{Network: "unix", Addr: l.Redis.Socket()})
	defer rdb.Close()
	checkRemains(ctx, t, rdb, 21)
	for _, v := range moving {
		if v.fresh.Load() != 1 || v.resumed.Load() != 1 || w.story(v.user) != "+" {
			t.Errorf("%s: %d new sessions, resumed %d times, and the watcher heard %q", v.user, v.fresh.Load(), v.resumed.Load(), w.story(v.user))
		}
	}
}
