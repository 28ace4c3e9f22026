package gateway_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
)

// TestDrainHandsClientsOver goes through what a balancer and clients see of a
// node that goes, when all follow the protocol.
func TestDrainHandsClientsOver(t *testing.T) {
	t.Parallel()
	const delay, timeout = 4 * time.Second, 14 * time.Second
	stolen := redistest.TimeStolen(t)
	a, b := startTwo(t, func(cfg *gateway.Config) { cfg.DrainDelay, cfg.DrainTimeout = delay, timeout })
	const clients = 40
	var connected []*client
	var sessions []string
	for i := range clients {
		c, hello := a.connect(t, fmt.Sprintf("user%d", i), "channel=open:1")
		connected, sessions = append(connected, c), append(sessions, hello.str("session"))
	}

	start := time.Now()
	stopped := make(chan time.Time, 1)
	go func() { a.stop(); stopped <- time.Now() }()
	a.awaitReadyz(t, http.StatusServiceUnavailable)
	if took := time.Since(start); took > delay/4+stolen() {
		t.Errorf("/readyz failed only after %v", took)
	}
	late, hello := a.connect(t, fmt.Sprintf("user%d", clients), "") // balancers have not noticed yet
	connected, sessions = append(connected, late), append(sessions, hello.str("session"))

	var mu sync.Mutex
	var moves []time.Duration
	var wg sync.WaitGroup
	for i, c := range connected {
		wg.Go(func() {
			f := c.expect("goaway")
			after, deadline := f.milliseconds("after_ms"), f.milliseconds("deadline_ms")
			if f.str("reason") != "drain" || deadline < after+500*time.Millisecond-stolen() || deadline > timeout {
				t.Errorf("goaway %v", f)
			}
			mu.Lock()
			moves = append(moves, time.Since(start)+after)
			mu.Unlock()
			<-time.After(after)
			moved, hello := b.connect(t, fmt.Sprintf("user%d", i), "channel=open:1&session="+sessions[i])
			if hello["resumed"] != true {
				t.Errorf("user%d: %v", i, hello)
			}
			if code, _ := c.closeCode(); code != 4002 && (code != 1012 || stolen() < time.Second) {
				t.Errorf("user%d: closed with %d", i, code)
			}
			moved.send(`{"type":"ping","ref":1}`)
			moved.expect("pong")
		})
	}
	a.expectRefused(t)
	if early := time.Since(start); early < delay {
		t.Errorf("refused after %v already", early)
	}
	wg.Wait()
	last := time.Now()
	slices.Sort(moves)
	// The window is what is left of the timeout, less a tenth for the exit.
	step := (timeout - delay) * 9 / 10 * 85 / 100 / (clients + 1)
	for i, move := range moves {
		if want := delay + time.Duration(i)*step; move < want-50*time.Millisecond || move > want+time.Second+stolen() {
			t.Errorf("the move number %d is at %v, want %v", i, move, want)
		}
	}
	if late := (<-stopped).Sub(last); late > time.Second+stolen() {
		t.Errorf("stopped %v after the last client had moved", late)
	}
	if n := a.ended("moved"); n != clients+1 && stolen() < time.Second {
		t.Errorf("%v connections moved", n)
	}
}

// TestDrainClosesWhoDoesNotMove: evenly too, and without waiting for anybody.
func TestDrainClosesWhoDoesNotMove(t *testing.T) {
	t.Parallel()
	const timeout = 6 * time.Second
	stolen := redistest.TimeStolen(t)
	a, b := startTwo(t, func(cfg *gateway.Config) {
		cfg.DrainDelay, cfg.DrainTimeout = 0, timeout
		cfg.AuthTimeout = time.Minute // who never connects is the drain's to close
	})
	for i := range 5 { // they never read
		a.connectBare(t, fmt.Sprintf("frozen%d", i), "")
	}
	a.dial(t, "") // it never connects
	const clients = 20
	var connected []*client
	var sessions []string
	for i := range clients {
		c, hello := a.connect(t, fmt.Sprintf("user%d", i), "channel=open:1")
		connected, sessions = append(connected, c), append(sessions, hello.str("session"))
	}
	start := time.Now()
	stopped := make(chan time.Time, 1)
	go func() { a.stop(); stopped <- time.Now() }()
	var mu sync.Mutex
	var ends []time.Duration
	var wg sync.WaitGroup
	for i, c := range connected {
		wg.Go(func() {
			f := c.expect("goaway")
			deadline := time.Since(start) + f.milliseconds("deadline_ms")
			c.expectClose(1012)
			end := time.Since(start)
			if end < deadline-20*time.Millisecond-stolen() || end > deadline+time.Second+stolen() {
				t.Errorf("closed at %v, was told %v", end, deadline)
			}
			mu.Lock()
			ends = append(ends, end)
			mu.Unlock()
			if _, hello := b.connect(t, fmt.Sprintf("user%d", i), "session="+sessions[i]); hello["resumed"] != true {
				t.Errorf("user%d: %v", i, hello)
			}
		})
	}
	wg.Wait()
	if spread := slices.Max(ends) - slices.Min(ends); spread < timeout/2-stolen() {
		t.Errorf("all closed within %v", spread)
	}
	if took := (<-stopped).Sub(start); took > timeout+200*time.Millisecond+stolen() {
		t.Errorf("took %v", took)
	}
	if n := a.ended("drain"); n != clients+5+1 && stolen() < time.Second {
		t.Errorf("%v connections ended by the drain", n)
	}
	if live := b.user(t, "frozen1"); live["online"] != false {
		t.Errorf("the registry has %v", live)
	}
}

// milliseconds returns a field that is a time.
func (f frame) milliseconds(key string) time.Duration {
	ms, _ := f[key].(float64)
	return time.Duration(ms) * time.Millisecond
}

// expectRefused waits until the node refuses connections. It asks without making
// one, which the drain would count.
func (n *node) expectRefused(t *testing.T) {
	t.Helper()
	await(t, func() error {
		resp, err := http.Get(n.public + "/ws")
		if err != nil {
			t.Fatalf("gone before it refused: %v", err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusUpgradeRequired {
			return fmt.Errorf("accepting")
		}
		if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != http.StatusServiceUnavailable || err != nil || after < 1 {
			t.Errorf("refused with %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
		return nil
	})
}

func TestOldConnectionsAreAskedToMove(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t), func(cfg *gateway.Config) { cfg.MaxAge = 10 * time.Second })
	start, stolen := time.Now(), redistest.TimeStolen(t)
	c, hello := n.connect(t, "alice", "")
	f := c.expect("goaway")
	if age := time.Since(start); f.str("reason") != "rebalance" || age < 10*time.Second || age > 11500*time.Millisecond+stolen() {
		t.Errorf("%v after %v", f, age)
	}
	if f.milliseconds("after_ms") > time.Second || f.milliseconds("deadline_ms") < 10*time.Second {
		t.Errorf("goaway %v", f)
	}
	if _, again := n.connect(t, "alice", "session="+hello.str("session")); again["resumed"] != true {
		t.Errorf("%v", again)
	}
	c.expectClose(4002)
}

func TestRebalanceAsksAShareToMove(t *testing.T) {
	t.Parallel()
	a, b := startTwo(t, func(cfg *gateway.Config) { cfg.DrainTimeout = 3 * time.Second })
	var connected []*client
	for i := range 20 {
		c, _ := a.connect(t, fmt.Sprintf("user%d", i), "")
		connected = append(connected, c)
	}
	status, answer := b.call(t, "POST", "/v1/nodes/a/rebalance?share=0.3", "")
	if f := frame(answer.(map[string]any)); status != http.StatusAccepted || f.str("node") != "a" {
		t.Fatalf("%d %v", status, answer)
	}
	var wg sync.WaitGroup
	var asked, closed, left atomic.Int32
	for _, c := range connected {
		wg.Go(func() {
			c.send(`{"type":"ping"}`)
			f, err := c.read()
			switch {
			case err != nil:
				left.Add(1) // the test is over
			case f.str("type") == "goaway" && f.str("reason") == "rebalance":
				asked.Add(1)
				c.expectClose(1012) // it does not move
				closed.Add(1)
			default:
				t.Errorf("got %v", f)
			}
		})
	}
	await(t, func() error {
		if n := closed.Load(); n != 6 {
			return fmt.Errorf("%d have been closed", n)
		}
		return nil
	})
	for _, c := range connected {
		c.conn.CloseNow()
	}
	wg.Wait()
	if asked.Load() != 6 || left.Load() != 14 {
		t.Errorf("%d were asked, %d were not", asked.Load(), left.Load())
	}
	await(t, func() error { // it is counted behind the close frame
		if n := a.ended("rebalance"); n != 6 {
			return fmt.Errorf("%v connections ended by the rebalance", n)
		}
		return nil
	})
	for path, want := range map[string]int{
		"/v1/nodes/nobody/rebalance?share=0.3": 404, "/v1/nodes/a/rebalance": 400, "/v1/nodes/a/rebalance?share=0": 400,
		"/v1/nodes/a/rebalance?share=1.1": 400, "/v1/nodes/a/rebalance?share=NaN": 400,
	} {
		if status, answer := b.call(t, "POST", path, ""); status != want {
			t.Errorf("%s: %d %v", path, status, answer)
		}
	}
}

// TestDrainOfNobody is over with the delay.
func TestDrainOfNobody(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t), func(cfg *gateway.Config) {
		cfg.DrainDelay, cfg.DrainTimeout = 100*time.Millisecond, time.Minute
	})
	start := time.Now()
	n.stop()
	if took := time.Since(start); took < 100*time.Millisecond || took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestDrainWithoutRedis: a node can go while Redis is away.
func TestDrainWithoutRedis(t *testing.T) {
	t.Parallel()
	m := redistest.Start(t)
	n := startNode(t, "a", dialRedis(t, m.Addr()))
	c, _ := n.connect(t, "alice", "channel=open:1")
	m.Kill()
	stopped := make(chan struct{})
	go func() { n.stop(); close(stopped) }()
	c.expectClose(1012)
	select {
	case <-stopped:
	case <-time.After(patience):
		t.Error("does not end")
	}
}
