package broker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
)

func TestKilledLinksLoseNothing(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	r := startTrial(t, startNodes(t, s)...)
	var slowest time.Duration
	for i := range 30 {
		if got := s.KillPubSub(); got != len(r.nodes) {
			t.Errorf("%d links were up, want %d", got, len(r.nodes))
		}
		slowest = max(slowest, r.recovered(t))
		for _, n := range r.nodes {
			eventually(t, "the link is open again", func() bool {
				lost := n.metric(t, "gateway_link_reopenings_total", "reason", string(reopenLost))
				return int(lost) > i && n.metric(t, "gateway_links_up") == 1
			})
		}
	}
	t.Logf("slowest recovery %v", slowest)
	r.finish(t, 0)
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
	r.finish(t, 0)
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
	r.finish(t, 3)
}

func TestFlushIsTold(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	r := startTrial(t, startNodes(t, s)...)
	for range 5 {
		s.CLI("FLUSHALL")
		t.Logf("recovered in %v", r.recovered(t))
	}
	r.finish(t, 5)
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
	events := r.waitFor(t, id)
	checkStory(t, events, []ID{id})
	if events[0].Payload == "x" { // it was on its way, and came before the loss was noticed
		events = events[1:]
	}
	if len(events) != 2 {
		t.Errorf("%d events, want a reset and a message: %+v", len(events), events)
	}
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
	r.finish(t, 0)
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
	r.finish(t, 0)
}

// A link may be alive and yet hear nothing of what is published, as after a
// failover, or only what others publish where it has ended up.
func TestDeafLinkIsReopened(t *testing.T) {
	for _, tt := range []struct {
		name   string
		chatty bool
	}{{"silent", false}, {"chatty", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			testDeafLink(t, tt.chatty)
		})
	}
}

func testDeafLink(t *testing.T, chatty bool) {
	master := redistest.Start(t)
	replica := redistest.StartReplica(t, master)
	replica.Detach()
	proxy := redistest.NewProxy(t, master.Addr())
	deaf := startNode(t, split{master.Client(t), dial(t, proxy.Addr())}, "", "deaf")
	r := startTrial(t, deaf, startNode(t, master.Client(t), "", "other"))
	if chatty {
		deaf.subscribe(t, "noise")
		chatter(t, replica.Client(t), deaf.layout.live("noise"))
	}
	silent := func() float64 {
		return deaf.metric(t, "gateway_link_reopenings_total", "reason", string(reopenSilent))
	}

	proxy.SetTarget(replica.Addr())
	proxy.Cut()
	eventually(t, "the link is at the replica", func() bool {
		return replica.CLI("PUBSUB", "NUMSUB", "live:room") == "live:room\n1"
	})
	begin, stolen := time.Now(), redistest.TimeStolen(t)
	eventually(t, "the link is found deaf", func() bool { return silent() > 0 })
	if took := time.Since(begin); took > 5*time.Second+stolen() {
		t.Errorf("found deaf after %v", took)
	}
	eventually(t, "the node is not ready", func() bool { return errors.Is(deaf.Ready(2*time.Second), ErrDeaf) })
	proxy.SetTarget(master.Addr())
	t.Logf("recovered in %v", r.recovered(t))
	eventually(t, "the node is ready", func() bool { return deaf.Ready(2*time.Second) == nil })
	r.finish(t, 0)
}

// chatter publishes to a pub/sub channel until the test ends.
func chatter(t testing.TB, rdb redis.UniversalClient, live string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			_ = rdb.Publish(ctx, live, "noise").Err() // fails only at the end
			<-tick.C
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// What was the last message while the link was away is found when it is back,
// not only by the next message or the sweep.
func TestReopenedLinkFindsLastMessages(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	away := redistest.Start(t)
	away.Kill()
	proxy := redistest.NewProxy(t, s.Addr())
	n := startNode(t, split{s.Client(t), dial(t, proxy.Addr())}, "", "a")
	var recorders [100]*recorder
	for i := range recorders {
		recorders[i] = n.subscribe(t, room(i))
		recorders[i].waitFor(t, n.publish(t, room(i), "seen", keep))
	}
	proxy.SetTarget(away.Addr())
	proxy.Cut()
	eventually(t, "the link is down", func() bool { return n.metric(t, "gateway_links_up") == 0 })
	var lost [len(recorders)]ID
	for i := range recorders {
		lost[i] = n.publish(t, room(i), "x", keep)
	}
	proxy.SetTarget(s.Addr())
	begin, stolen := time.Now(), redistest.TimeStolen(t)
	for i, r := range recorders {
		checkStory(t, r.waitFor(t, lost[i]), lost[i:i+1])
	}
	if took := time.Since(begin); took > sweepTurn*watchEvery/3+stolen() {
		t.Errorf("found after %v", took)
	}
}

// An id of before a loss must never be issued again: whoever saw it would take
// the new message for the old one.
func TestFlushWithinOneMillisecondIsTold(t *testing.T) {
	t.Parallel()
	m := redistest.Embedded(t)
	n := startNode(t, dial(t, m.Addr()), "", "a")
	r := n.subscribe(t, "room")
	m.SetTime(time.Now()) // stops its clock
	before := n.publishMany(t, "room", 3, keep)
	r.waitFor(t, before[2])
	m.FlushAll()
	after := n.publish(t, "room", "after", keep)
	if after.Compare(before[2]) <= 0 {
		t.Errorf("%s was issued after %s", after, before[2])
	}
	events := r.waitFor(t, after)
	checkStory(t, events, append(before, after))
	if resets(events) != 1 {
		t.Errorf("%d resets, want 1", resets(events))
	}
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
