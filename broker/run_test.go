package broker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"wssgateway/broker/redistest"
)

func TestRunLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine stays
		n := startNode(t, redistest.EmbeddedClient(t, redistest.InMemory(t)), "", "a")
		r := n.subscribe(t, "room")
		id := n.publish(t, "room", "x", keep)
		r.waitFor(t, id)
		begin := time.Now()
		n.stop()
		if took := time.Since(begin); took > 0 {
			t.Errorf("Run returned %v after its context was done", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Publish(ctx, Publication{Channel: "room", Retention: keep}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("publish after Run: %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestRunReturnsPromptlyWithManySubscriptions(t *testing.T) {
	t.Parallel()
	n := startNode(t, redistest.Start(t).Client(t), "", "a")
	for i := range 1000 {
		n.subscribe(t, room(i))
	}
	begin, stolen := time.Now(), redistest.TimeStolen(t)
	n.stop()
	if took := time.Since(begin); took > time.Second+stolen() {
		t.Errorf("Run returned %v after its context was done", took)
	}
}

func TestSubscribeWithoutRedisLeavesNothing(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	n := startNode(t, s.Client(t), "", "a")
	s.Kill()
	for i := range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := n.Subscribe(ctx, room(i), true, newRecorder()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Subscribe: %v, want %v", err, context.DeadlineExceeded)
		}
		cancel()
	}
	n.lanes[0].mu.Lock()
	if left := len(n.lanes[0].subs); left > 0 {
		t.Errorf("%d subscriptions left", left)
	}
	n.lanes[0].mu.Unlock()

	s.Restart()
	n.subscribe(t, room(0))
	if got := s.CLI("PUBSUB", "CHANNELS", "live:*"); got != "live:"+room(0) {
		t.Errorf("subscribed to %q, want one room", got)
	}
}

func TestNodeWaitsForRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Kill()
	n := newNode(t, s.Client(t), "", "a")
	if err := n.Ready(patience); !errors.Is(err, ErrDeaf) {
		t.Errorf("Ready without Redis: %v, want %v", err, ErrDeaf)
	}
	s.Restart()
	eventually(t, "the node is ready", func() bool { return n.Ready(patience) == nil })
	if got := n.metric(t, "gateway_links_up"); got != 1 {
		t.Errorf("%v links up", got)
	}
}

func TestReadyOnlyWhileProbesComeBack(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	idle := New(s.Client(t), Config{Node: "idle", Logger: logger(t)})
	if err := idle.Ready(patience); !errors.Is(err, ErrDeaf) {
		t.Errorf("Ready before Run: %v, want %v", err, ErrDeaf)
	}
	n := startNode(t, s.Client(t), "", "a")
	s.Pause()
	eventually(t, "a paused Redis is noticed", func() bool { return errors.Is(n.Ready(2*time.Second), ErrDeaf) })
	s.Resume()
	eventually(t, "the node is ready again", func() bool { return n.Ready(2*time.Second) == nil })
}
