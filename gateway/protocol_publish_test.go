package gateway_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"

	"wssgateway/gateway"
)

func TestPublish(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		a, b := startNode(t, "a", connect(), patient), startNode(t, "b", connect())
		alice, _ := a.connect(t, "alice", "channel=room:1&channel=plain:1")
		bob, _ := b.connect(t, "bob", "channel=room:1&channel=plain:1")
		for request, want := range map[string]struct{ published, message frame }{
			`"channel":"room:1","event":"chat","data":"hi"`: {
				frame{"channel": "room:1", "id": true}, frame{"channel": "room:1", "event": "chat", "from": "alice", "data": "hi", "to": nil, "id": true, "ref": nil}},
			`"channel":"room:1","data":"hi","from":"mallory","id":"1-0","user":"bob"`: {
				frame{"channel": "room:1"}, frame{"from": "alice", "event": nil}},
			`"channel":"room:1","event":"","data":"hi","to":null,"key":null`: {
				frame{"channel": "room:1"}, frame{"event": nil}},
			`"to":"bob","event":"chat","data":"psst"`: {
				frame{"channel": "user:bob", "id": true}, frame{"channel": "user:bob", "to": "bob", "from": "alice", "event": "chat", "data": "psst"}},
			`"channel":"user:bob","data":"psst"`: {
				frame{"channel": "user:bob", "id": true}, frame{"channel": "user:bob", "to": nil, "from": "alice", "data": "psst"}},
			`"channel":"plain:1","data":"live","key":"k"`: {
				frame{"channel": "plain:1", "id": nil}, frame{"channel": "plain:1", "id": nil, "data": "live"}},
		} {
			alice.send(`{"type":"publish","ref":"p",%s}`, request)
			var published frame
			if strings.Contains(request, "bob\",") && !strings.Contains(request, "user\":\"bob") {
				published = alice.expect("published") // not hers to see
			} else {
				var own frame
				own, published = alice.expectOwn()
				expectHas(t, own, want.message)
			}
			expectHas(t, published, want.published)
			expectHas(t, published, frame{"ref": "p"})
			m := bob.expect("message")
			expectHas(t, m, want.message)
			if m["id"] != published["id"] {
				t.Errorf("%s: published as %v, delivered as %v", request, published["id"], m["id"])
			}
		}
		bob.quiet()
		alice.quiet()
	})
}

func TestPublishMistakes(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "channel=room:1")
	for _, fields := range []string{
		`"data":1`, `"channel":"room:1"`, `"channel":"room:1","to":"bob","data":1`, `"to":5,"data":1`, `"to":"","data":1`,
		`"to":"a b","data":1`, `"to":"a*","data":1`, `"to":"` + strings.Repeat("u", 251) + `","data":1`,
		`"channel":"room:1","event":5,"data":1`, `"channel":"room:1","event":{},"data":1`,
		`"channel":"room:1","event":"` + strings.Repeat("e", 129) + `","data":1`,
		`"channel":"room:1","event":"` + strings.Repeat("é", 65) + `","data":1`,
		`"channel":"room:1","key":"","data":1`, `"channel":"room:1","key":5,"data":1`,
		`"channel":"room:1","key":"` + strings.Repeat("k", 129) + `","data":1`,
	} {
		expectHas(t, c.reply(`{"type":"publish","ref":1,%s}`, fields), frame{"type": "error", "code": "bad_request", "ref": 1.0})
	}
	c.quiet()
	for _, fields := range []string{
		`"to":"` + strings.Repeat("u", 250) + `","data":1`,
		`"channel":"room:2","event":"` + strings.Repeat("e", 128) + `","data":1`,
		`"channel":"room:2","event":"` + strings.Repeat("é", 64) + `","data":1`,
		`"channel":"room:2","key":"` + strings.Repeat("k", 128) + `","data":1`,
		`"channel":"room:2","key":"1","data":1`,
	} {
		expectHas(t, c.reply(`{"type":"publish","ref":1,%s}`, fields), frame{"type": "published", "ref": 1.0})
	}
}

// TestDataIsKeptByteForByte checks every way data can take: live, replayed, in a
// history and from the server API.
func TestDataIsKeptByteForByte(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "channel=room:1")
	for i, data := range []string{
		`null`, `false`, `true`, `0`, `-0`, `1.0`, `1e400`, `12345678901234567890123456789`, `0.10`, `""`, `"x"`, `{}`, `[]`,
		`{"b":1,"a":2,"b":3}`, `{ "a" : [ 1 , 2 ] }`, "{\n\t\"a\":\r\n1}", `"\u0000\ud800\udfff\"\\\/\b\f"`, `"é😀\u00e9<>&\u2028"`, "\"\u2028\x7f\"",
		`{"type":"message","channel":"room:2","id":"1-0"}`, `"}],\n{"`, `[[[[[[[[[[]]]]]]]]]]`, strings.Repeat("[", 63) + strings.Repeat("]", 63),
		`"` + strings.Repeat("x", 60000) + `"`,
	} {
		request := fmt.Sprintf(`{"data":%s,"type":"publish","channel":"room:1","event":"<\"\\\n\u2028é>"}`, data)
		if i%2 == 1 {
			status, answer := n.call(t, "POST", "/v1/publish", fmt.Sprintf(`{"channel":"room:1","event":"<\"\\\n\u2028é>","data":%s}`, data))
			if status != 200 {
				t.Fatalf("%.40s: %d %v", data, status, answer)
			}
		} else if err := c.write(websocket.MessageText, request); err != nil {
			t.Fatal(err)
		}
		live := c.rawMessage(t)
		d := n.dial(t, query("access_token", token("bob"), "channel", "room:1@0"))
		d.expect("connected")
		var replayed rawMessage
		for range i + 1 {
			replayed = d.rawMessage(t)
		}
		d.cut()
		for how, m := range map[string]rawMessage{"live": live, "replayed": replayed} {
			if string(m.Data) != data {
				t.Errorf("%s: %.80s became %.80s", how, data, m.Data)
			}
			if m.Event != "<\"\\\n\u2028é>" {
				t.Errorf("%s: event %q", how, m.Event)
			}
		}
	}
	c.send(`{"type":"history","ref":1,"channel":"room:1"}`)
	var history struct{ Messages []rawMessage }
	c.rawNext(t, &history)
	if len(history.Messages) != 24 || string(history.Messages[13].Data) != `{"b":1,"a":2,"b":3}` || string(history.Messages[15].Data) != "{\n\t\"a\":\r\n1}" {
		t.Errorf("history has %d messages", len(history.Messages))
	}
}

type rawMessage struct {
	Type  string
	ID    string
	Event string
	Data  json.RawMessage
}

func (c *client) rawMessage(t *testing.T) (m rawMessage) {
	t.Helper()
	c.rawNext(t, &m)
	if m.Type != "message" {
		t.Fatalf("got %v, want a message", m)
	}
	return m
}

func (c *client) rawNext(t *testing.T, v any) {
	t.Helper()
	_, b, err := c.conn.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%.200s: %v", b, err)
	}
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		a, b := startNode(t, "a", connect(), patient), startNode(t, "b", connect(), patient)
		watcher, _ := b.connect(t, "watcher", "channel=room:1&channel=room:2")
		alice, _ := a.connect(t, "alice", "")
		alice2, _ := b.connect(t, "alice", "")
		bob, _ := a.connect(t, "bob", "")
		publish := func(c *client, channel, key string) string {
			t.Helper()
			return c.reply(`{"type":"publish","ref":1,"channel":%q,"key":%q,"data":1}`, channel, key).str("id")
		}
		first := publish(alice, "room:1", "k")
		for name, again := range map[string]string{
			"same connection": publish(alice, "room:1", "k"),
			"other session":   publish(alice2, "room:1", "k"),
			"other data":      alice.reply(`{"type":"publish","ref":1,"channel":"room:1","key":"k","data":2,"event":"e"}`).str("id"),
			"escaped key":     alice.reply(`{"type":"publish","ref":1,"channel":"room:1","key":"\u006b","data":2}`).str("id"),
			"array":           alice.reply(`[{"type":"publish","ref":1,"channel":"room:1","key":"k","data":2}]`).str("id"),
		} {
			if again != first {
				t.Errorf("%s: got %s, want %s", name, again, first)
			}
		}
		ids := []string{first}
		for name, other := range map[string]string{
			"other user":     publish(bob, "room:1", "k"),
			"other channel":  publish(alice, "room:2", "k"),
			"other key":      publish(alice, "room:1", "K"),
			"backend":        a.publish(t, `{"channel":"room:1","key":"k","data":1}`),
			"odd key":        publish(alice, "room:1", "a b:{}*é\n"),
			"other odd key":  publish(alice, "room:1", "a b:{}*é"),
			"scope injected": publish(bob, "room:1", "user:alice k"),
		} {
			if name == "other channel" {
				if other == "" {
					t.Error("not published to the other channel")
				}
				continue // its ids have nothing to do with these
			}
			if slices.Contains(ids, other) || other == "" {
				t.Errorf("%s: got %s again", name, other)
			}
			ids = append(ids, other)
		}
		backend := a.publish(t, `{"channel":"room:1","key":"k2","data":1}`)
		if again := b.publish(t, `{"channel":"room:1","key":"k2","data":2}`); again != backend {
			t.Errorf("backends: got %s, want %s", again, backend)
		}
		inbox := a.publish(t, `{"to":"watcher","key":"k2","data":1}`)
		if again := b.publish(t, `{"channel":"user:watcher","key":"k2","data":2}`); again != inbox {
			t.Errorf("to: got %s, want %s", again, inbox)
		}
		watcher.expectMessages(10)
		watcher.quiet()
	})
}

func TestBinary(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		a, b := startNode(t, "a", connect(), patient), startNode(t, "b", connect())
		alice, _ := a.connect(t, "alice", "channel=room:1&channel=plain:1")
		bob, _ := b.connect(t, "bob", "channel=room:1&channel=plain:1")
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		payloads := []string{string(all), "", "\n", "\n\n\n", "\x00", "{}", string(bytes.Repeat(all, 200)), "\r\n\xff\xfe"}
		for i, payload := range payloads {
			for _, channel := range []string{"room:1", "plain:1"} {
				line := fmt.Sprintf(`{"type":"publish","ref":%d,"channel":%q,"event":"up\nload","key":"k%d"}`, i, channel, i)
				if err := alice.write(websocket.MessageBinary, line+"\n"+payload); err != nil {
					t.Fatal(err)
				}
				own, published := alice.expectOwn()
				expectHas(t, published, frame{"ref": float64(i), "bytes": nil})
				for _, m := range []frame{own, bob.next()} {
					expectHas(t, m, frame{"type": "message", "channel": channel, "event": "up\nload", "from": "alice", "data": nil, "bytes": true, "id": published["id"]})
					if got := m.str("bytes"); got != payload {
						t.Errorf("%.20q became %.20q", payload, got)
					}
				}
			}
		}
		// To a user, and with an inbox that was away.
		if err := alice.write(websocket.MessageBinary, `{"type":"publish","to":"carol"}`+"\n\x00\x01"); err != nil {
			t.Fatal(err)
		}
		alice.quiet()
		carol := b.dial(t, query("access_token", token("carol"), "channel", "user:carol@0"))
		carol.expect("connected")
		expectHas(t, carol.next(), frame{"to": "carol", "bytes": "\x00\x01", "channel": "user:carol", "id": true})

		f := alice.reply(`{"type":"history","ref":1,"channel":"room:1"}`)
		messages, _ := f["messages"].([]any)
		if len(messages) != len(payloads) {
			t.Fatalf("history has %d messages", len(messages))
		}
		for i, m := range messages {
			expectHas(t, m.(map[string]any), frame{"data_base64": base64Of(payloads[i]), "data": nil, "event": "up\nload"})
		}
	})
}

func TestBinaryFrameIsTheSameJSON(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	r := n.rawDial(t, "alice", "channel", "room:1")
	n.publish(t, `{"channel":"room:1","event":"a\nb","data_base64":"Cgo="}`)
	payload := r.expect(finBinary)
	line, data, ok := bytes.Cut(payload, []byte("\n"))
	if !ok || string(data) != "\n\n" || !json.Valid(line) || !strings.HasPrefix(string(line), `{"type":"message","channel":"room:1","id":"`) {
		t.Errorf("got %q", payload)
	}
}

func TestNobodyElseGetsIt(t *testing.T) {
	t.Parallel()
	a, b := startTwo(t, patient)
	alice, _ := a.connect(t, "alice", "channel=room:1")
	bob, _ := b.connect(t, "bob", "channel=room:1")
	bob2, _ := a.connect(t, "bob", "")
	carol, _ := b.connect(t, "carol", "channel=room:2")
	alice.send(`{"type":"publish","to":"bob","data":1}`)
	expectHas(t, bob.expect("message"), frame{"channel": "user:bob"})
	expectHas(t, bob2.expect("message"), frame{"channel": "user:bob"}) // every session
	a.publish(t, `{"channel":"room:1","data":2}`)
	expectHas(t, bob.expect("message"), frame{"data": 2.0})
	expectHas(t, alice.expect("message"), frame{"data": 2.0})
	for _, c := range []*client{alice, bob, bob2, carol} {
		c.quiet()
	}
	b.publish(t, `{"channel":"broadcast","data":3}`)
	for _, c := range []*client{alice, bob, bob2, carol} {
		expectHas(t, c.expect("message"), frame{"data": 3.0})
		c.quiet()
	}
}

func TestOrderIsTheSameForAll(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		history := func(cfg *gateway.Config) {
			patient(cfg)
			cfg.Classes["room"] = gateway.Class{History: gateway.History{Size: 1000, TTL: 60e9}, Subscribe: "token", Publish: "token"}
		}
		nodes := []*node{startNode(t, "a", connect(), history), startNode(t, "b", connect(), history)}
		var clients []*client
		for i := range 4 {
			c, _ := nodes[i%2].connect(t, fmt.Sprintf("u%d", i), "channel=room:1")
			clients = append(clients, c)
		}
		const each = 50
		for i := range each {
			for j, c := range clients {
				c.send(`{"type":"publish","channel":"room:1","data":"%d.%d"}`, j, i)
			}
		}
		var want []string
		for i, c := range clients {
			var got []string
			for _, m := range c.expectMessages(each * len(clients)) {
				got = append(got, m.str("data"))
			}
			if i == 0 {
				want = got
			}
			if !slices.Equal(got, want) {
				t.Errorf("client %d: another order", i)
			}
			next := map[byte]int{} // and a publisher's own is kept
			for _, data := range got {
				if data != fmt.Sprintf("%c.%d", data[0], next[data[0]]) {
					t.Fatalf("client %d: %s out of order", i, data)
				}
				next[data[0]]++
			}
		}
	})
}
