package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"

	"wssgateway/gateway"
)

// deep adds a class whose history outlives any test.
func deep(cfg *gateway.Config) {
	cfg.Classes["deep"] = gateway.Class{
		History:   gateway.History{Size: 1_000_000, TTL: time.Hour},
		Subscribe: gateway.AccessAny, Publish: gateway.AccessAny,
	}
}

// stored returns the ids of all messages of a channel, as Redis has them.
func stored(t *testing.T, rdb redis.UniversalClient, channel string) []string {
	t.Helper()
	entries, err := rdb.XRange(context.Background(), "gw:{0}:stream:"+channel, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, len(entries))
	for i, e := range entries {
		ids[i] = e.ID
	}
	return ids
}

// flood publishes to a channel through a node, as fast as it can, until stop is
// called, which returns once all of it is answered.
func (n *node) flood(t *testing.T, channel, data string) (stop func()) {
	always := make(chan struct{})
	close(always)
	return n.publishInTurns(t, channel, data, always)
}

// publishInTurns is flood for a reader that grants each batch: however slow it is,
// there is no more to read.
func (n *node) publishInTurns(t *testing.T, channel, data string, turns <-chan struct{}) (stop func()) {
	const batch = 10
	body := "[" + strings.Repeat(fmt.Sprintf(`{"channel":%q,"data":%s},`, channel, data), batch)
	body = strings.TrimSuffix(body, ",") + "]"
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			case <-turns:
			}
			select {
			case <-end:
				return
			default:
			}
			if status, answer := n.call(t, "POST", "/v1/publish", body); status != http.StatusOK {
				t.Errorf("publish: %d %v", status, answer)
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(end); <-done })
}

// journal is what a client went through on one channel of one connection.
type journal struct {
	channel string
	steps   []step
}

type step struct {
	kind  string // type of the frame
	id    string // message
	since string // subscribed, connected: what was asked for
	last  string
}

// check fails unless, in every stretch, messages follow on the position that was
// asked for, or from where the reply says that the channel stands, one by one.
func (j *journal) check(t *testing.T, stored []string) {
	t.Helper()
	index := map[string]int{"": -1, "0-0": -1, "0": -1}
	for i, id := range stored {
		index[id] = i
	}
	const nowhere = -1
	next := nowhere // index of the message that must come
	for n, s := range j.steps {
		at := fmt.Sprintf("%s: step %d of %d (%+v)", j.channel, n, len(j.steps), s)
		switch s.kind {
		case "message":
			if i, ok := index[s.id]; !ok || next == nowhere || i != next {
				t.Fatalf("%s: is message %d, want %d; before: %+v", at, i, next, j.steps[max(0, n-5):n])
			}
			next++
		case "unsubscribed":
			next = nowhere
		default:
			last, ok := index[s.last]
			if !ok {
				t.Fatalf("%s: last was never stored", at)
			}
			switch {
			case s.since != "":
				next = index[s.since] + 1
			case next == nowhere:
				next = last + 1
			case next > last+1: // else a replay goes on
				t.Fatalf("%s: last is message %d, but the next to come was %d", at, last, next)
			}
		}
	}
}

// read takes in what comes until n messages are newer than the last reply.
func (j *journal) read(c *client, n int) {
	c.t.Helper()
	last := j.steps[len(j.steps)-1].last
	for n > 0 {
		if f := c.expect("message"); j.message(f) && newer(f.str("id"), last) {
			n--
		}
	}
}

// message takes in a frame if it is a message of the channel.
func (j *journal) message(f frame) bool {
	if f.str("type") != "message" || f.str("channel") != j.channel {
		return false
	}
	j.steps = append(j.steps, step{kind: "message", id: f.str("id")})
	return true
}

// await takes in messages until the reply of a type comes, and then that.
func (j *journal) await(c *client, kind, since string) {
	c.t.Helper()
	for {
		f := c.next()
		if j.message(f) {
			continue
		}
		if f.str("type") != kind {
			c.t.Fatalf("got %v, want %s", f, kind)
		}
		if kind == "connected" {
			f = f.channel(j.channel)
		}
		if kind != "unsubscribed" && f["recovered"] != true {
			c.t.Errorf("since %q: not recovered: %v", since, f)
		}
		j.steps = append(j.steps, step{kind: kind, since: since, last: f.str("last")})
		return
	}
}

// seen returns a position that the client may have: mostly one of the last.
func (j *journal) seen(random *rand.Rand) string {
	var ids []string
	for _, s := range j.steps[max(0, len(j.steps)-400):] {
		if s.id != "" {
			ids = append(ids, s.id)
		}
	}
	if len(ids) == 0 {
		return "0"
	}
	return ids[random.IntN(len(ids))]
}

// newer reports whether id comes after other.
func newer(id, other string) bool {
	var a, b [2]uint64
	fmt.Sscanf(id, "%d-%d", &a[0], &a[1])
	fmt.Sscanf(other, "%d-%d", &b[0], &b[1])
	return slices.Compare(a[:], b[:]) > 0
}

// TestReplayWhilePublishing has clients subscribe, again and again, leave and
// reconnect with positions, while messages come through both nodes.
func TestReplayWhilePublishing(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		rdb := connect()
		nodes := []*node{startNode(t, "a", connect(), deep), startNode(t, "b", connect(), deep)}
		const clients, rounds = 4, 40
		for part := range 2 { // "0" is a short replay on a young channel
			channel := fmt.Sprintf("deep:%d", part)
			stops := []func(){nodes[0].flood(t, channel, `"x"`), nodes[1].flood(t, channel, `"y"`)}
			var wg sync.WaitGroup
			journals := make([][]*journal, clients)
			for i := range clients {
				wg.Go(func() {
					journals[i] = wander(t, nodes, channel, rand.New(rand.NewPCG(uint64(part), uint64(i))), rounds)
				})
			}
			wg.Wait()
			for _, stop := range stops {
				stop()
			}
			all := stored(t, rdb, channel)
			for _, js := range journals {
				for _, j := range js {
					j.check(t, all)
				}
			}
			t.Logf("%d messages", len(all))
		}
	})
}

// TestFirstSubscriberWhilePublishing has one client come and go alone: each time
// the node's subscription is a new one, and messages come as it begins. They come in
// turns: the embedded Redis looks through all of a stream for a part of it.
func TestFirstSubscriberWhilePublishing(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		n := startNode(t, "a", connect(), deep, func(cfg *gateway.Config) { cfg.Limits.MessagesPerSecond = 100_000 })
		const channel = "deep:1"
		const rounds = 300
		turns := make(chan struct{}, 3*rounds)
		stops := []func(){n.publishInTurns(t, channel, `"x"`, turns), n.publishInTurns(t, channel, `"y"`, turns)}
		c, _ := n.connect(t, "alice", "")
		j := &journal{channel: channel}
		since := ""
		for range rounds {
			turns <- struct{}{} // as it begins
			turns <- struct{}{}
			c.send(`{"type":"subscribe","channel":%q,"since":%q}`, channel, since)
			j.await(c, "subscribed", since)
			turns <- struct{}{} // for certain after that
			j.read(c, 1)
			since = j.steps[len(j.steps)-1].id
			c.send(`{"type":"unsubscribe","ref":1,"channel":%q}`, channel)
			j.await(c, "unsubscribed", "")
		}
		for _, stop := range stops {
			stop()
		}
		j.check(t, stored(t, connect(), channel))
	})
}

// wander is one client of TestReplayWhilePublishing. It returns a journal of
// each of its connections.
func wander(t *testing.T, nodes []*node, channel string, random *rand.Rand, rounds int) (journals []*journal) {
	var c *client
	j := &journal{channel: channel}
	reconnect := func() {
		since := ""
		if len(j.steps) > 0 {
			since = j.seen(random)
		}
		j = &journal{channel: channel, steps: []step{}}
		journals = append(journals, j)
		c = nodes[random.IntN(2)].dial(t, "access_token="+token("alice")+"&channel="+channel+"@"+since)
		if since == "" { // then it is a part of the name
			c.conn.CloseNow()
			c = nodes[random.IntN(2)].dial(t, "access_token="+token("alice")+"&channel="+channel)
		}
		j.await(c, "connected", since)
	}
	reconnect()
	for range rounds {
		switch since := j.seen(random); random.IntN(6) {
		case 0:
			c.conn.CloseNow()
			reconnect()
		case 1:
			c.send(`{"type":"unsubscribe","ref":1,"channel":%q}`, channel)
			j.await(c, "unsubscribed", "")
			c.send(`{"type":"ping","ref":2}`)
			c.expect("pong") // nothing in between
			fallthrough
		case 2, 3:
			if random.IntN(10) == 0 {
				since = "0"
			}
			c.send(`{"type":"subscribe","ref":3,"channel":%q,"since":%q}`, channel, since)
			j.await(c, "subscribed", since)
		case 4: // twice at once: the first replay is broken off
			c.send(`[{"type":"subscribe","channel":%q,"since":%q},{"type":"subscribe","channel":%[1]q,"since":%[2]q}]`, channel, since)
			j.await(c, "subscribed", since)
			j.await(c, "subscribed", since)
		case 5:
			c.send(`{"type":"subscribe","ref":4,"channel":%q}`, channel)
			j.await(c, "subscribed", "")
		}
		if random.IntN(4) > 0 { // else break the replay off
			j.read(c, 1+random.IntN(30))
		}
	}
	c.conn.CloseNow()
	return journals
}

// narrowDialer leaves little room between client and server.
var narrowDialer = &net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
	control := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 32<<10)
	})
	return errors.Join(err, control)
}}

// narrow is dial with a narrowDialer.
func (n *node) narrow(t *testing.T, query string) *client {
	t.Helper()
	transport := &http.Transport{DialContext: narrowDialer.DialContext}
	conn, _, err := websocket.Dial(t.Context(), n.url+"?"+query, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(1 << 24)
	t.Cleanup(func() { conn.CloseNow() })
	return &client{t, conn}
}

// TestSlowReplay: a client takes its time over a replay while so much comes that
// it cannot be kept. It gets all of it, and a client beside it is not held up.
func TestSlowReplay(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		rdb := connect()
		n := startNode(t, "a", connect(), deep, func(cfg *gateway.Config) {
			cfg.Limits.FrameSize, cfg.Limits.Outbox = 16<<10, 256<<10
		})
		const channel = "deep:1"
		body := strings.Repeat(fmt.Sprintf(`,{"channel":%q,"data":%q}`, channel, strings.Repeat("x", 8000)), 20)[1:]
		publish100 := func() {
			for range 5 {
				if status, answer := n.call(t, "POST", "/v1/publish", "["+body+"]"); status != http.StatusOK {
					t.Fatalf("%d %v", status, answer)
				}
			}
		}
		// More than there is room for between the node and a reader that does not
		// read; and then more than half of the outbox, which is kept.
		const before, meanwhile = 200, 100
		publish100()
		publish100()
		slow := n.narrow(t, "access_token="+token("slow")+"&connect=1")
		slow.expect("connected")
		quick := n.hold(t, "quick", "", channel, "")
		slow.send(`{"type":"subscribe","channel":%q,"since":"0"}`, channel)
		j := &journal{channel: channel}
		j.await(slow, "subscribed", "0")
		publish100()
		all := stored(t, rdb, channel)
		quick.awaitPosition(t, all[len(all)-1])

		stop := n.flood(t, channel, `"y"`)
		j.read(slow, meanwhile+100)
		stop()
		all = stored(t, rdb, channel)
		j.readTo(slow, all[len(all)-1])
		quick.awaitPosition(t, all[len(all)-1])
		j.check(t, all)
		quick.check(t, all)
		if got := n.metric("gateway_replayed_total"); got < before+meanwhile {
			t.Errorf("%v messages were replayed: what came meanwhile was kept", got)
		}
	})
}

// readTo takes in messages up to that with the id.
func (j *journal) readTo(c *client, id string) {
	c.t.Helper()
	for j.steps[len(j.steps)-1].id != id {
		if !j.message(c.next()) {
			c.t.Fatal("not a message")
		}
	}
}

// metric returns the value of a metric, the sum over its labels.
func (n *node) metric(name string) (sum float64) {
	families, err := n.metrics.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// TestManyReplaysAtOnce: a client comes back to many channels, reads slowly, and
// is not too slow.
func TestManyReplaysAtOnce(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		rdb := connect()
		n := startNode(t, "a", connect(), deep, func(cfg *gateway.Config) {
			cfg.Limits.FrameSize, cfg.Limits.Outbox = 16<<10, 64<<10
		})
		const channels, messages = 40, 5
		query := "access_token=" + token("alice")
		element := fmt.Sprintf(`{"channel":"deep:%%d","data":%q}`, strings.Repeat("x", 8000))
		for i := range channels {
			body := strings.Repeat(","+fmt.Sprintf(element, i), messages)[1:]
			if status, answer := n.call(t, "POST", "/v1/publish", "["+body+"]"); status != http.StatusOK {
				t.Fatalf("%d %v", status, answer)
			}
			query += fmt.Sprintf("&channel=deep:%d@0", i)
		}
		c := n.narrow(t, query)
		hello := c.expect("connected")
		journals := map[string]*journal{}
		for i := range channels {
			name := fmt.Sprintf("deep:%d", i)
			journals[name] = &journal{name, []step{{kind: "connected", since: "0", last: hello.channel(name).str("last")}}}
		}
		for range channels * messages {
			f := c.expect("message")
			journals[f.str("channel")].message(f)
		}
		for name, j := range journals {
			if j.check(t, stored(t, rdb, name)); len(j.steps) != 1+messages {
				t.Errorf("%s: %d messages", name, len(j.steps)-1)
			}
		}
	})
}

// TestSubscribingAgainWithoutHistory: on a class that keeps nothing, subscribing
// again loses nothing and repeats nothing either.
func TestSubscribingAgainWithoutHistory(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		n := startNode(t, "a", connect(), func(cfg *gateway.Config) { cfg.Limits.MessagesPerSecond = 100_000 })
		const channel = "plain:1"
		c, _ := n.connect(t, "alice", "channel="+channel)
		p := publishSteadily(t, channel, n)
		at := 0.0
		message := func(f frame) {
			if d, ok := f["data"].(float64); !ok || at > 0 && d != at+1 {
				t.Fatalf("after %v: %v", at, f)
			}
			at++
		}
		at = c.expect("message")["data"].(float64)
		for range 300 {
			c.send(`[{"type":"subscribe","channel":%q},{"type":"subscribe","channel":%[1]q,"since":"5-5"},{"type":"subscribe","channel":%[1]q}]`, channel)
			for replies := 0; replies < 3; {
				if f := c.next(); f.str("type") == "subscribed" {
					replies++
				} else {
					message(f)
				}
			}
			message(c.next())
		}
		for last := float64(p.stop()); at < last; {
			message(c.next())
		}
	})
}
