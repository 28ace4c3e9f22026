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
	channel string
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu           sync.Mutex
	acknowledged []ID // guarded by mu
}

// trafficEvery is the pause between two messages of one publisher.
const trafficEvery = 2 * time.Millisecond

// startTraffic publishes from every node given, each one message at a time.
func startTraffic(t testing.TB, channel string, nodes ...*node) *traffic {
	ctx, cancel := context.WithCancel(context.Background())
	f := &traffic{channel: channel, cancel: cancel}
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

// next returns an id that was acknowledged after the call.
func (f *traffic) next(t testing.TB) (id ID) {
	t.Helper()
	f.mu.Lock()
	n := len(f.acknowledged)
	f.mu.Unlock()
	eventually(t, "publishing works", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.acknowledged) > n {
			id = f.acknowledged[len(f.acknowledged)-1]
		}
		return len(f.acknowledged) > n
	})
	return id
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
	r.recovered(t)
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

// finish ends the traffic and checks what every subscriber saw. lossless:
// Redis has kept its data, so that nobody may hear of a reset.
func (r *trial) finish(t testing.TB, lossless bool) {
	t.Helper()
	acknowledged := r.stop()
	last := acknowledged[len(acknowledged)-1]
	for i, rec := range r.recorders {
		events := rec.waitFor(t, last)
		checkStory(t, events, acknowledged)
		told, idle := resets(events), resets(r.idle[i].all())
		if lossless && told+idle > 0 {
			t.Errorf("node %d: %d resets, %d of them idle, want none", i, told+idle, idle)
		}
		if !lossless && told == 0 {
			t.Errorf("node %d: a loss of data was not told", i)
		}
		t.Logf("node %d: %d acknowledged, %d delivered, %d resets", i, len(acknowledged), len(ids(events)), told)
	}
}

// startNodes starts two nodes on one server.
func startNodes(t testing.TB, s *redistest.Server) []*node {
	t.Helper()
	return []*node{startNode(t, s.Client(t), "", "a"), startNode(t, s.Client(t), "", "b")}
}

func TestKilledLinksLoseNothing(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	r := startTrial(t, startNodes(t, s)...)
	var slowest time.Duration
	for range 30 {
		if s.KillPubSub() == 0 {
			t.Error("no link was up")
		}
		slowest = max(slowest, r.recovered(t))
	}
	t.Logf("slowest recovery %v", slowest)
	r.finish(t, true)
	for _, n := range r.nodes {
		if got := n.metric(t, "gateway_link_reopenings_total", "reason", string(reopenLost)); got < 20 {
			t.Errorf("%v links counted as lost", got)
		}
	}
}

func TestRestartWithDataLosesNothing(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	r := startTrial(t, startNodes(t, s)...)
	for range 3 {
		s.Kill()
		s.Restart()
		t.Logf("recovered in %v", r.recovered(t))
	}
	r.finish(t, true)
}

func TestRestartWithoutDataIsTold(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	r := startTrial(t, startNodes(t, s)...)
	for range 3 {
		s.Kill()
		s.Restart()
		t.Logf("recovered in %v", r.recovered(t))
	}
	r.finish(t, false)
}

func TestFlushIsTold(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	r := startTrial(t, startNodes(t, s)...)
	for range 5 {
		s.CLI("FLUSHALL")
		t.Logf("recovered in %v", r.recovered(t))
	}
	r.finish(t, false)
	for _, n := range r.nodes {
		eventually(t, "the loss is counted", func() bool { return n.metric(t, "gateway_redis_data_losses_total") > 0 })
	}
}

// The first message of a channel can be lost with everything else: who waits
// for it must hear so.
func TestFlushIsToldOnChannelWithoutMessages(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s.Addr())
	n := startNode(t, split{s.Client(t), dial(t, proxy.Addr())}, "", "a")
	r := n.subscribe(t, "room")
	proxy.Blackhole(true)
	n.publish(t, "room", "x", keep)
	s.CLI("FLUSHALL")
	proxy.Blackhole(false)
	r.wait(t, "the loss is told", func(events []event) bool { return resets(events) == 1 })
	id := n.publish(t, "room", "y", keep)
	checkStory(t, r.waitFor(t, id), []ID{id})
}

func TestBlackHoleLosesNothing(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s.Addr())
	r := startTrial(t, startNode(t, dial(t, proxy.Addr()), "", "a"), startNode(t, s.Client(t), "", "b"))
	proxy.Blackhole(true)
	<-time.After(5 * time.Second) // as long as that, not until something
	proxy.Blackhole(false)
	t.Logf("recovered in %v", r.recovered(t))
	r.finish(t, true)
}

func TestCutConnectionsLoseNothing(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s.Addr())
	r := startTrial(t, startNode(t, dial(t, proxy.Addr()), "", "a"), startNode(t, s.Client(t), "", "b"))
	var slowest time.Duration
	for range 20 {
		proxy.Cut()
		slowest = max(slowest, r.recovered(t))
	}
	t.Logf("slowest recovery %v", slowest)
	r.finish(t, true)
}

// A link may be alive and yet hear nothing of what is published, as after a
// failover: only the probe tells.
func TestDeafLinkIsReopened(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	replica := redistest.StartReplica(t, master)
	replica.Detach()
	proxy := redistest.NewProxy(t, master.Addr())
	deaf := startNode(t, split{master.Client(t), dial(t, proxy.Addr())}, "", "deaf")
	r := startTrial(t, deaf, startNode(t, master.Client(t), "", "other"))
	silent := func() float64 {
		return deaf.metric(t, "gateway_link_reopenings_total", "reason", string(reopenSilent))
	}

	proxy.SetTarget(replica.Addr())
	proxy.Cut()
	eventually(t, "the link is at the replica", func() bool {
		return replica.CLI("PUBSUB", "NUMSUB", "live:room") == "live:room\n1"
	})
	begin := time.Now()
	eventually(t, "the link is found deaf", func() bool { return silent() > 0 })
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("found deaf after %v", took)
	}
	eventually(t, "the node is not ready", func() bool { return deaf.Ready(2*time.Second) == ErrDeaf })
	proxy.SetTarget(master.Addr())
	t.Logf("recovered in %v", r.recovered(t))
	r.finish(t, true)
	eventually(t, "the node is ready", func() bool { return deaf.Ready(2*time.Second) == nil })
}

// A failover may lose what was acknowledged and not replicated yet; whoever
// saw or missed it must hear so, and all else must be there.
func TestFailoverLosesNothingSilently(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	r := startTrial(t, startNode(t, s.Client(t), "", "a"), startNode(t, s.Client(t), "", "b"))
	s.Master().Kill()
	t.Logf("recovered in %v", r.recovered(t))
	acknowledged := r.stop()
	kept, err := r.nodes[0].Read(t.Context(), "room", ID{}, len(acknowledged)+1000)
	if err != nil {
		t.Fatal(err)
	}
	survived := slices.DeleteFunc(slices.Clone(acknowledged), func(id ID) bool {
		return !slices.ContainsFunc(kept, func(m Message) bool { return m.ID == id })
	})
	for _, rec := range r.recorders {
		events := rec.waitFor(t, acknowledged[len(acknowledged)-1])
		checkStory(t, events, survived)
		t.Logf("%d acknowledged, %d of them kept, %d resets", len(acknowledged), len(survived), resets(events))
	}
}
