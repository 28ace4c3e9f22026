package broker

import (
	"testing"
	"testing/synctest"
	"time"

	"wssgateway/broker/redistest"
)

// lossOf is Redis that has lost the end of what it was told.
type lossOf struct {
	nodes    []*node
	kept     []ID // of the channels "room" and "quiet", before the end
	lost     []ID // of the channel "room"
	recorder *recorder
	calm     *recorder // of "quiet"
}

// vouched reports whether a node vouches for a position on "room".
func vouched(t testing.TB, n *node, since ID) bool {
	t.Helper()
	h, err := n.Head(t.Context(), "room", since)
	if err != nil {
		t.Fatal(err)
	}
	return h.Recovered
}

// check checks what is told of the loss. Nothing of it is on a channel that the
// node which knows of it has subscribed to, and another node publishes at once.
func (l lossOf) check(t *testing.T) {
	t.Helper()
	knowing, other := l.nodes[0], l.nodes[1]
	other.publishAtLast(t, "room") // hides nothing
	eventually(t, "a position before the loss is refused", func() bool { return !vouched(t, other, l.kept[1]) })
	for _, n := range l.nodes {
		for _, since := range append(l.kept, l.lost...) {
			if vouched(t, n, since) {
				t.Errorf("%s is vouched for", since)
			}
		}
	}
	h, err := other.Head(t.Context(), "room", ID{})
	if err != nil || h.Last.Compare(l.lost[len(l.lost)-1]) <= 0 {
		t.Errorf("the channel stands at %s, after it was at %s (%v)", h.Last, l.lost[len(l.lost)-1], err)
	}
	next := other.publish(t, "room", "next", keep)
	for _, since := range []ID{h.Last, next} {
		if !vouched(t, knowing, since) {
			t.Errorf("%s, from after the loss, is not vouched for", since)
		}
	}
	// A live subscriber cannot tell what the other node had published.
	for channel, r := range map[string]*recorder{"room": l.recorder, "quiet": l.calm} {
		events := r.waitFor(t, other.publish(t, channel, "last", keep))
		if resets(events) != 1 {
			t.Errorf("%s: %d resets, want 1: %+v", channel, resets(events), events)
		}
		checkStory(t, events, nil)
	}
	for _, n := range l.nodes {
		eventually(t, "the loss is counted", func() bool { return n.metric(t, "gateway_redis_data_losses_total") == 1 })
	}
}

// Redis comes back with what was on its disk, and not with what it had answered
// since (finding A14). Who knows of it has only published it.
func TestOlderDataAreNotVouchedFor(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	l := lossOf{nodes: startNodes(t, s)}
	l.recorder, l.calm = l.nodes[1].subscribe(t, "room"), l.nodes[1].subscribe(t, "quiet")
	l.nodes[0].publish(t, "quiet", "x", keep)
	l.kept = l.nodes[0].publishMany(t, "room", 3, keep)
	l.recorder.waitFor(t, l.kept[2])
	s.CLI("SAVE")
	l.lost = l.nodes[0].publishMany(t, "room", 2, keep)
	l.recorder.waitFor(t, l.lost[1])
	s.Kill()
	s.Restart()
	l.check(t)
}

// A replica takes over that lacks the end.
func TestFailoverThatLosesIsTold(t *testing.T) {
	t.Parallel()
	f := startFailover(t)
	l := lossOf{nodes: f.nodes}
	l.recorder, l.calm = l.nodes[1].subscribe(t, "room"), l.nodes[1].subscribe(t, "quiet")
	l.nodes[0].publish(t, "quiet", "x", keep)
	l.kept = l.nodes[0].publishMany(t, "room", 3, keep)
	f.inStep(t)
	f.replica.Detach()
	l.lost = l.nodes[0].publishMany(t, "room", 2, keep)
	l.recorder.waitFor(t, l.lost[1])
	f.failOver()
	l.check(t)
}

// Neither an ordinary restart nor a failover is a loss if everything is there.
func TestWhatIsThereIsVouchedFor(t *testing.T) {
	t.Run("restart", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
		testNothingLost(t, startNodes(t, s), func() {
			s.Kill()
			s.Restart()
		})
	})
	t.Run("failover", func(t *testing.T) {
		t.Parallel()
		f := startFailover(t)
		testNothingLost(t, f.nodes, func() {
			f.inStep(t)
			f.failOver()
		})
	})
}

func testNothingLost(t *testing.T, nodes []*node, interrupt func()) {
	r, quiet := nodes[1].subscribe(t, "room"), nodes[1].subscribe(t, "quiet")
	quiet.waitFor(t, nodes[0].publish(t, "quiet", "x", keep))
	ids := nodes[0].publishMany(t, "room", 3, keep)
	r.waitFor(t, ids[2])
	interrupt()
	ids = append(ids, nodes[1].publishAtLast(t, "room"))
	last := ids[len(ids)-1]
	// Each node has looked at least once since.
	for _, n := range nodes {
		seen := n.lanes[0].hearing.silence
		eventually(t, "the link is back", func() bool { return seen() < probeEvery })
		n.publishAtLast(t, "other")
	}
	<-time.After(2 * watchEvery) // as long as that, not until something
	for _, n := range nodes {
		for _, since := range append(ids, ID{}) {
			if !vouched(t, n, since) {
				t.Errorf("%s is not vouched for", since)
			}
		}
		if got := n.metric(t, "gateway_redis_data_losses_total"); got != 0 {
			t.Errorf("%v losses counted, want none", got)
		}
	}
	if n := resets(r.waitFor(t, last)) + resets(quiet.all()); n > 0 {
		t.Errorf("%d resets, want none", n)
	}
}

// failover is a master and its replica, with two nodes that follow whichever serves.
type failover struct {
	master, replica *redistest.Server
	proxy           *redistest.Proxy
	nodes           []*node
}

func startFailover(t testing.TB) *failover {
	t.Helper()
	f := &failover{master: redistest.Start(t)}
	f.replica = redistest.StartReplica(t, f.master)
	f.proxy = redistest.NewProxy(t, f.master.Addr())
	for _, name := range []string{"a", "b"} {
		f.nodes = append(f.nodes, startNode(t, dial(t, f.proxy.Addr()), "", name))
	}
	return f
}

// inStep waits until the replica has all that was published.
func (f *failover) inStep(t testing.TB) {
	t.Helper()
	eventually(t, "the replica is in step", func() bool {
		return f.replica.CLI("XLEN", "{0}:stream:room") == f.master.CLI("XLEN", "{0}:stream:room") &&
			f.replica.CLI("GET", "{0}:tally:a") == f.master.CLI("GET", "{0}:tally:a")
	})
}

// failOver has the replica take over.
func (f *failover) failOver() {
	f.master.Kill()
	f.replica.Detach()
	f.proxy.SetTarget(f.replica.Addr())
	f.proxy.Cut()
}

// A node that has just started cannot know that Redis was flushed. If none that knows
// is there it goes by what it finds, and who was vouched for is told when one comes
// (finding A15).
func TestNewNodeTellsOfFlushedData(t *testing.T) {
	t.Parallel()
	s, away := redistest.Start(t), redistest.Start(t)
	away.Kill()
	proxy := redistest.NewProxy(t, s.Addr())
	a := startNode(t, dial(t, proxy.Addr()), "", "a")
	a.subscribe(t, "room") // now it knows the life of the data
	proxy.SetTarget(away.Addr())
	proxy.Cut()
	eventually(t, "the link is down", func() bool { return a.metric(t, "gateway_links_up") == 0 })
	s.CLI("FLUSHALL")
	b := startNode(t, s.Client(t), "", "b")
	busy, empty := b.subscribe(t, "room"), b.subscribe(t, "empty")
	if !vouched(t, b, ID{}) {
		t.Error("0-0 is not vouched for, though nobody who knows better is there")
	}
	busy.waitFor(t, b.publish(t, "room", "x", keep))
	proxy.SetTarget(s.Addr())
	for _, r := range []*recorder{busy, empty} {
		r.wait(t, "the loss is told", func(events []event) bool { return resets(events) > 0 })
	}
	if vouched(t, b, ID{}) {
		t.Error("0-0 is vouched for, on flushed data")
	}
}

// One that knows, and is cut off, is still subscribed: for it the new one waits
// (finding A15).
func TestNewNodeDoesNotVouchWhileOneIsCutOff(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s.Addr())
	startNode(t, dial(t, proxy.Addr()), "", "a").subscribe(t, "room") // now it knows the life of the data
	proxy.Blackhole(true)
	s.CLI("FLUSHALL")
	b := startNode(t, s.Client(t), "", "b")
	if vouched(t, b, ID{}) {
		t.Error("0-0 is vouched for, on flushed data")
	}
	proxy.Blackhole(false)
}

// On data that are known to be the first nobody waits.
func TestFirstDataAreVouchedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := redistest.InMemory(t)
		a := startNode(t, redistest.EmbeddedClient(t, m), "", "a")
		b := startNode(t, redistest.EmbeddedClient(t, m), "", "b")
		begin := time.Now()
		for _, n := range []*node{a, b, a, b} {
			if !vouched(t, n, ID{}) {
				t.Error("0-0 is not vouched for, on data that have lost nothing")
			}
		}
		if took := time.Since(begin); took > watchEvery {
			t.Errorf("vouched for after %v", took)
		}
	})
}

// Ids never go back, also those of a node that has not seen what was lost, once
// one that has seen it has found it missing (finding A17).
func TestIDsNeverGoBackForNodesThatSawNothing(t *testing.T) {
	t.Parallel()
	m := redistest.Embedded(t)
	start := time.Now()
	m.SetTime(start) // stops its clock
	a, b := startNode(t, dial(t, m.Addr()), "", "a"), startNode(t, dial(t, m.Addr()), "", "b")
	first := a.publish(t, "room", "1", keep)
	meta, tally := a.layout.meta("room"), a.lanes[0].tally.key
	data := map[string]string{}
	for _, key := range []string{meta, tally} {
		data[key], _ = m.Get(key)
	}
	m.SetTime(start.Add(time.Second))
	lost := a.publish(t, "room", "2", keep)

	// The replica that takes over has only the first, and a slower clock.
	if err := a.rdb.XDel(t.Context(), a.layout.stream("room"), lost.String()).Err(); err != nil {
		t.Fatal(err)
	}
	for key, value := range data {
		if err := m.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	m.SetTime(start.Add(500 * time.Millisecond))
	eventually(t, "the loss is found", func() bool { return !vouched(t, b, first) })
	if next := b.publish(t, "room", "3", keep); next.Compare(lost) <= 0 {
		t.Errorf("%s was published after %s", next, lost)
	}
}
