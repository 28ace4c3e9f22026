package gateway_test

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
)

// TestDrain goes through what a balancer and clients see of a node that goes,
// with peers among them that never answer.
func TestDrain(t *testing.T) {
	t.Parallel()
	a, b := startTwo(t, func(cfg *gateway.Config) {
		cfg.DrainDelay, cfg.DrainTimeout = 800*time.Millisecond, 6*time.Second
	})
	const clients = 20
	for i := range 5 { // they never read
		a.connectBare(t, fmt.Sprintf("frozen%d", i), "")
	}
	var connected []*client
	sessions := make([]string, clients)
	for i := range clients {
		c, hello := a.connect(t, fmt.Sprintf("user%d", i), "channel=open:1")
		connected, sessions[i] = append(connected, c), hello.str("session")
	}

	start := time.Now()
	var took time.Duration
	stopped := make(chan struct{})
	go func() { a.stop(); took = time.Since(start); close(stopped) }()
	a.awaitReadyz(t, http.StatusServiceUnavailable)
	if time.Since(start) > 700*time.Millisecond {
		t.Errorf("/readyz failed only after %v", time.Since(start))
	}
	late, hello := a.connect(t, "late", "") // balancers have not noticed yet
	connected, sessions = append(connected, late), append(sessions, hello.str("session"))

	await(t, func() error { // then it refuses
		c, resp, err := a.tryDial(t, "")
		if err == nil {
			c.conn.CloseNow()
			return fmt.Errorf("accepted")
		}
		if resp == nil {
			t.Fatalf("gone before it refused: %v", err)
		}
		if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != http.StatusServiceUnavailable || err != nil || after < 1 {
			t.Errorf("refused with %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
		return nil
	})
	if early := time.Since(start); early < 800*time.Millisecond {
		t.Errorf("refused after %v already", early)
	}

	var wg sync.WaitGroup
	for _, c := range connected {
		wg.Go(func() { c.expectClose(1012) })
	}
	wg.Wait()
	for i, session := range sessions {
		user := fmt.Sprintf("user%d", i)
		if i == clients {
			user = "late"
		}
		if _, hello := b.connect(t, user, "session="+session); hello["resumed"] != true {
			t.Errorf("%s: %v", user, hello)
		}
	}
	select {
	case <-stopped:
		t.Error("the node was gone before its frozen peers had their time")
	default:
	}
	<-stopped
	if took > 7*time.Second {
		t.Errorf("took %v", took)
	}
	if n := a.ended("drain"); n != clients+1+5 {
		t.Errorf("%v connections ended by the drain", n)
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
