package gateway_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"wssgateway/gateway"
)

// illegal are names, in JSON, that no channel can have.
var illegal = []string{
	`""`, `"a b"`, `"a\tb"`, `"a\nb"`, `"a\u0000b"`, `"a\u007fb"`, `"a\u0085b"`, `"a\u00a0b"`, `"a\u2028b"`, `"a\u3000b"`, `" a"`, `"a "`,
	`"a\u200bb"`, `"a\u200d"`, `"\u202ea"`, `"\ufeffa"`, `"a\u00ad"`, "\"a\U000e0001\"", // format characters (finding L7)
	`"a*b"`, `"*"`, `"a{b"`, `"a}b"`, `"{}"`, `null`, `5`, `[]`, `{}`, `true`,
	`"` + strings.Repeat("c", 256) + `"`, `"` + strings.Repeat("é", 128) + `"`,
}

func TestChannelNames(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "")
	for _, name := range illegal {
		for _, request := range []string{
			`{"type":"subscribe","ref":1,"channel":%s}`, `{"type":"unsubscribe","ref":1,"channel":%s}`,
			`{"type":"history","ref":1,"channel":%s}`, `{"type":"publish","ref":1,"channel":%s,"data":1}`,
		} {
			f := c.reply(request, name)
			if !f.has(frame{"type": "error", "code": "bad_request", "ref": 1.0}) {
				t.Errorf("%s with %.20s got %v", request, name, f)
			}
		}
	}
	for _, kind := range []string{"subscribe", "unsubscribe", "history"} {
		expectHas(t, c.reply(`{"type":%q,"ref":1}`, kind), frame{"code": "bad_request", "ref": 1.0})
	}
	for _, name := range []string{
		"a", ":", "a:", ":a", "a:b:c", "room:é😀", `room:\"q\"\\`, "room:<&>", "room:a/b?c#d%20", "room:a@0", "room:,;", "room:\u0301",
		strings.Repeat("c", 255), strings.Repeat("é", 127), "user", "broadcast:x", "ROOM:1",
	} {
		subscribed := c.reply(`{"type":"subscribe","ref":1,"channel":"%s"}`, name)
		if name == "user" { // nobody's inbox, but of that class
			expectHas(t, subscribed, frame{"code": "forbidden"})
			continue
		}
		expectHas(t, subscribed, frame{"type": "subscribed", "last": "0-0", "recovered": true})
		id := n.publish(t, fmt.Sprintf(`{"channel":"%s","data":"x"}`, name))
		expectHas(t, c.expect("message"), frame{"channel": subscribed["channel"], "id": id, "data": "x"})
		expectHas(t, c.reply(`{"type":"unsubscribe","ref":1,"channel":"%s"}`, name), frame{"type": "unsubscribed", "channel": subscribed["channel"]})
	}
}

func TestSubscribe(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		n := startNode(t, "a", connect(), patient)
		c, _ := n.connect(t, "alice", "")
		var ids []string
		for i := range 3 {
			ids = append(ids, n.publish(t, fmt.Sprintf(`{"channel":"room:1","event":"e","data":%d}`, i)))
		}
		for _, since := range []string{`5`, `"x"`, `"1"`, `"1-"`, `"-1"`, `"1-0-0"`, `"0x1-0"`, `" 0"`, `"99999999999999999999-0"`, `[]`, `"+1-0"`} {
			expectHas(t, c.reply(`{"type":"subscribe","ref":1,"channel":"room:1","since":%s}`, since), frame{"code": "bad_request", "ref": 1.0})
			expectHas(t, c.reply(`{"type":"history","ref":1,"channel":"room:1","since":%s}`, since), frame{"code": "bad_request", "ref": 1.0})
		}
		expectHas(t, c.reply(`{"type":"subscribe","ref":1,"channel":"room:1","since":""}`),
			frame{"type": "subscribed", "channel": "room:1", "last": ids[2], "recovered": true, "ref": 1.0})
		c.quiet()
		for i, since := range []string{"0", "0-0", ids[0], ids[1]} { // again, and what follows is replayed again
			c.send(`{"type":"subscribe","ref":2,"channel":"room:1","since":%q}`, since)
			expectHas(t, c.expect("subscribed"), frame{"ref": 2.0, "last": ids[2]})
			for _, id := range ids[max(0, i-1):] {
				expectHas(t, c.expect("message"), frame{"id": id, "channel": "room:1", "event": "e", "from": nil})
			}
		}
		expectHas(t, c.reply(`{"type":"subscribe","ref":3,"channel":"room:1","since":null}`), frame{"type": "subscribed", "last": ids[2]})
		expectHas(t, c.reply(`{"type":"subscribe","ref":4,"channel":"room:1","since":%q}`, ids[2]), frame{"last": ids[2], "recovered": true})
		last := n.publish(t, `{"channel":"room:1","data":"live"}`)
		expectHas(t, c.expect("message"), frame{"id": last, "data": "live"})
		c.quiet() // each once, however often it was subscribed to
	})
}

func TestUnsubscribe(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c := n.dial(t, query("access_token", token("alice", claims{"join": []string{"room:joined"}}), "channel", "room:1"))
	c.expect("connected")
	for channel, want := range map[string]frame{
		"user:alice":  {"type": "error", "code": "forbidden", "ref": 1.0},
		"broadcast":   {"type": "error", "code": "forbidden", "ref": 1.0},
		"room:never":  {"type": "unsubscribed", "channel": "room:never", "ref": 1.0},
		"room:1":      {"type": "unsubscribed", "channel": "room:1", "ref": 1.0},
		"room:joined": {"type": "unsubscribed", "channel": "room:joined", "ref": 1.0},
	} {
		expectHas(t, c.reply(`{"type":"unsubscribe","ref":1,"channel":%q}`, channel), want)
	}
	n.publish(t, `[{"channel":"room:1","data":1},{"channel":"room:joined","data":1}]`)
	n.publish(t, `{"to":"alice","data":"inbox"}`)
	expectHas(t, c.expect("message"), frame{"channel": "user:alice"})
	n.publish(t, `{"channel":"broadcast","data":"all"}`)
	expectHas(t, c.expect("message"), frame{"channel": "broadcast"})
	c.quiet()
}

func TestNothingComesAfterUnsubscribed(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "")
	p, _ := n.connect(t, "bob", "")
	for i := range 50 {
		c.send(`{"type":"subscribe","ref":1,"channel":"room:1"}`)
		c.expect("subscribed")
		for range 5 {
			p.send(`{"type":"publish","channel":"room:1","data":%d}`, i)
		}
		c.send(`{"type":"unsubscribe","ref":2,"channel":"room:1"}`)
		for c.next().str("type") == "message" {
		}
		p.quiet() // all are published
		c.quiet()
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		n := startNode(t, "a", connect(), patient, func(cfg *gateway.Config) {
			cfg.Classes["long"] = gateway.Class{History: gateway.History{Size: 2000, TTL: 3600e9}, Subscribe: gateway.AccessToken, Publish: gateway.AccessToken}
		})
		c, _ := n.connect(t, "alice", "")
		expectHas(t, c.reply(`{"type":"history","ref":1,"channel":"long:1"}`), frame{"type": "history", "channel": "long:1", "recovered": true, "ref": 1.0})
		var ids []string
		for page := range 11 {
			var elements []string
			for i := range 100 {
				elements = append(elements, fmt.Sprintf(`{"channel":"long:1","data":%d}`, page*100+i))
			}
			_, answer := n.call(t, "POST", "/v1/publish", "["+strings.Join(elements, ",")+"]")
			for _, a := range answer.([]any) {
				ids = append(ids, frame(a.(map[string]any)).str("id"))
			}
		}
		for fields, want := range map[string]struct{ from, n int }{
			``:                          {0, 50},
			`,"since":"0"`:              {0, 50},
			`,"since":"","limit":null`:  {0, 50},
			`,"since":"0","limit":1`:    {0, 1},
			`,"limit":99`:               {0, 99},
			`,"limit":100`:              {0, 100},
			`,"limit":101`:              {0, 101},
			`,"since":"0","limit":1000`: {0, 1000},
			`,"since":"` + ids[0] + `"`: {1, 50},
			`,"limit":1000,"since":"` + ids[999] + `"`:  {1000, 100},
			`,"limit":1000,"since":"` + ids[1098] + `"`: {1099, 1},
			`,"since":"` + ids[1099] + `"`:              {1100, 0},
		} {
			f := c.reply(`{"type":"history","ref":1,"channel":"long:1"%s}`, fields)
			expectHas(t, f, frame{"type": "history", "recovered": true})
			messages, ok := f["messages"].([]any)
			if !ok || len(messages) != want.n {
				t.Errorf("%s: %d messages, want %d", fields, len(messages), want.n)
				continue
			}
			for i, m := range messages {
				expectHas(t, m.(map[string]any), frame{"id": ids[want.from+i], "data": float64(want.from + i), "from": nil, "channel": nil, "type": nil})
			}
		}
		for _, limit := range []string{`0`, `-1`, `1001`, `1.5`, `"5"`, `[]`, `true`, `1e2`, `99999999999999999999`} {
			expectHas(t, c.reply(`{"type":"history","ref":1,"channel":"long:1","limit":%s}`, limit), frame{"code": "bad_request", "ref": 1.0})
		}
	})
}

func TestHistoryFields(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "")
	n.publish(t, `{"channel":"room:1","data_base64":"AAEK/w=="}`)
	c.send(`{"type":"publish","ref":1,"channel":"room:1","event":"chat","data":{"a":[1,null]}}`)
	id := c.expect("published").str("id")
	f := c.reply(`{"type":"history","ref":1,"channel":"room:1"}`)
	messages := f["messages"].([]any)
	if len(messages) != 2 {
		t.Fatalf("got %v", f)
	}
	expectHas(t, messages[0].(map[string]any), frame{"id": true, "data_base64": "AAEK/w==", "data": nil, "event": nil, "from": nil})
	expectHas(t, messages[1].(map[string]any), frame{"id": id, "data_base64": nil, "data": nil, "event": "chat", "from": "alice"}.without("data"))
	if got := fmt.Sprint(messages[1].(map[string]any)["data"]); got != "map[a:[1 <nil>]]" {
		t.Errorf("data %s", got)
	}
	c.send(`{"type":"publish","to":"alice","data":"note to self"}`)
	c.expect("message")
	f = c.reply(`{"type":"history","ref":1,"channel":"user:alice"}`)
	expectHas(t, f["messages"].([]any)[0].(map[string]any), frame{"to": "alice", "from": "alice", "data": "note to self"})

	for channel, code := range map[string]string{"plain:1": "not_found", "user:bob": "forbidden", "user": "forbidden"} {
		expectHas(t, c.reply(`{"type":"history","ref":1,"channel":%q}`, channel), frame{"code": code, "ref": 1.0})
	}
	for i := range 30 {
		n.publish(t, fmt.Sprintf(`{"channel":"open:1","data":%d}`, i))
	}
	expectHas(t, c.reply(`{"type":"history","ref":1,"channel":"open:1","since":%q}`, id), frame{"recovered": false})
	expectHas(t, c.reply(`{"type":"history","ref":1,"channel":"open:1","since":"1-0"}`), frame{"recovered": false})
	expectHas(t, c.reply(`{"type":"history","ref":1,"channel":"open:1","since":"0"}`), frame{"recovered": true})
}

// without returns f without a key.
func (f frame) without(key string) frame {
	g := frame{}
	for k, v := range f {
		if k != key {
			g[k] = v
		}
	}
	return g
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient, func(cfg *gateway.Config) {
		for _, subscribe := range []gateway.Access{"none", "token", "any"} {
			for _, publish := range []gateway.Access{"none", "token", "any"} {
				cfg.Classes[string(subscribe+"-"+publish)] = gateway.Class{
					History: gateway.History{Size: 10, TTL: 60e9}, Subscribe: subscribe, Publish: publish,
				}
			}
		}
	})
	try := func(c *client, kind, channel string) bool {
		t.Helper()
		f := c.reply(`{"type":%q,"ref":1,"channel":%q,"data":1}`, kind, channel)
		if f.str("code") != "" && f.str("code") != "forbidden" {
			t.Fatalf("%s %s: %v", kind, channel, f)
		}
		return f.str("code") == ""
	}
	all, _ := n.connect(t, "all", "")
	nothing := n.dial(t, query("access_token", token("nothing", claims{"subscribe": nil, "publish": nil}), "connect", "1"))
	nothing.expect("connected")
	for _, subscribe := range []string{"none", "token", "any"} {
		for _, publish := range []string{"none", "token", "any"} {
			channel := subscribe + "-" + publish + ":1"
			for who, c := range map[string]*client{"all": all, "nothing": nothing} {
				for kind, access := range map[string]string{"subscribe": subscribe, "history": subscribe, "publish": publish} {
					want := access == "any" || access == "token" && who == "all"
					if got := try(c, kind, channel); got != want {
						t.Errorf("%s may %s on %s: %v", who, kind, channel, got)
					}
				}
			}
			n.publish(t, fmt.Sprintf(`{"channel":%q,"data":1}`, channel)) // backends may
		}
	}

	some := n.dial(t, query("access_token", token("some", claims{
		"subscribe": []string{"room:*:read", "exact", "*tail", "a**b", "user:*", "broadcast", "x*y*z", "none-none:1"},
		"publish":   []string{"user:bob*", "broadcast", "room:1"},
		"join":      []string{"lobby:1"},
	}), "connect", "1"))
	some.expect("connected")
	for channel, want := range map[string]bool{
		"room:1:read": true, "room::read": true, "room:a:b:read": true, "room:read": false, "room:1:write": false, "room:1:reader": false,
		"exact": true, "exactly": false, "exac": false, "tail": true, "xtail": true, "tailx": false, "ab": true, "a:b": true, "a:c": false,
		"xyz": true, "xyyzz": true, "xzy": false, "yxz": false, "lobby:1": true, "lobby:2": false,
		"user:some": true, "user:bob": false, "user:": false, "broadcast": true, "none-none:1": false, "token-token:1": false, "any-none:1": true,
	} {
		if got := try(some, "subscribe", channel); got != want {
			t.Errorf("may subscribe to %s: %v", channel, got)
		}
		if got := try(some, "history", channel); got != want {
			t.Errorf("may read %s: %v", channel, got)
		}
	}
	some.sync()
	for channel, want := range map[string]bool{
		"user:bob": true, "user:bobby": true, "user:some": false, "user:alice": false, "broadcast": false, "room:1": true, "room:2": false,
		"lobby:1": false, "room:1:read": false,
	} {
		if got := try(some, "publish", channel); got != want {
			t.Errorf("may publish to %s: %v", channel, got)
		}
	}
	if all.reply(`{"type":"publish","ref":1,"channel":"broadcast","data":1}`).str("code") != "forbidden" {
		t.Error("a client may publish to the broadcast")
	}
	for _, other := range []string{"user:bob", "user:", "user", "user:all:x"} {
		if try(all, "subscribe", other) || try(all, "history", other) {
			t.Errorf("%s is open to another", other)
		}
	}
	expectHas(t, some.reply(`{"type":"publish","ref":1,"to":"alice","data":1}`), frame{"code": "forbidden"})
	expectHas(t, some.reply(`{"type":"publish","ref":1,"to":"bob","data":1}`), frame{"type": "published", "channel": "user:bob"})
}
