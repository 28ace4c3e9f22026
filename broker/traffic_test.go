package broker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"wssgateway/broker/redistest"
)

// traffic publishes steadily to one channel and remembers what was
// acknowledged. After an error it tries again with the same key until it gets
// an answer.
type traffic struct {
	channel    string
	publishers int
	cancel     context.CancelFunc
	wg         sync.WaitGroup

	mu           sync.Mutex
	acknowledged []ID // guarded by mu
}

// trafficEvery is the pause between two messages of one publisher.
const trafficEvery = 2 * time.Millisecond

// startTraffic publishes from every node given, each one message at a time.
func startTraffic(t testing.TB, channel string, nodes ...*node) *traffic {
	ctx, cancel := context.WithCancel(context.Background())
	f := &traffic{channel: channel, publishers: len(nodes), cancel: cancel}
	for i, n := range nodes {
		f.wg.Go(func() { f.publish(ctx, n, i) })
	}
	t.Cleanup(func() { f.stop() })
	return f
}

func (f *traffic) publish(ctx context.Context, n *node, publisher int) {
	tick := time.NewTicker(trafficEvery)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		key := fmt.Sprintf("%d-%d", publisher, i)
		if id, ok := f.try(n, key); ok {
			f.mu.Lock()
			f.acknowledged = append(f.acknowledged, id)
			f.mu.Unlock()
		}
		<-tick.C
	}
}

// try publishes until there is an answer, or no hope for one.
func (f *traffic) try(n *node, key string) (ID, bool) {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		id, err := n.Publish(ctx, Publication{
			Channel: f.channel, Payload: []byte(key), Retention: keep, Key: key, Scope: "traffic",
		})
		cancel()
		if err == nil {
			return id, true
		}
	}
	return ID{}, false
}

// stop ends the traffic and returns what was acknowledged, in order.
func (f *traffic) stop() []ID {
	f.cancel()
	f.wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortFunc(f.acknowledged, ID.Compare)
	return f.acknowledged
}

// next returns the id of a message that was stored after the call, or a later
// one: of what is acknowledged after it, each publisher's first may be older.
func (f *traffic) next(t testing.TB) ID {
	t.Helper()
	f.mu.Lock()
	before := len(f.acknowledged)
	f.mu.Unlock()
	var fresh []ID
	eventually(t, "publishing works", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		fresh = f.acknowledged[before:]
		return len(fresh) > f.publishers
	})
	return slices.MaxFunc(fresh, ID.Compare)
}

// trial is a pair of nodes under traffic whose links are about to suffer.
type trial struct {
	*traffic
	nodes     []*node
	recorders []*recorder
	idle      []*recorder // of a channel on which nothing happens
}

func startTrial(t testing.TB, nodes ...*node) *trial {
	t.Helper()
	r := &trial{nodes: nodes}
	for _, n := range nodes {
		r.recorders = append(r.recorders, n.subscribe(t, "room"))
		r.idle = append(r.idle, n.subscribe(t, "idle"))
	}
	r.traffic = startTraffic(t, "room", nodes...)
	for _, rec := range r.recorders {
		rec.waitCount(t, 100)
	}
	return r
}

// recovered returns once what is published now arrives at every subscriber,
// and how long that took.
func (r *trial) recovered(t testing.TB) time.Duration {
	t.Helper()
	begin := time.Now()
	id := r.next(t)
	for _, rec := range r.recorders {
		rec.wait(t, "delivery goes on", func(events []event) bool {
			return len(events) > 0 && events[len(events)-1].ID.Compare(id) >= 0
		})
	}
	return time.Since(begin)
}

// finish ends the traffic and checks what every subscriber saw: it was told of
// every loss of data, and without one of nothing. It may be told twice: a repair
// that was under way has seen what was lost a moment before that.
func (r *trial) finish(t testing.TB, losses int) {
	t.Helper()
	acknowledged := r.stop()
	last := acknowledged[len(acknowledged)-1]
	for i, rec := range r.recorders {
		events := rec.waitFor(t, last)
		checkStory(t, events, acknowledged)
		told, idle := resets(events), r.idle[i]
		if told < losses || told > 2*losses {
			t.Errorf("node %d: %d resets, want %d", i, told, losses)
			for j, e := range events {
				if e.reset {
					t.Logf("node %d: reset to %s after %+v, before %+v", i, e.ID, events[max(j-1, 0)], events[min(j+1, len(events)-1)])
				}
			}
		}
		if losses > 0 { // that come fast may be seen as one where nothing happens
			idle.wait(t, "an idle channel is reset", func(events []event) bool { return resets(events) > 0 })
		} else if n := len(idle.all()); n > 0 {
			t.Errorf("node %d: %d resets of an idle channel, want none", i, n)
		}
		t.Logf("node %d: %d acknowledged, %d delivered, %d resets", i, len(acknowledged), len(ids(events)), told)
	}
}

// startNodes starts two nodes on one server.
func startNodes(t testing.TB, s *redistest.Server) []*node {
	t.Helper()
	return []*node{startNode(t, s.Client(t), "", "a"), startNode(t, s.Client(t), "", "b")}
}
