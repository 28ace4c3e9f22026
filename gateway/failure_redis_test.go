package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
)

// dialRedis returns a client as the command makes it.
func dialRedis(t testing.TB, addr string) redis.UniversalClient {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{
		Addr: addr, Protocol: 2, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		DialTimeout: 2 * time.Second, ReadTimeout: 3 * time.Second, WriteTimeout: 3 * time.Second,
		PoolSize: 32, DisableIdentity: true,
	})
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// publisher publishes 1, 2, 3, … to a channel through the nodes in turn, each
// with a key, again and again until it is acknowledged.
type publisher struct {
	acked   atomic.Int64
	refused atomic.Int64 // attempts that were not acknowledged
	slowest atomic.Int64 // attempt, in nanoseconds
	stop    func() int64 // returns the last one acknowledged
}

func publishSteadily(t *testing.T, channel string, nodes ...*node) *publisher {
	p := &publisher{}
	end, done := make(chan struct{}), make(chan struct{})
	p.stop = sync.OnceValue(func() int64 { close(end); <-done; return p.acked.Load() })
	t.Cleanup(func() { p.stop() })
	go func() {
		defer close(done)
		for attempt := 0; ; attempt++ {
			n := p.acked.Load() + 1
			start := time.Now()
			body := fmt.Sprintf(`{"channel":%q,"data":%d,"key":"%s %d"}`, channel, n, t.Name(), n)
			if nodes[attempt%len(nodes)].tryPublish(body) {
				p.acked.Store(n)
			} else {
				p.refused.Add(1)
			}
			p.slowest.Store(max(p.slowest.Load(), int64(time.Since(start))))
			select {
			case <-end:
				return
			default:
			}
		}
	}()
	return p
}

// tryPublish reports whether a publish was acknowledged.
func (n *node) tryPublish(body string) bool {
	req, err := http.NewRequest("POST", n.api+"/v1/publish", strings.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("Authorization", "Bearer "+testAPIKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}

// follower is a client that reads one channel all the time.
type follower struct {
	t       *testing.T
	user    string
	channel string
	at      atomic.Int64 // the last number it got
	resets  atomic.Int64

	mu     sync.Mutex // guards what follows
	frames []frame
	err    error // that ended the connection
}

func (n *node) follow(t *testing.T, user, channel string) *follower {
	t.Helper()
	c, _ := n.connect(t, user, "channel="+channel)
	f := &follower{t: t, user: user, channel: channel}
	go func() {
		for {
			fr, err := c.readLong()
			f.mu.Lock()
			if err != nil {
				f.err = err
				f.mu.Unlock()
				return
			}
			if fr.str("channel") == channel {
				f.frames = append(f.frames, fr)
				if n, ok := fr["data"].(float64); ok {
					f.at.Store(int64(n))
				} else {
					f.resets.Add(1)
				}
			}
			f.mu.Unlock()
		}
	}()
	return f
}

// readLong is read without a limit of time.
func (c *client) readLong() (frame, error) {
	_, b, err := c.conn.Read(context.Background())
	if err != nil {
		return nil, err
	}
	f := frame{}
	return f, json.Unmarshal(b, &f)
}

// awaitFollowers waits until all have got the message n.
func awaitFollowers(t *testing.T, n int64, followers ...*follower) {
	t.Helper()
	await(t, func() error {
		for i, f := range followers {
			f.mu.Lock()
			err := f.err
			f.mu.Unlock()
			if err != nil {
				t.Fatalf("follower %d: connection ended: %v", i, err)
			}
			if at := f.at.Load(); at < n {
				return fmt.Errorf("follower %d has got %d of %d", i, at, n)
			}
		}
		return nil
	})
}

// check fails unless the follower got 1, 2, 3, … each once; with resets, also
// if something is missing right before one.
func (f *follower) check(resets bool) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	at, reset := 0, false
	for i, fr := range f.frames {
		if fr.str("type") == "reset" {
			if reset = true; !resets {
				f.t.Fatalf("frame %d after message %d: %v", i, at, fr)
			}
			continue
		}
		n := int(fr["data"].(float64))
		// One that was stored, lost and then stored again has come twice.
		if n != at+1 && !(reset && n >= at) {
			f.t.Fatalf("%s: frame %d: message %d came after %d; then %v", f.user, i, n, at, f.frames[i:min(i+5, len(f.frames))])
		}
		at, reset = n, false
	}
}

// checkEnd fails unless what came after the last reset is what is stored.
func (f *follower) checkEnd(stored []string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	from := ""
	var got, want []string
	for _, fr := range f.frames {
		if fr.str("type") == "reset" {
			from, got = fr.str("last"), nil
			continue
		}
		got = append(got, fr.str("id"))
	}
	for _, id := range stored {
		if from == "" || newer(id, from) {
			want = append(want, id)
		}
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("after the last reset (%s): %d messages came, %d are stored", from, len(got), len(want))
	}
}

// readyz returns the status of the endpoint.
func (n *node) readyz() int {
	resp, err := http.Get(n.public + "/readyz")
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

func (n *node) awaitReadyz(t *testing.T, want int) time.Duration {
	t.Helper()
	start := time.Now()
	await(t, func() error {
		if got := n.readyz(); got != want {
			return fmt.Errorf("%s: /readyz is %d, want %d", n.name, got, want)
		}
		return nil
	})
	return time.Since(start)
}

// followed starts two nodes with followers on both, and a publisher.
func followed(t *testing.T, a, b *node) (*publisher, []*follower) {
	const channel = "deep:1"
	followers := []*follower{
		a.follow(t, "alice", channel), a.follow(t, "bob", channel), b.follow(t, "carol", channel), b.follow(t, "dave", channel),
	}
	p := publishSteadily(t, channel, a, b)
	awaitFollowers(t, 10, followers...)
	return p, followers
}

func TestKilledLinks(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := startNode(t, "a", dialRedis(t, s.Addr()), deep), startNode(t, "b", dialRedis(t, s.Addr()), deep)
	p, followers := followed(t, a, b)
	const kills = 20
	for killed := 0; killed < kills; {
		killed += min(1, s.KillPubSub())
		awaitFollowers(t, p.acked.Load()+20, followers...)
	}
	awaitFollowers(t, p.stop(), followers...)
	for _, f := range followers {
		f.check(false)
		f.checkEnd(stored(t, dialRedis(t, s.Addr()), "deep:1"))
	}
	if n := a.metric("gateway_link_reopenings_total"); n == 0 {
		t.Error("no link was opened again")
	}
	t.Logf("%d messages, %d attempts refused, repairs: %v", p.acked.Load(), p.refused.Load(), a.metric("gateway_channel_repairs_total"))
}

// TestRedisAway stops Redis until all have noticed, and has it come back with its
// data.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	a, b := startNode(t, "a", dialRedis(t, s.Addr()), deep), startNode(t, "b", dialRedis(t, s.Addr()), deep)
	p, followers := followed(t, a, b)

	s.Kill()
	early := a.dial(t, "access_token="+token("erin")+"&connect=1")
	if took := a.awaitReadyz(t, http.StatusServiceUnavailable); took > 10*time.Second {
		t.Errorf("/readyz took %v to fail", took)
	}
	b.awaitReadyz(t, http.StatusServiceUnavailable)
	early.expectError("unavailable")
	early.expectClose(websocket.StatusTryAgainLater)
	late := a.dial(t, "access_token="+token("erin"))
	start := time.Now()
	late.send(`{"type":"connect","ref":1}`)
	if f := late.expectError("unavailable"); f["ref"] != 1.0 || time.Since(start) > answersWithin {
		t.Errorf("got %v after %v", f, time.Since(start))
	}
	late.expectClose(websocket.StatusTryAgainLater)
	status, answer := a.call(t, "POST", "/v1/publish", `{"channel":"deep:2","data":1}`)
	if problem, _ := answer.(map[string]any); status != http.StatusServiceUnavailable || problem["code"] != "unavailable" {
		t.Errorf("publish: %d %v", status, answer)
	}

	s.Restart()
	back := time.Now()
	a.awaitReadyz(t, http.StatusOK)
	b.awaitReadyz(t, http.StatusOK)
	awaitFollowers(t, p.acked.Load()+10, followers...)
	recovered(t, back, "Redis was restarted with its data")
	awaitFollowers(t, p.stop(), followers...)
	for _, f := range followers {
		f.check(false)
		f.checkEnd(stored(t, dialRedis(t, s.Addr()), "deep:1"))
	}
	if slowest := time.Duration(p.slowest.Load()); slowest > answersWithin || p.refused.Load() == 0 {
		t.Errorf("%d publishes were refused, the slowest took %v", p.refused.Load(), slowest)
	}
}

// TestRedisLosesItsData restarts Redis empty, and flushes it.
func TestRedisLosesItsData(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	for name, lose := range map[string]func(){
		"restart":  s.Restart,
		"flushall": func() { s.CLI("FLUSHALL") },
		"killed links too": func() {
			s.KillPubSub()
			s.CLI("FLUSHALL")
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := startNode(t, "a", dialRedis(t, s.Addr()), deep), startNode(t, "b", dialRedis(t, s.Addr()), deep)
			defer a.stop()
			defer b.stop()
			p, followers := followed(t, a, b)
			lose()
			start := time.Now()
			awaitFollowers(t, p.acked.Load()+50, followers...)
			recovered(t, start, "Redis lost its data: "+name)
			awaitFollowers(t, p.stop(), followers...)
			for i, f := range followers {
				f.check(true)
				f.checkEnd(stored(t, dialRedis(t, s.Addr()), "deep:1"))
				if f.resets.Load() == 0 {
					t.Errorf("follower %d was told nothing", i)
				}
			}
		})
	}
}

// TestSessionsSurviveLostData: what the registry lost is written back.
func TestSessionsSurviveLostData(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := startNode(t, "a", dialRedis(t, s.Addr())), startNode(t, "b", dialRedis(t, s.Addr()))
	old, hello := a.connect(t, "alice", "channel=open:1")
	s.CLI("FLUSHALL")
	await(t, func() error {
		_, answer := b.call(t, "GET", "/v1/users/alice", "")
		if sessions, _ := answer.(map[string]any)["sessions"].([]any); len(sessions) != 1 {
			return fmt.Errorf("%v", answer)
		}
		return nil
	})
	_, again := b.connect(t, "alice", "session="+hello.str("session"))
	if again["resumed"] != true {
		t.Errorf("got %v", again)
	}
	old.expectClose(4002)
}

// TestBlackHole has one node's way to Redis swallow everything until it has
// noticed, while the other goes on.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s.Addr())
	a, b := startNode(t, "a", dialRedis(t, s.Addr()), deep), startNode(t, "b", dialRedis(t, proxy.Addr()), deep)
	followers := []*follower{a.follow(t, "alice", "deep:1"), b.follow(t, "bob", "deep:1"), b.follow(t, "carol", "deep:1")}
	p := publishSteadily(t, "deep:1", a)
	awaitFollowers(t, 10, followers...)

	proxy.Blackhole(true)
	start := time.Now()
	if b.tryPublish(`{"channel":"deep:2","data":1}`) || time.Since(start) > answersWithin {
		t.Errorf("publish through the black hole was answered after %v", time.Since(start))
	}
	b.awaitReadyz(t, http.StatusServiceUnavailable)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("/readyz took %v to fail", took)
	}
	if a.readyz() != http.StatusOK {
		t.Error("the other node is not ready")
	}
	<-time.After(20*time.Second - time.Since(start)) // longer than anything that waits for Redis
	proxy.Blackhole(false)
	start = time.Now()

	b.awaitReadyz(t, http.StatusOK)
	awaitFollowers(t, p.stop(), followers...)
	recovered(t, start, "a black hole of 20 s")
	for _, f := range followers {
		f.check(false)
		f.checkEnd(stored(t, dialRedis(t, s.Addr()), "deep:1"))
	}
}
