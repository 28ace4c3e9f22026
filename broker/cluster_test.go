package broker

import (
	"bytes"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
)

// A slot that moves takes the lane's keys and its pub/sub channels with it, and
// Redis tells the link only that it is unsubscribed.
func TestMovedSlotLosesNothing(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3)
	r := startTrial(t, startNode(t, c.Client(t), "", "a"), startNode(t, c.Client(t), "", "b"))
	slot := c.Nodes[0].CLI("CLUSTER", "KEYSLOT", r.nodes[0].layout.live("room"))
	from, to := owner(c, slot)
	for range 2 {
		moveSlot(t, slot, from, to)
		t.Logf("recovered in %v", r.recovered(t))
		from, to = to, from
	}
	r.finish(t, 0)
	if got := r.nodes[0].metric(t, "gateway_link_reopenings_total", "reason", string(reopenRevoked)); got == 0 {
		t.Error("no link counted as revoked")
	}
}

// owner returns the master that has a slot, and another one.
func owner(c *redistest.Cluster, slot string) (has, other *redistest.Server) {
	n, _ := strconv.Atoi(slot)
	i := n * len(c.Nodes) / 16384
	return c.Nodes[i], c.Nodes[(i+1)%len(c.Nodes)]
}

// moveSlot does what `redis-cli --cluster reshard` does with one slot.
func moveSlot(t *testing.T, slot string, from, to *redistest.Server) {
	t.Helper()
	fromID, toID := from.CLI("CLUSTER", "MYID"), to.CLI("CLUSTER", "MYID")
	to.CLI("CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	from.CLI("CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	host, port, _ := net.SplitHostPort(to.Addr())
	for {
		keys := from.CLI("CLUSTER", "GETKEYSINSLOT", slot, "1000")
		if keys == "" {
			break
		}
		args := []string{"MIGRATE", host, port, "", "0", "5000", "KEYS"}
		from.CLI(append(args, strings.Split(keys, "\n")...)...)
	}
	to.CLI("CLUSTER", "SETSLOT", slot, "NODE", toID)
	from.CLI("CLUSTER", "SETSLOT", slot, "NODE", toID)
}

// One master that loses its data concerns its own lanes only.
func TestRestartOfOneMasterIsTold(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3)
	nodes := []*node{startNode(t, c.Client(t), "", "a"), startNode(t, c.Client(t), "", "b")}
	r := startTrial(t, nodes[0], nodes[1])
	master, _ := owner(c, c.Nodes[0].CLI("CLUSTER", "KEYSLOT", nodes[0].layout.live("room")))
	elsewhere := ""
	for i := 0; elsewhere == ""; i++ {
		if other, _ := owner(c, c.Nodes[0].CLI("CLUSTER", "KEYSLOT", nodes[0].layout.live(room(i)))); other != master {
			elsewhere = room(i)
		}
	}
	untouched := nodes[0].subscribe(t, elsewhere)
	master.Kill()
	master.Restart()
	t.Logf("recovered in %v", r.recovered(t))
	acknowledged := r.stop()
	for _, rec := range r.recorders {
		events := rec.waitFor(t, acknowledged[len(acknowledged)-1])
		checkStory(t, events, acknowledged)
		if resets(events) != 1 {
			t.Errorf("%d resets, want 1", resets(events))
		}
	}
	id := nodes[1].publish(t, elsewhere, "x", keep)
	if events := untouched.waitFor(t, id); len(events) != 1 {
		t.Errorf("%d events on another master, want 1", len(events))
	}
}

// Whoever publishes without a key and gets an error decides for itself whether
// to try again. The client library must not: the script may have run.
func TestPublishIsSentOnce(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3)
	single := redistest.Start(t)
	var clusterAddrs []string
	for _, s := range c.Nodes {
		clusterAddrs = append(clusterAddrs, s.Addr())
	}
	for name, addrs := range map[string][]string{"cluster": clusterAddrs, "single": {single.Addr()}} {
		t.Run(name, func(t *testing.T) { testPublishIsSentOnce(t, addrs) })
	}
}

func testPublishIsSentOnce(t *testing.T, addrs []string) {
	var trap atomic.Bool
	opts := clientOptions(addrs...)
	opts.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &trapConn{Conn: conn, set: &trap}, err
	}
	rdb := redis.NewUniversalClient(opts)
	t.Cleanup(func() { _ = rdb.Close() })
	n := startNode(t, rdb, "", "a")
	n.publish(t, "room", "first", keep)

	trap.Store(true)
	if id, err := n.Publish(t.Context(), Publication{Channel: "room", Payload: []byte("second"), Retention: keep}); err == nil {
		t.Errorf("published as %s, want an error", id)
	}
	if kept, err := n.Read(t.Context(), "room", ID{}, 10); err != nil || len(kept) != 2 {
		t.Errorf("%d messages stored, %v, want 2", len(kept), err)
	}
}

// trapConn loses the answer to a publish, once.
type trapConn struct {
	net.Conn
	set   *atomic.Bool
	snaps atomic.Bool
}

func (c *trapConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(publishScript.sha)) && c.set.CompareAndSwap(true, false) {
		c.snaps.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *trapConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.snaps.Load() {
		_ = c.Conn.Close()
		return 0, io.EOF
	}
	return n, err
}
