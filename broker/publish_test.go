package broker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
)

func testOrder(t *testing.T, p pair) {
	const publishers = 8
	count := 100
	if p.slow {
		count = 20
	}
	onA, onB := p.a.subscribe(t, "room"), p.b.subscribe(t, "room")
	published := make([][]ID, publishers)
	var wg sync.WaitGroup
	for i := range publishers {
		wg.Go(func() {
			n := []*node{p.a, p.b}[i%2]
			for j := range count {
				id, err := n.Publish(t.Context(), Publication{
					Channel: "room", Payload: fmt.Append(nil, i, ".", j), Retention: keep,
				})
				if err != nil {
					t.Errorf("publish: %v", err)
				}
				published[i] = append(published[i], id)
			}
		})
	}
	wg.Wait()
	all := slices.Concat(published...)
	for _, list := range published {
		if !slices.IsSortedFunc(list, ID.Compare) {
			t.Error("ids of one publisher do not ascend")
		}
	}
	a, b := onA.waitCount(t, len(all)), onB.waitCount(t, len(all))
	if !slices.Equal(payloads(a), payloads(b)) || !slices.Equal(ids(a), ids(b)) {
		t.Error("two nodes saw different sequences")
	}
	checkStory(t, a, all)
	if len(a) != len(all) || resets(a) != 0 {
		t.Errorf("%d events with %d resets, want %d messages", len(a), resets(a), len(all))
	}
}

func testIdempotency(t *testing.T, p pair) {
	r := p.a.subscribe(t, "room")
	before := p.b.publish(t, "room", "before", keep)
	same := Publication{
		Channel: "room", Payload: []byte("once"), Retention: keep, Key: "k-1", Scope: "alice",
	}
	got := make([]ID, 50)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = []*node{p.a, p.b}[i%2].Publish(t.Context(), same); err != nil {
				t.Errorf("publish: %v", err)
			}
		})
	}
	wg.Wait()
	after := p.b.publish(t, "room", "after", keep)

	for _, id := range got {
		if id != got[0] {
			t.Errorf("one key got %s and %s", got[0], id)
		}
	}
	want := []ID{before, got[0], after}
	if events := r.waitFor(t, after); !slices.Equal(ids(events), want) {
		t.Errorf("delivered %v, want %v", ids(events), want)
	}
	if id, err := p.a.Publish(t.Context(), same); err != nil || id != got[0] {
		t.Errorf("later retry = %s, %v, want %s", id, err, got[0])
	}
}

func testKeySpaces(t *testing.T, p pair) {
	publications := []Publication{
		{Channel: "room", Scope: "alice", Key: "k"},
		{Channel: "room", Scope: "bob", Key: "k"},
		{Channel: "room", Scope: "", Key: "k"},
		{Channel: "room", Scope: "", Key: "alice k"},
		{Channel: "hall", Scope: "alice", Key: "k"},
		{Channel: "room", Scope: "alice"},
		{Channel: "room", Scope: "alice"},
	}
	first := make(map[ID]bool)
	for _, pub := range publications {
		pub.Payload, pub.Retention = []byte("x"), keep
		id, err := p.a.Publish(t.Context(), pub)
		if err != nil {
			t.Fatal(err)
		}
		first[id] = true
		if pub.Key == "" {
			continue
		}
		if again, err := p.b.Publish(t.Context(), pub); err != nil || again != id {
			t.Errorf("%s %q %q again = %s, %v, want %s", pub.Channel, pub.Scope, pub.Key, again, err, id)
		}
		ttl, err := p.b.rdb.PTTL(t.Context(), p.b.layout.key(pub.Channel, pub.Scope, pub.Key)).Result()
		if err != nil || ttl > keyTTL || ttl < keyTTL-patience {
			t.Errorf("the key is kept for %v, %v", ttl, err)
		}
	}
	kept, err := p.a.Read(t.Context(), "room", ID{}, 100)
	if err != nil || len(kept) != len(publications)-1 {
		t.Errorf("%d messages in the room, %v, want %d", len(kept), err, len(publications)-1)
	}
}

func testLiveOnly(t *testing.T, p pair) {
	live := Retention{}
	r := newRecorder()
	s, err := p.a.Subscribe(t.Context(), "tick", false, r)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	begin := time.Now()
	for i := range 50 {
		if id := p.b.publish(t, "tick", fmt.Sprint(i), live); !id.IsZero() {
			t.Fatalf("published as %s, want no id", id)
		}
	}
	for i, e := range r.waitCount(t, 50) {
		if e.reset || !e.ID.IsZero() || e.Foreign || e.Payload != fmt.Sprint(i) {
			t.Errorf("event %d is %+v", i, e)
		}
		if e.At.Before(begin.Add(-time.Second)) || e.At.After(time.Now().Add(time.Second)) {
			t.Errorf("stamped %v", e.At)
		}
	}
	n, err := p.b.rdb.Exists(t.Context(), p.b.layout.stream("tick")).Result()
	if err != nil || n != 0 {
		t.Errorf("%d streams, %v, want none", n, err)
	}
}

// testMixedClasses has nodes that do not agree on a class, as they may for a
// while when its configuration changes.
func testMixedClasses(t *testing.T, p pair) {
	for i := range 3 {
		p.b.publish(t, "room", fmt.Sprint("old", i), keep)
	}
	with, without := p.a.subscribe(t, "room"), newRecorder()
	s, err := p.b.Subscribe(t.Context(), "room", false, without)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := []string{"live", "kept", "live", "kept"}
	for i, payload := range want {
		p.b.publish(t, "room", payload, []Retention{{}, keep}[i%2])
	}
	for name, r := range map[string]*recorder{"with": with, "without": without} {
		events := r.waitCount(t, len(want))
		if !slices.Equal(payloads(events), want) || resets(events) != 0 {
			t.Errorf("%s history: %v, %d resets", name, payloads(events), resets(events))
		}
	}
}

// Of a pipeline that breaks off after some answers it is not known whether a later
// loss would be noticed: nothing of it is acknowledged.
func TestPartlyAnsweredPipelineIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	var breaks atomic.Bool
	opts := clientOptions(redistest.Start(t).Addr())
	opts.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &breakingConn{Conn: conn, set: &breaks}, err
	}
	rdb := redis.NewUniversalClient(opts)
	t.Cleanup(func() { _ = rdb.Close() })
	n := startNode(t, rdb, "", "a")
	n.publish(t, "room", "first", keep)
	breaks.Store(true)
	id, err := n.Publish(t.Context(), Publication{Channel: "room", Payload: []byte("second"), Retention: keep})
	if err == nil {
		t.Errorf("published as %s, want an error", id)
	}
	if kept, err := n.Read(t.Context(), "room", ID{}, 10); err != nil || len(kept) != 2 {
		t.Errorf("%d messages stored, %v, want 2", len(kept), err)
	}
}

// breakingConn ends, once, after the first answer to a publish.
type breakingConn struct {
	net.Conn
	set    *atomic.Bool
	breaks atomic.Bool
}

func (c *breakingConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(publishScript.sha)) && c.set.CompareAndSwap(true, false) {
		c.breaks.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *breakingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.breaks.Load() {
		return n, err
	}
	_ = c.Conn.Close()
	first, _, _ := bytes.Cut(b[:n], []byte("\r\n:0\r\n")) // an id, and that its key was not used
	return len(first) + len("\r\n:0\r\n"), io.EOF
}
