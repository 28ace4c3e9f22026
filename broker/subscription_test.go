package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wssgateway/broker/redistest"
)

func testSubscribeThenPublish(t *testing.T, p pair) {
	const workers = 16
	rounds := 2000
	if p.slow {
		rounds = 200
	}
	stolen := redistest.TimeStolen(t)
	work := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range work {
				err := p.subscribeThenPublish(t, room(i))
				if err != nil && stolen() < time.Second { // else Redis had no time to answer
					t.Error(err)
				}
			}
		})
	}
	for i := range rounds {
		work <- i
	}
	close(work)
	wg.Wait()
	// What the link had lost, a comparison would have found later, and counted.
	repairs := p.a.metric(t, "gateway_channel_repairs_total", "reason", string(repairGap)) +
		p.a.metric(t, "gateway_channel_repairs_total", "reason", string(repairSuspect))
	reopened := p.a.metric(t, "gateway_link_reopenings_total", "reason", string(reopenSilent))
	if repairs > 0 && reopened == 0 {
		t.Errorf("%v channels had lost their message", repairs)
	}
}

// subscribeThenPublish runs on a goroutine of its own. An error is one of Redis's.
func (p pair) subscribeThenPublish(t *testing.T, channel string) error {
	r := newRecorder()
	s, err := p.a.Subscribe(t.Context(), channel, true, r)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	defer s.Close()
	id, err := p.b.Publish(t.Context(), Publication{Channel: channel, Payload: []byte("x"), Retention: keep})
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for s.Last() != id {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if s.Last() == id {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Errorf("%s on %s was lost", id, channel)
			return nil
		}
	}
	if events := r.all(); len(events) != 1 || events[0].reset || events[0].ID != id {
		t.Errorf("%s: got %+v, want message %s", channel, events, id)
	}
	return nil
}

func testSubscribedTwice(t *testing.T, p pair) {
	s, err := p.a.Subscribe(t.Context(), "room", true, newRecorder())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.a.Subscribe(t.Context(), "room", true, newRecorder()); !errors.Is(err, ErrSubscribed) {
		t.Errorf("second Subscribe: %v, want %v", err, ErrSubscribed)
	}
	r := p.b.subscribe(t, "room")
	s.Close()
	s.Close()
	again := p.a.subscribe(t, "room")
	id := p.b.publish(t, "room", "x", keep)
	again.waitFor(t, id)
	r.waitFor(t, id)
}

// testChurn opens and closes subscriptions on few channels from many goroutines
// while all of them are published to.
func testChurn(t *testing.T, p pair) {
	const channels, workers, publishers = 4, 8, 4
	rounds := 500
	if p.slow {
		rounds = 40
	}
	ctx, stop := context.WithCancel(t.Context())
	var publishing, churning sync.WaitGroup
	for i := range publishers {
		publishing.Go(func() {
			for ctx.Err() == nil {
				_, err := p.b.Publish(ctx, Publication{Channel: room(i), Payload: []byte("x"), Retention: small})
				if err != nil && ctx.Err() == nil {
					t.Errorf("publish: %v", err)
				}
			}
		})
	}
	for w := range workers {
		churning.Go(func() {
			for i := range rounds / workers {
				p.churn(t, room((w+i)%channels), i%2 == 0)
			}
		})
	}
	churning.Wait()
	stop()
	publishing.Wait()
	for i := range channels {
		live := p.b.layout.live(room(i))
		eventually(t, "nobody is subscribed to "+live, func() bool { return p.subscribers(t, live) == 0 })
	}
	for _, l := range p.a.lanes {
		eventually(t, fmt.Sprintf("lane %d keeps nothing", l.number), func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.subs)+len(l.closing)+len(l.changed) == 0
		})
	}
}

// churn subscribes, checks that what it publishes comes, and closes; now and
// then it is gone before Redis has confirmed. It runs on a goroutine of its own.
func (p pair) churn(t *testing.T, channel string, impatient bool) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if impatient {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.IntN(3000))*time.Microsecond)
		defer cancel()
	}
	r := newRecorder()
	s, err := p.a.Subscribe(ctx, channel, true, r)
	switch {
	case errors.Is(err, ErrSubscribed):
		return // another goroutine has it open
	case impatient && errors.Is(err, context.DeadlineExceeded):
		return
	case err != nil:
		t.Errorf("subscribe: %v", err)
		return
	}
	id, err := p.b.Publish(t.Context(), Publication{Channel: channel, Payload: []byte("x"), Retention: small})
	if err != nil {
		t.Errorf("publish: %v", err)
	}
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		events, changed := slices.Clone(r.events), r.changed
		r.mu.Unlock()
		if n := len(events); n > 0 && events[n-1].ID.Compare(id) >= 0 {
			break
		}
		select {
		case <-changed:
		case <-timeout:
			t.Errorf("%s on %s was lost", id, channel)
			return
		}
	}
	s.Close()
	events := r.all()
	if resets(events) != 0 {
		t.Errorf("%d resets", resets(events))
	}
	checkStory(t, events, []ID{id})
}

func testStrangers(t *testing.T, p pair) {
	onA, onB := p.a.subscribe(t, "room"), p.b.subscribe(t, "room")
	live := p.b.layout.live("room")
	send := func(payload string) {
		t.Helper()
		if err := p.b.rdb.Do(t.Context(), p.b.publishCommand(), live, payload).Err(); err != nil {
			t.Fatal(err)
		}
	}
	const tick = `{"event":"tick","data":{}}`
	huge := strings.Repeat("x", 4<<20)
	garbage := []string{
		"\x01", "\x01garbage", "\x01\n", "\x01 \n", "\x01" + huge, "\x01" + huge + "\n",
		"\x01007-0 0-0 1\nx",                    // not as Redis writes it
		"\x01-7-0 0-0 1\nx",                     //
		"\x017 0-0 1\nx",                        //
		"\x0199999999999999999999-0 0-0 1\nx",   //
		"\x017-0 0-0\nx",                        // no time
		"\x017-0 0-0 now\nx",                    //
		"\x017-0 0-0 99999999999999999999\nx\n", //
	}
	first := p.b.publish(t, "room", "first", keep)
	send(tick)
	for _, g := range garbage {
		send(g)
	}
	send("")
	send("\x02" + huge)
	send("\x010-0 0-0 1700000000000000 field of a later version\nlive")
	second := p.b.publish(t, "room", "second", keep)

	want := []string{"first", tick, "", "\x02" + huge, "live", "second"}
	for _, r := range []*recorder{onA, onB} {
		events := r.waitCount(t, len(want))
		if !slices.Equal(payloads(events), want) || events[0].ID != first || events[5].ID != second {
			t.Errorf("delivered %d events, want %d in their order", len(events), len(want))
		}
		for i, e := range events {
			if foreign := i >= 1 && i <= 3; e.Foreign != foreign || e.reset {
				t.Errorf("event %d: foreign %t, reset %t", i, e.Foreign, e.reset)
			}
		}
	}
	for _, n := range []*node{p.a, p.b} {
		if got := n.metric(t, "gateway_link_malformed_total"); int(got) != len(garbage) {
			t.Errorf("%v malformed, want %d", got, len(garbage))
		}
		if got := n.metric(t, "gateway_channel_repairs_total", "reason", string(repairGap)); got != 0 {
			t.Errorf("%v repairs, want none", got)
		}
	}
}

// testLostQueue delivers a long run of messages that the stream does not have,
// as a node sees them that waits for one message when Redis loses them all.
func testLostQueue(t *testing.T, p pair) {
	r := newRecorder()
	s, err := p.a.Subscribe(t.Context(), "room", true, r)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first := p.b.publish(t, "room", "first", keep)
	r.waitFor(t, first)
	pipe := p.b.rdb.Pipeline()
	for i := range uint64(500) {
		prev, id := ID{first.MS, first.Seq + i + 1}, ID{first.MS, first.Seq + i + 2}
		envelope := fmt.Sprintf("\x01%s %s 1700000000000000\nlost", id, prev)
		pipe.Do(t.Context(), p.b.publishCommand(), p.b.layout.live("room"), envelope)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wait(t, "the loss is told", func(events []event) bool { return resets(events) > 0 })
	eventually(t, "the channel is live again", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.state == live
	})
	second := p.b.publish(t, "room", "second", keep)
	events := r.waitFor(t, second)
	checkStory(t, events, []ID{first, second})
	if resets(events) > 3 {
		t.Errorf("%d resets for one loss", resets(events))
	}
}

// A node may have asked Redis where a channel stands before its link was lost
// again: the answer says nothing about what came meanwhile.
func TestStaleHeadSettlesNothing(t *testing.T) {
	b := New(dial(t, "127.0.0.1:0"), Config{Logger: logger(t)})
	s := &Subscription{name: "room", history: true, sink: newRecorder(), lane: b.lanes[0], ready: make(chan struct{}), queue: queue{backlog: &b.backlog}}
	head := head{id: ID{7, 0}, exists: true}
	settle := func() state {
		s.settle(head)
		return s.state
	}
	s.doubt()
	s.ask()
	s.doubt() // confirmed by the next link
	if got := settle(); got != pending {
		t.Errorf("settled by an answer from before: state %d, want pending", got)
	}
	s.ask()
	if got := settle(); got != live {
		t.Errorf("state %d, want live", got)
	}
	s.doubt()
	s.ask()
	s.doubt()
	if got := settle(); got != suspect {
		t.Errorf("settled by an answer from before: state %d, want suspect", got)
	}
	s.ask()
	if got := settle(); got != live {
		t.Errorf("state %d, want live", got)
	}
}
