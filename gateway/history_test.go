package gateway_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
)

// big fills a channel with messages that are nearly as large as they may be.
func (n *node) big(t testing.TB, channel string, messages int) {
	t.Helper()
	element := fmt.Sprintf(`,{"channel":%q,"data":%q}`, channel, strings.Repeat("x", 60_000))
	for left := messages; left > 0; left -= 10 {
		if status, answer := n.call(t, "POST", "/v1/publish", "["+strings.Repeat(element, min(left, 10))[1:]+"]"); status != 200 {
			t.Fatalf("%d %v", status, answer)
		}
	}
}

// statistic returns a number that INFO has.
func statistic(t testing.TB, rdb redis.UniversalClient, section, name string) int {
	t.Helper()
	info, err := rdb.Info(context.Background(), section).Result()
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(regexp.QuoteMeta(name) + `(\d+)`).FindStringSubmatch(info)
	if found == nil {
		return 0
	}
	number, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return number
}

// sent returns how many bytes a Redis has sent to whoever.
func sent(t testing.TB, rdb redis.UniversalClient) int {
	t.Helper()
	return statistic(t, rdb, "stats", "total_net_output_bytes:")
}

// TestHistoryReadsWhatItAnswers: what nobody is told is not read, and of what is
// not much more than that (finding H6).
func TestHistoryReadsWhatItAnswers(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client(t)
	n := startNode(t, "a", rdb, deep)
	n.big(t, "deep:1", 100)
	c, _ := n.connect(t, "alice", "")
	const noise = 200_000 // probes, heartbeats, and the answers to this test
	before := sent(t, rdb)
	c.send("[%s]", strings.Repeat(`,{"type":"history","channel":"deep:1","since":"0","limit":1000}`, 100)[1:])
	c.send(`{"type":"ping","ref":1}`)
	c.expect("pong")
	if read := sent(t, rdb) - before; read > noise {
		t.Errorf("%d bytes were read for nobody", read)
	}
	for _, limit := range []int{1, 5, 1000} {
		before = sent(t, rdb)
		c.send(`{"type":"history","ref":1,"channel":"deep:1","since":"0","limit":%d}`, limit)
		f := c.expect("history")
		messages, _ := f["messages"].([]any)
		want := min(limit, 512<<10/60_000+1)
		if len(messages) != want || f["recovered"] != true {
			t.Errorf("limit %d: %d messages, want %d; recovered: %v", limit, len(messages), want, f["recovered"])
		}
		if read := sent(t, rdb) - before; read > want*60_000+noise {
			t.Errorf("limit %d: %d bytes were read for %d messages", limit, read, len(messages))
		}
	}
}

// TestHistoryVouchesForNoGap: messages are trimmed after the channel was asked
// where it stands, and before they are read (finding A9).
func TestHistoryVouchesForNoGap(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := redistest.NewProxy(t, server.Addr())
	far, near := startNode(t, "far", dialRedis(t, p.Addr())), startNode(t, "near", server.Client(t))
	rdb := server.Client(t)
	c, _ := far.connect(t, "bob", "")
	publish := func(from, to int) (first string) {
		elements := ""
		for i := from; i < to; i++ {
			elements += fmt.Sprintf(`,{"channel":"open:1","data":%d}`, i)
		}
		_, answer := near.call(t, "POST", "/v1/publish", "["+elements[1:]+"]")
		return frame(answer.([]any)[0].(map[string]any)).str("id")
	}
	first := publish(0, 10)
	// Redis has the scripts.
	expectHas(t, c.reply(`{"type":"history","ref":1,"channel":"open:1","since":%q}`, first), frame{"recovered": true})
	p.SetLatency(100 * time.Millisecond)
	for at := 0; ; at += 50 {
		if at == 500 {
			t.Fatal("nothing was ever trimmed at the right moment")
		}
		first := publish(at, at+10)
		looked := statistic(t, rdb, "commandstats", "cmdstat_xrange:calls=")
		c.send(`{"type":"history","ref":2,"channel":"open:1","since":%q,"limit":100}`, first)
		await(t, func() error { // the head is known, the page not asked for
			if got := statistic(t, rdb, "commandstats", "cmdstat_xrange:calls="); got == looked {
				return fmt.Errorf("%d calls", got)
			}
			return nil
		})
		publish(at+10, at+50)
		f := c.expect("history")
		if f["recovered"] != true {
			break
		}
		for i, m := range f["messages"].([]any) {
			if got, want := frame(m.(map[string]any))["data"], float64(at+1+i); got != want {
				t.Fatalf("recovered, but message %d is %v, want %v", i, got, want)
			}
		}
	}
}

// TestPagesWaitForMemory: requests that read wait for each other where the node
// would have too much in memory, in vain if that takes longer than they may, and
// leave nothing of it taken (findings H5, H6).
func TestPagesWaitForMemory(t *testing.T) {
	t.Parallel()
	m := redistest.Embedded(t)
	p := redistest.NewProxy(t, m.Addr())
	n := startNode(t, "a", dialRedis(t, p.Addr()), func(cfg *gateway.Config) { cfg.Limits.Memory = 256 << 20 })
	const request = `{"type":"history","ref":1,"channel":"open:1","since":"0"}`
	clients := make([]*client, 40) // about 18 may read at a time
	for i := range clients {
		clients[i], _ = n.connect(t, fmt.Sprint("user", i), "")
	}
	ask := func(kind string) time.Duration {
		start := time.Now()
		for _, c := range clients {
			c.send(request)
		}
		for _, c := range clients {
			c.expect(kind)
		}
		return time.Since(start)
	}
	ask("history") // Redis has the script
	const roundTrip = 300 * time.Millisecond
	p.SetLatency(roundTrip / 2)
	if took := ask("history"); took < 2*roundTrip || took > answersWithin {
		t.Errorf("all were answered after %v: not in turns", took)
	}
	p.SetLatency(0)
	p.Blackhole(true)
	if took := ask("error"); took > answersWithin {
		t.Errorf("they were answered after %v", took)
	}
	p.Blackhole(false)
	await(t, func() (failed error) { // links that broke meanwhile may fail once more
		for _, c := range clients {
			c.send(request)
		}
		for _, c := range clients {
			if f := c.next(); f.str("type") != "history" {
				failed = fmt.Errorf("got %v", f)
			}
		}
		return failed
	})
}

// TestHistoryBack scrolls back from the end: nothing is left out or repeated, and
// more is said as long as there is any.
func TestHistoryBack(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		n := startNode(t, "a", connect(), deep)
		c, _ := n.connect(t, "alice", "")
		var published []string
		for i := range 30 {
			size := []int{1, 50, 3000}[i%3]
			published = append(published, n.publish(t, fmt.Sprintf(`{"channel":"deep:1","data":%q}`, strings.Repeat("x", size))))
		}
		c.send(`{"type":"history","ref":1,"channel":"deep:2","before":""}`)
		if f := c.expect("history"); len(f["messages"].([]any)) != 0 || f["more"] != false {
			t.Errorf("of an empty channel: %v", f)
		}
		for _, limit := range []int{1, 7, 10, 30, 100} {
			var read []string
			before := ""
			for more := true; more; {
				c.send(`{"type":"history","ref":1,"channel":"deep:1","before":%q,"limit":%d}`, before, limit)
				f := c.expect("history")
				var ids []string
				for _, m := range f["messages"].([]any) {
					ids = append(ids, frame(m.(map[string]any)).str("id"))
				}
				if len(ids) == 0 {
					t.Fatalf("limit %d: nothing before %q: %v", limit, before, f)
				}
				read = append(ids, read...)
				before, more = ids[0], f["more"] == true
				if _, has := f["recovered"]; has {
					t.Error("recovered is told of what is before a position")
				}
			}
			if !slices.Equal(read, published) {
				t.Errorf("limit %d: read %d messages, published %d", limit, len(read), len(published))
			}
		}
		c.send(`{"type":"history","ref":1,"channel":"deep:1","before":%q}`, published[0])
		if f := c.expect("history"); len(f["messages"].([]any)) != 0 || f["more"] != false {
			t.Errorf("before the first: %v", f)
		}
		for _, bad := range []string{`"before":"x"`, `"before":"0-0-0"`, `"before":5`, fmt.Sprintf(`"before":"","since":%q`, published[1])} {
			c.send(`{"type":"history","ref":1,"channel":"deep:1",%s}`, bad)
			c.expectError("bad_request")
		}
		c.send(`{"type":"history","ref":1,"channel":"deep:1","before":"0-0"}`)
		c.expect("history")
	})
}
