package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
)

// worker is a backend: a consumer of the group "g" on a stream of calls.
type worker struct {
	t   *testing.T
	rdb redis.UniversalClient
}

func newWorker(t *testing.T, rdb redis.UniversalClient, stream string) worker {
	t.Helper()
	if err := rdb.XGroupCreateMkStream(t.Context(), "gw:calls:"+stream, "g", "$").Err(); err != nil {
		t.Fatal(err)
	}
	return worker{t, rdb}
}

// next returns the next call on a stream, acknowledged.
func (w worker) next(stream string) map[string]any {
	w.t.Helper()
	key := "gw:calls:" + stream
	got, err := w.rdb.XReadGroup(w.t.Context(), &redis.XReadGroupArgs{
		Group: "g", Consumer: "c", Streams: []string{key, ">"}, Count: 1, Block: 5 * time.Second,
	}).Result()
	if err != nil {
		w.t.Fatalf("no call: %v", err)
	}
	e := got[0].Messages[0]
	if err := w.rdb.XAck(w.t.Context(), key, "g", e.ID).Err(); err != nil {
		w.t.Fatal(err)
	}
	return e.Values
}

func (w worker) reply(call map[string]any, data string) {
	w.t.Helper()
	body := fmt.Sprintf(`{"ref":%q,"data":%s}`, call["ref"], data)
	if err := w.rdb.Publish(w.t.Context(), call["reply_to"].(string), body).Err(); err != nil {
		w.t.Fatal(err)
	}
}

func TestCallsAreAnswered(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := startNode(t, "a", dialRedis(t, s.Addr())), startNode(t, "b", dialRedis(t, s.Addr()))
	w := newWorker(t, s.Client(t), "orders")
	alice, hello := a.connect(t, "alice", "")
	bob, _ := b.connect(t, "bob", "")
	alice.send(`{"type":"call","ref":6,"event":"orders.create","data":{"sku": 1}}`)
	call := w.next("orders")
	if call["user"] != "alice" || call["session"] != hello.str("session") || call["event"] != "orders.create" || call["data"] != `{"sku": 1}` {
		t.Errorf("call %v", call)
	}
	bob.send(`{"type":"call","ref":"x","event":"orders"}`)
	second := w.next("orders")
	if _, ok := second["data"]; ok {
		t.Errorf("call %v", second)
	}
	alice.send(`{"type":"ping","ref":7}`) // what comes next does not wait
	alice.expect("pong")
	w.reply(second, `1,"Ref":5`) // which is no reply
	w.reply(second, "null")
	w.reply(call, "{\n\"order\":\n7}")
	w.reply(call, `"again"`) // the first one counts
	if f := alice.expect("reply"); f["ref"] != 6.0 || fmt.Sprint(f["data"]) != "map[order:7]" {
		t.Errorf("reply %v", f)
	}
	if f := bob.expect("reply"); f["ref"] != "x" || f["data"] != nil {
		t.Errorf("reply %v", f)
	}
	alice.quiet()
	alice.send(`{"type":"call","event":"orders.note","data":1}`) // one way
	if call := w.next("orders"); call["reply_to"] != nil || call["ref"] != nil || call["data"] != "1" {
		t.Errorf("call %v", call)
	}
	if err := alice.write(2, "{\"type\":\"call\",\"ref\":8,\"event\":\"orders.photo\"}\n\x00\xff"); err != nil {
		t.Fatal(err)
	}
	photo := w.next("orders")
	if photo["data_base64"] != "AP8=" || photo["data"] != nil {
		t.Errorf("call %v", photo)
	}
	w.reply(photo, `"`+strings.Repeat("x", 600<<10)+`"`)
	if f := alice.expectError("too_large"); f["ref"] != 8.0 {
		t.Errorf("%v", f)
	}
}

// TestClientsCannotMakeStreams: a call to a stream that no backend has made is
// refused, and nothing of it remains (finding H3).
func TestClientsCannotMakeStreams(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		rdb := connect()
		n := startNode(t, "a", rdb)
		eve, _ := n.connect(t, "eve", "")
		keys := func() []string {
			all, err := rdb.Keys(t.Context(), "gw:*call*").Result()
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		for i := range 50 {
			eve.send(`{"type":"call","ref":%d,"event":"x%d.y","data":"%s"}`, i, i, strings.Repeat("x", 1000))
			eve.expectError("not_found")
		}
		if left := keys(); len(left) != 0 {
			t.Errorf("clients have made %q", left)
		}
		w := newWorker(t, rdb, "orders")
		alice, _ := n.connect(t, "alice", "")
		alice.send(`{"type":"call","ref":1,"event":"orders.create"}`)
		w.reply(w.next("orders"), "7")
		alice.expect("reply")
	})
}

// TestCallsTakeNoMoreMemoryThanTheyMay: what waits in Redis is bounded as Redis
// counts it, be the calls large or small (finding H3).
func TestCallsTakeNoMoreMemoryThanTheyMay(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	const bound = 512 << 10
	n := startNode(t, "a", dialRedis(t, s.Addr()), func(cfg *gateway.Config) {
		cfg.Calls.MaxBytes, cfg.Limits.MessagesPerSecond = bound, 100_000
	})
	rdb := s.Client(t)
	alice, _ := n.connect(t, "alice", "")
	for stream, size := range map[string]int{"large": 60_000, "small": 1} {
		newWorker(t, rdb, stream)
		data := strings.Repeat("x", size)
		for sent, full := 0, false; !full; sent++ {
			if sent > 10_000 {
				t.Fatal("it never is full")
			}
			alice.send(`{"type":"call","event":"%s.x","data":"%s"}`, stream, data)
			alice.send(`{"type":"ping","ref":1}`)
			if full = alice.next().str("code") == "unavailable"; full {
				alice.expect("pong")
			}
		}
		used, err := rdb.MemoryUsage(t.Context(), "gw:calls:"+stream, 0).Result()
		if err != nil || used > bound || used < bound/10 {
			t.Errorf("%s: %d bytes of %d, %v", stream, used, bound, err)
		}
	}
}

// TestClaimsRestrictCalls: a token says which events its bearer may call, if it
// says anything, or if it must.
func TestClaimsRestrictCalls(t *testing.T) {
	t.Parallel()
	rdb := embedded(t)
	open := startNode(t, "open", rdb, func(cfg *gateway.Config) { cfg.Calls.Streams = []string{"orders", "mails"} })
	strict := startNode(t, "strict", rdb, func(cfg *gateway.Config) {
		cfg.Calls.Streams, cfg.Calls.Access = []string{"orders", "mails"}, gateway.AccessToken
	})
	for _, test := range []struct {
		node    *node
		claim   any
		allowed []string
	}{
		{open, nil, []string{"orders.create", "orders.drop", "mails"}},
		{open, []string{"orders.c*", "mails"}, []string{"orders.create", "mails"}},
		{open, []string{}, nil},
		{strict, nil, nil},
		{strict, []string{"orders.*"}, []string{"orders.create", "orders.drop"}},
	} {
		c := test.node.dial(t, "connect=1&access_token="+token("alice", claims{"call": test.claim}))
		c.expect("connected")
		for _, event := range []string{"orders.create", "orders.drop", "mails"} {
			c.send(`{"type":"call","event":"%s"}`, event)
			c.send(`{"type":"ping","ref":1}`)
			f := c.next()
			if allowed := f.str("type") == "pong"; allowed != slices.Contains(test.allowed, event) || !allowed && f.str("code") != "forbidden" {
				t.Errorf("%s, claim %v, %s: %v", test.node.name, test.claim, event, f)
			}
			if f.str("type") != "pong" {
				c.expect("pong")
			}
		}
	}
}

func TestCallsThatAreNotAnswered(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	n := startNode(t, "a", dialRedis(t, s.Addr()), func(cfg *gateway.Config) {
		cfg.Calls.Timeout, cfg.Calls.MaxLen, cfg.Calls.Streams = 300*time.Millisecond, 3, []string{"mails"}
	})
	w := newWorker(t, s.Client(t), "orders")
	alice, _ := n.connect(t, "alice", "")
	alice.send(`{"type":"call","ref":1,"event":"orders.create"}`)
	late := w.next("orders")
	if f := alice.expectError("timeout"); f["ref"] != 1.0 {
		t.Errorf("%v", f)
	}
	w.reply(late, "1")
	alice.quiet()
	for _, bad := range []string{`"event":""`, `"data":1`, `"event":"or ders.x"`, `"event":".x"`, `"event":"` + strings.Repeat("x", 65) + `"`} {
		alice.send(`{"type":"call","ref":2,%s}`, bad)
		alice.expectError("bad_request")
	}
	for range 3 { // nobody reads these
		alice.send(`{"type":"call","event":"mails.send"}`)
	}
	alice.send(`{"type":"call","event":"mails.send"}`)
	alice.expectError("unavailable")
	alice.send(`{"type":"call","ref":3,"event":"third.x"}`)
	if f := alice.expectError("not_found"); f["ref"] != 3.0 {
		t.Errorf("%v", f)
	}
	s.Kill()
	alice.send(`{"type":"call","ref":4,"event":"orders.create"}`)
	for {
		f := alice.expect("error")
		if f["ref"] == 4.0 && (f.str("code") == "unavailable" || f.str("code") == "timeout") {
			return
		}
	}
}

// TestCallsAreTrimmed: what every group has acknowledged makes room.
func TestCallsAreTrimmed(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	n := startNode(t, "a", dialRedis(t, s.Addr()), func(cfg *gateway.Config) { cfg.Calls.MaxLen = 5 })
	rdb := s.Client(t)
	w := newWorker(t, rdb, "orders")
	if err := rdb.XGroupCreate(context.Background(), "gw:calls:orders", "other", "$").Err(); err != nil {
		t.Fatal(err)
	}
	alice, _ := n.connect(t, "alice", "")
	for range 5 {
		alice.send(`{"type":"call","event":"orders.create"}`)
		w.next("orders")
	}
	alice.send(`{"type":"call","event":"orders.create"}`)
	alice.expectError("unavailable") // the other group has not read them
	read, err := rdb.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "other", Consumer: "c", Streams: []string{"gw:calls:orders", ">"}, Count: 4}).Result()
	if err != nil || len(read[0].Messages) != 4 {
		t.Fatalf("%v, %v", read, err)
	}
	for _, m := range read[0].Messages[1:] { // the first one stays pending
		rdb.XAck(t.Context(), "gw:calls:orders", "other", m.ID)
	}
	alice.send(`{"type":"call","event":"orders.create"}`)
	alice.expectError("unavailable")
	rdb.XAck(t.Context(), "gw:calls:orders", "other", read[0].Messages[0].ID)
	alice.send(`{"type":"call","event":"orders.create"}`)
	alice.quiet()
	if length := rdb.XLen(t.Context(), "gw:calls:orders").Val(); length != 2 {
		t.Errorf("%d entries are left, want one that was not read and the new one", length)
	}
}
