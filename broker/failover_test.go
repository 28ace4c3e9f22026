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

// In a Cluster the client asks for the layout once a minute, unless it is told that
// a server is dead (finding N3).
func TestPromotedReplicaIsFound(t *testing.T) {
	t.Parallel()
	stolen := redistest.TimeStolen(t)
	c := redistest.StartCluster(t, 3)
	n := startNode(t, c.Client(t), "", "a")
	var recorders [clusterLanes]*recorder
	channels := n.channelPerLane()
	for i, channel := range channels {
		recorders[i] = n.subscribe(t, channel)
	}
	replica := c.StartReplica(t, c.Nodes[0])
	killed := time.Now()
	c.Nodes[0].Kill()
	eventually(t, "the replica is promoted", replica.IsMaster)
	promoted := time.Now()
	t.Logf("promoted after %v", promoted.Sub(killed))
	for i, channel := range channels {
		recorders[i].waitFor(t, n.publishAtLast(t, channel))
	}
	eventually(t, "the node is ready", func() bool { return n.Ready(2*time.Second) == nil })
	took := time.Since(promoted)
	t.Logf("recovered in %v: a promoted replica", took)
	if took > 5*time.Second+stolen() {
		t.Errorf("all lanes are live %v after the promotion", took)
	}
	for i, r := range recorders {
		if n := resets(r.all()); n > 0 {
			t.Errorf("%s: %d resets, though nothing was lost", channels[i], n)
		}
	}
}

// channelPerLane returns a channel of each lane.
func (n *node) channelPerLane() []string {
	channels := make([]string, n.layout.lanes)
	for i, left := 0, len(channels); left > 0; i++ {
		if lane := n.layout.laneOf(room(i)); channels[lane] == "" {
			channels[lane] = room(i)
			left--
		}
	}
	return channels
}

// publishAtLast publishes as soon as that is possible.
func (n *node) publishAtLast(t testing.TB, channel string) (id ID) {
	t.Helper()
	eventually(t, "publishing to "+channel+" works", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var err error
		id, err = n.Publish(ctx, Publication{Channel: channel, Payload: []byte("x"), Retention: keep})
		return err == nil
	})
	return id
}

// A server that does not answer costs its own lanes, and nobody else's publishes
// and links (finding A8).
func TestServerThatHangsHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	stolen := redistest.TimeStolen(t)
	c := redistest.StartCluster(t, 3)
	for _, s := range c.Nodes { // what is left serves its slots
		s.CLI("CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	n := startNode(t, c.Client(t), "", "a")
	var healthy, hung []string
	for _, channel := range n.channelPerLane() {
		if has, _ := owner(c, c.Nodes[0].CLI("CLUSTER", "KEYSLOT", n.layout.stream(channel))); has == c.Nodes[0] {
			hung = append(hung, channel)
		} else {
			healthy = append(healthy, channel)
		}
	}
	c.Nodes[0].Pause()
	defer c.Nodes[0].Resume()
	ctx, stop := context.WithTimeout(t.Context(), 7*time.Second) // a link is silent after three
	defer stop()
	var publishing sync.WaitGroup
	for range 20 {
		for _, channel := range hung {
			publishing.Go(func() { n.publishUntil(ctx, channel) })
		}
	}
	slowest := make([]time.Duration, len(healthy))
	for i, channel := range healthy {
		publishing.Go(func() {
			var err error
			if slowest[i], err = n.publishUntil(ctx, channel); err != nil && stolen() < probeEvery {
				t.Errorf("%s: %v", channel, err)
			}
		})
	}
	publishing.Wait()
	t.Logf("slowest publish to a server that answers: %v", slices.Max(slowest))
	if took := slices.Max(slowest); took > 2*time.Second+stolen() {
		t.Errorf("a publish to a server that answers took %v", took)
	}
	for _, channel := range healthy {
		if s := n.lane(channel).hearing.silence(); s > silence+stolen() {
			t.Errorf("the link for %s has heard nothing for %v", channel, s)
		}
	}
	silent := n.metric(t, "gateway_link_reopenings_total", "reason", string(reopenSilent))
	if attempts := float64(len(hung)) * 3; silent > attempts && stolen() < probeEvery { // 7 s, 3 s each
		t.Errorf("%v links opened again, want %v at most", silent, attempts)
	}
}

// publishUntil publishes every 20 ms until ctx is done, and returns how long the
// slowest took, and the last error. It runs on a goroutine of its own.
func (n *node) publishUntil(ctx context.Context, channel string) (slowest time.Duration, failed error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		begin := time.Now()
		pctx, cancel := context.WithTimeout(context.Background(), 4500*time.Millisecond)
		_, err := n.Publish(pctx, Publication{Channel: channel, Payload: fmt.Append(nil, i), Retention: small})
		cancel()
		slowest = max(slowest, time.Since(begin))
		if err != nil {
			failed = err
		}
		<-tick.C
	}
	return slowest, failed
}
