package gateway_test

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
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

// startCluster starts a Cluster, and returns one of its servers that has only users and
// channels.
func startCluster(t *testing.T) (*redistest.Cluster, *redistest.Server) {
	t.Helper()
	c := redistest.StartCluster(t, 3)
	for _, s := range c.Nodes { // what is left serves its slots
		s.CLI("CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	return c, c.Nodes[slices.IndexFunc(c.Nodes, func(s *redistest.Server) bool {
		return s != serverOf(c, "gw:{nodes}:lease") && s != serverOf(c, "gw:{gone}:due")
	})]
}

// TestLeavesWhileAServerHangs: who leaves a channel on another server is told of in
// the usual time.
func TestLeavesWhileAServerHangs(t *testing.T) {
	t.Parallel()
	c, hung := startCluster(t)
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
		if took := time.Since(start); took > 3*time.Second { // one to two, and a loaded machine
			t.Errorf("a leave was told after %v", took)
		}
	}
}

// TestAuditWhileAServerHangs: members that nobody ended are sent away, and those whose
// sessions are on that server when it is back.
func TestAuditWhileAServerHangs(t *testing.T) {
	t.Parallel()
	c, hung := startCluster(t)
	rdb := c.Client(t)
	n := startNode(t, "a", rdb, func(cfg *gateway.Config) { cfg.Lease, cfg.Heartbeat = time.Second, 300*time.Millisecond })
	channel := beside(c, hung, "who:", laneTag, membersTag)
	healthy := beside(c, hung, "h", userTag)
	dead := "d"
	for i := 0; serverOf(c, "gw:"+userTag(dead)) != hung; i++ {
		dead = "d" + strconv.Itoa(i)
	}
	observer, _ := n.connect(t, beside(c, hung, "o", userTag), "channel="+channel)
	addGhosts(t, rdb, channel, healthy, dead)
	hung.Pause()
	resume := sync.OnceFunc(hung.Resume)
	defer resume()
	n.Restored()
	if f := observer.expect("leave"); f.str("user") != healthy {
		t.Errorf("got %v", f)
	}
	resume()
	if f := observer.expect("leave"); f.str("user") != dead {
		t.Errorf("got %v", f)
	}
}

// addGhosts makes users members of a channel by sessions that there are not.
func addGhosts(t *testing.T, rdb redis.UniversalClient, channel string, users ...string) {
	t.Helper()
	key := "gw:" + membersTag(channel) + ":%s:*presence:" + channel
	for _, user := range users {
		if err := errors.Join(rdb.HSet(t.Context(), fmt.Sprintf(key, "members"), "s_"+user, "1 "+user).Err(),
			rdb.HSet(t.Context(), fmt.Sprintf(key, "users"), user, 1).Err()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAuditOfManyChannelsWhileAServerHangs: channels with members of whom that server
// would have to tell do not wait for one another.
func TestAuditOfManyChannelsWhileAServerHangs(t *testing.T) {
	t.Parallel()
	c, hung := startCluster(t)
	rdb := c.Client(t)
	n := startNode(t, "a", rdb, func(cfg *gateway.Config) { cfg.Lease, cfg.Heartbeat = time.Second, 300*time.Millisecond })
	healthy := beside(c, hung, "h", userTag)
	dead := "d"
	for i := 0; serverOf(c, "gw:"+userTag(dead)) != hung; i++ {
		dead = "d" + strconv.Itoa(i)
	}
	var channels []string
	for i := range 10 {
		channel := beside(c, hung, "who:"+strconv.Itoa(i)+"-", laneTag, membersTag)
		channels = append(channels, channel)
		addGhosts(t, rdb, channel, healthy, dead)
	}
	observer, _ := n.connect(t, beside(c, hung, "o", userTag), "channel="+strings.Join(channels, "&channel="))
	hung.Pause()
	defer hung.Resume()
	start, stolen := time.Now(), redistest.TimeStolen(t)
	n.Restored()
	for range channels {
		if f := observer.expect("leave"); f.str("user") != healthy {
			t.Errorf("got %v", f)
		}
	}
	// An audit begins within six seconds, and a leave is told within two.
	if took := time.Since(start) - stolen(); took > 15*time.Second {
		t.Errorf("all were told after %v", took)
	}
}
