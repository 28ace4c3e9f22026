package gateway_test

import (
	"hash/fnv"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/coder/websocket"

	"wssgateway/broker/redistest"
)

func serverOf(c *redistest.Cluster, key string) *redistest.Server {
	slot, _ := strconv.Atoi(c.Nodes[0].CLI("CLUSTER", "KEYSLOT", key))
	return c.Nodes[slot*len(c.Nodes)/16384]
}

// laneTag returns the hash tag of a channel's keys in a Cluster.
func laneTag(channel string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(channel))
	return "{" + strconv.Itoa(int(h.Sum32()%16)) + "}"
}

// beside returns a name, of which all keys are on other servers than one.
func beside(c *redistest.Cluster, hung *redistest.Server, prefix string, keys ...func(name string) string) string {
	for i := 0; ; i++ {
		name := prefix + strconv.Itoa(i)
		on := func(key func(string) string) bool { return serverOf(c, "gw:"+key(name)) == hung }
		if !slices.ContainsFunc(keys, on) {
			return name
		}
	}
}

func userTag(user string) string       { return "{user:" + user + "}" }
func membersTag(channel string) string { return laneTag("*presence:" + channel) }

// TestLeavesWhileAServerHangs: who leaves a channel on another server is told of in
// the usual time.
func TestLeavesWhileAServerHangs(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3)
	for _, s := range c.Nodes {
		s.CLI("CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	hung := c.Nodes[slices.IndexFunc(c.Nodes, func(s *redistest.Server) bool {
		return s != serverOf(c, "gw:{nodes}:lease") && s != serverOf(c, "gw:{gone}:due")
	})]
	n := startNode(t, "a", c.Client(t))
	channel := beside(c, hung, "who:", laneTag, membersTag)
	observer, _ := n.connect(t, beside(c, hung, "o", userTag), "channel="+channel)
	var leavers []*client
	for i := range 4 {
		user := beside(c, hung, "l"+strconv.Itoa(i)+"-", userTag)
		leaver, _ := n.connect(t, user, "channel="+channel)
		observer.expect("join")
		leavers = append(leavers, leaver)
	}
	hung.Pause()
	defer hung.Resume()
	for i, leaver := range leavers {
		start := time.Now()
		if i%2 == 0 {
			leaver.send(`{"type":"unsubscribe","channel":"%s"}`, channel)
		} else {
			_ = leaver.conn.Close(websocket.StatusNormalClosure, "")
		}
		observer.expect("leave")
		t.Log("left after", time.Since(start))
		if took := time.Since(start); took > 3*time.Second { // one to two, and a loaded machine
			t.Errorf("a leave was told after %v", took)
		}
	}
}
