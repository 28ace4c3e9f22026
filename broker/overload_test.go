package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"wssgateway/broker/redistest"
)

// A link is deaf only if its reader was free to hear (finding B1).
func TestBusyReaderIsNotDeaf(t *testing.T) {
	t.Parallel()
	stolen := redistest.TimeStolen(t)
	n := startNode(t, redistest.Start(t).Client(t), "", "a")
	sink := &slowSink{recorder: newRecorder(), takes: 2 * silence}
	s, err := n.Subscribe(t.Context(), "room", true, sink)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n.publish(t, "room", "x", keep)
	eventually(t, "the message is delivered", func() bool {
		if err := n.Ready(silence + stolen()); err != nil {
			t.Fatalf("with a reader that is held up: %v", err)
		}
		return len(sink.all()) == 1
	})
	for _, reason := range []reopenReason{reopenSilent, reopenLost} {
		if got := n.metric(t, "gateway_link_reopenings_total", "reason", string(reason)); got > 0 && stolen() < probeEvery {
			t.Errorf("opened again %v times, %s", got, reason)
		}
	}
}

// slowSink holds up who delivers.
type slowSink struct {
	*recorder
	takes time.Duration
}

func (s *slowSink) Deliver(m Message) {
	<-time.After(s.takes)
	s.recorder.Deliver(m)
}

// Probes do not wait behind what a node has to publish, however much that is
// (findings B1, N2).
func TestProbesPassTheQueue(t *testing.T) {
	t.Parallel()
	stolen := redistest.TimeStolen(t)
	s := redistest.Start(t)
	n := startNode(t, s.Client(t), "", "a")
	ctx, stop := context.WithTimeout(t.Context(), 3*silence)
	defer stop()
	var queued sync.WaitGroup
	for range batchWorkers * 4 { // each holds up a pipeline as long as it may take
		queued.Go(func() {
			for ctx.Err() == nil {
				_, _ = n.lanes[0].batch.do(ctx, "BLPOP", "nothing", 3)
			}
		})
	}
	for range 4 * batchQueue { // the queue is full, all the time
		queued.Go(func() {
			for ctx.Err() == nil {
				_, _ = n.Publish(ctx, Publication{Channel: "room", Payload: []byte("x"), Retention: small})
			}
		})
	}
	tick := time.NewTicker(probeEvery / 4)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		if err := n.Ready(silence + stolen()); err != nil {
			t.Errorf("not ready: %v", err)
			break
		}
	}
	stop()
	queued.Wait()
	if got := n.metric(t, "gateway_link_reopenings_total", "reason", string(reopenSilent)); got > 0 && stolen() < probeEvery {
		t.Errorf("the link was opened again %v times", got)
	}
}

// What silence is counted by is not the clock that people set (finding B5), and
// not the time in which the node stood still.
func TestSilenceIsCountedByNoWallClock(t *testing.T) {
	var h hearing
	h.heard()
	if !strings.Contains(h.at.String(), "m=") {
		t.Errorf("counted from %v, which has no monotonic part", h.at)
	}
	synctest.Test(t, func(t *testing.T) {
		var h hearing
		if h.silence() < time.Hour {
			t.Error("nothing was ever heard")
		}
		h.heard()
		<-time.After(5 * time.Second)
		h.stoodStill(3 * time.Second)
		if got := h.silence(); got != 2*time.Second {
			t.Errorf("silent for %v, want 2s", got)
		}
	})
}

// While the link is away, clients that try again and again leave nothing behind
// (finding B2).
func TestAttemptsWithoutLinkLeaveNothing(t *testing.T) {
	t.Parallel()
	s, away := redistest.Start(t), redistest.Start(t)
	away.Kill()
	proxy := redistest.NewProxy(t, s.Addr())
	n := startNode(t, split{s.Client(t), dial(t, proxy.Addr())}, "", "a")
	n.subscribe(t, "before")
	proxy.SetTarget(away.Addr())
	proxy.Cut()
	eventually(t, "the link is down", func() bool { return n.metric(t, "gateway_links_up") == 0 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 1000 {
		if _, err := n.Subscribe(ctx, room(i%500), true, newRecorder()); !errors.Is(err, context.Canceled) {
			t.Fatalf("Subscribe: %v", err)
		}
	}
	l := n.lanes[0]
	l.mu.Lock()
	defer l.mu.Unlock()
	if left := len(l.changed) + len(l.subs) + len(l.closing); left > 2 { // "before", subscribed to and perhaps to be again
		t.Errorf("%d entries left by attempts", left)
	}
}

// What all channels together keep while they are in doubt is bounded, and what it
// costs beside the payloads counts (finding B4). What did not fit is in the stream.
func TestBacklogOfAllChannelsIsBounded(t *testing.T) {
	for _, tt := range []struct{ size, messages int }{{0, queueMessages}, {1 << 20, 3}} {
		t.Run(fmt.Sprint(tt.size), func(t *testing.T) {
			b := New(dial(t, "127.0.0.1:0"), Config{Logger: logger(t)})
			payload := strings.Repeat("x", tt.size)
			var subs []*Subscription
			for i := range 1000 {
				s := &Subscription{name: room(i), history: true, sink: newRecorder(), lane: b.lanes[0], queue: queue{backlog: &b.backlog}}
				subs = append(subs, s)
				for id := range uint64(tt.messages) {
					s.receive(Message{ID: ID{MS: 1, Seq: id + 1}, Prev: ID{MS: 1, Seq: id}, Payload: payload})
				}
			}
			queued := 0
			for _, s := range subs {
				queued += len(s.queue.messages)
			}
			if limit := backlogBytes / (tt.size + messageBytes); queued == 0 || queued > limit {
				t.Errorf("%d messages of %d bytes are queued, want %d at most", queued, tt.size, limit)
			}
			for _, s := range subs {
				s.Close()
			}
			if left := b.backlog.bytes.Load(); left != 0 {
				t.Errorf("%d bytes are taken by nothing", left)
			}
		})
	}
}
