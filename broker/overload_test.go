package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"wssgateway/broker/redistest"
)

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
