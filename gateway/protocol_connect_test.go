package gateway_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"

	"wssgateway/gateway"
)

func TestConnectListsEveryChannel(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) {
		cfg.Classes["secret"] = gateway.Class{Subscribe: gateway.AccessNone, Publish: gateway.AccessNone}
	})
	id := n.publish(t, `{"channel":"room:1","data":1}`)
	tok := token("alice", claims{
		"subscribe": []string{"room:*", "user:*", "secret:*"},
		"join":      []string{"room:joined", "other:joined", "secret:1", "user:bob", "room:asked"},
	})
	c := n.dial(t, "")
	c.send(`{"type":"connect","ref":"r1","token":%q,"device":"phone","channels":{
		"room:1":"","room:asked":"0","other:1":"","user:bob":"","secret:2":"","plain:1":"","broadcast":"","extra":null}}`, tok)
	hello := c.expect("connected")
	expectHas(t, hello, frame{"ref": "r1", "user": "alice", "node": "a", "resumed": false, "ping": 30.0})
	if !strings.HasPrefix(hello.str("session"), "s_") {
		t.Errorf("session %q", hello.str("session"))
	}
	none := frame{"last": "0-0", "recovered": true, "error": nil}
	forbidden := frame{"error": "forbidden", "last": nil, "recovered": nil}
	want := map[string]frame{
		"room:1": {"last": id, "recovered": true, "error": nil}, "room:asked": none,
		"room:joined": none, "other:joined": none, "user:alice": none, "broadcast": none,
		"other:1": forbidden, "user:bob": forbidden, "secret:1": forbidden, "secret:2": forbidden,
		"plain:1": forbidden, "extra": forbidden,
	}
	for name, f := range want {
		if got := hello.channel(name); got == nil || !got.has(f) {
			t.Errorf("%s: got %v, want %v", name, got, f)
		}
	}
	if got := hello.names(); len(got) != len(want) {
		t.Errorf("got the channels %v", got)
	}
	n.publish(t, `{"channel":"other:joined","data":"joined"}`)
	expectHas(t, c.expect("message"), frame{"channel": "other:joined", "data": "joined"})
	c.quiet()
}

// TestABadNameCostsItsChannelAlone: the others are connected to, whether the names come
// in the frame or in the query string (finding U5).
func TestABadNameCostsItsChannelAlone(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	bad := []string{"room 7", "room:*", "room:{a", "room:\x00", "", strings.Repeat("c", 256), "room:\u200b"}
	channels, pairs := []string{`"room:1":""`}, []string{"access_token", token("alice"), "channel", "room:1"}
	for _, name := range bad {
		quoted, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		channels = append(channels, string(quoted)+`:"0"`)
		pairs = append(pairs, "channel", name+"@0")
	}
	inFrame := n.dial(t, "access_token="+token("alice"))
	inFrame.send(`{"type":"connect","channels":{%s}}`, strings.Join(channels, ","))
	clients := []*client{inFrame, n.dial(t, query(pairs...))}
	for _, c := range clients {
		hello := c.expect("connected")
		for _, name := range bad {
			if got := hello.channel(name); len(got) != 1 || got.str("error") != "bad_request" {
				t.Errorf("%q: %v", name, got)
			}
		}
		expectHas(t, hello.channel("room:1"), frame{"last": "0-0", "error": nil})
		if names := hello.names(); len(names) != len(bad)+3 {
			t.Errorf("channels %q", names)
		}
	}
	half := n.dial(t, "access_token="+token("alice"))
	half.send(`{"type":"connect","channels":{"room:\ud800":"","room:1":""}}`)
	hello := half.expect("connected")
	expectHas(t, hello.channel("room:\ufffd"), frame{"error": "bad_request"})
	expectHas(t, hello.channel("room:1"), frame{"last": "0-0"})
	n.publish(t, `{"channel":"room:1","data":1}`)
	for _, c := range append(clients, half) {
		c.expect("message")
	}
	expectHas(t, n.dial(t, query("access_token", token("alice"), "channel", "room:\xff")).expect("connected").channel("room:\ufffd"),
		frame{"error": "bad_request"})
}

// TestClientsKnowWhenTheirTokenEnds: connected and refreshed say in how many seconds.
func TestClientsKnowWhenTheirTokenEnds(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	in := func(d time.Duration) any { return time.Now().Add(d).Unix() }
	near := func(f frame, want float64) {
		t.Helper()
		if got, ok := f["expires_in"].(float64); !ok || got > want || got < want-60 {
			t.Errorf("expires_in %v, want about %v", f["expires_in"], want)
		}
	}
	c := n.dial(t, "connect=1&access_token="+token("alice", claims{"exp": in(time.Hour)}))
	near(c.expect("connected"), 3600)
	near(c.reply(`{"type":"refresh","ref":1,"token":%q}`, token("alice", claims{"exp": in(2 * time.Hour)})), 7200)
	expectHas(t, c.reply(`{"type":"refresh","ref":1,"token":%q}`, token("alice", claims{"exp": nil})), frame{"type": "refreshed", "expires_in": nil})
	expectHas(t, n.dial(t, "connect=1&access_token="+token("alice", claims{"exp": in(-2 * time.Second)})).expect("connected"), frame{"expires_in": 0.0})
}

func TestConnectMistakes(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	for _, fields := range []string{
		`"token":5`, `"device":5`, `"session":{}`, `"channels":[]`, `"channels":"room:1"`, `"channels":{"room:1":5}`,
		`"channels":{"room:1":"x"}`, `"channels":{"room:1":"1-"}`,
		`"channels":{"room:1":"-1-0"}`, `"device":"` + strings.Repeat("d", 65) + `"`,
	} {
		c := n.dial(t, "access_token="+token("alice"))
		c.send(`{"type":"connect",%s,"ref":1}`, fields)
		expectHas(t, c.expectError("bad_request"), frame{"ref": 1.0})
		c.send(`{"type":"connect","ref":2,"device":%q,"channels":{%q:""}}`, strings.Repeat("d", 64), strings.Repeat("c", 255))
		expectHas(t, c.expect("connected"), frame{"ref": 2.0})
		c.send(`{"type":"connect","ref":3}`)
		expectHas(t, c.expectError("bad_request"), frame{"ref": 3.0})
	}
	c := n.dial(t, "")
	c.send(`{"type":"connect","ref":1}`)
	expectHas(t, c.expectError("unauthorized"), frame{"ref": 1.0})
	c.expectClose(4001)
}

func TestPingIntervalByClient(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	for client, ping := range map[string]float64{"web": 30, "mobile": 60, "toaster": 30, "": 30} {
		c := n.dial(t, query("access_token", token("alice", claims{"client": client}), "connect", "1"))
		expectHas(t, c.expect("connected"), frame{"ping": ping})
	}
}

// resume is a way to lose a connection and what becomes of its session.
func TestSessionAfterTheConnection(t *testing.T) {
	t.Parallel()
	a, b := startTwo(t)
	for name, test := range map[string]struct {
		end     func(*client)
		resumed bool
	}{
		"closed with 1000":   {func(c *client) { c.conn.Close(1000, "") }, false},
		"closed with 1001":   {func(c *client) { c.conn.Close(1001, "") }, true},
		"closed with 3000":   {func(c *client) { c.conn.Close(3000, "") }, true},
		"closed with 4000":   {func(c *client) { c.conn.Close(4000, "") }, true},
		"broken":             {func(c *client) { c.cut() }, true},
		"still there":        {func(*client) {}, true},
		"closed without one": {func(c *client) { c.conn.Close(websocket.StatusNoStatusRcvd, "") }, true},
	} {
		for where, n := range map[string]*node{"same node": a, "other node": b} {
			t.Run(name+"/"+where, func(t *testing.T) {
				t.Parallel()
				user := strings.NewReplacer(" ", "_", "/", ":").Replace(t.Name())
				c, hello := a.connect(t, user, "channel=room:1")
				test.end(c)
				if name != "still there" {
					await(t, func() error { return a.offline(t, user) })
				}
				id := a.publish(t, fmt.Sprintf(`{"to":%q,"data":"missed"}`, user))
				_, again := n.connectFrame(t, user, fmt.Sprintf(`,"session":%q,"channels":{"user:%s":"0-0"}`, hello.str("session"), user))
				if got := again["resumed"]; got != test.resumed {
					t.Errorf("resumed %v, want %v", got, test.resumed)
				}
				if (again.str("session") == hello.str("session")) != test.resumed {
					t.Errorf("session %s after %s", again.str("session"), hello.str("session"))
				}
				expectHas(t, again.channel("user:"+user), frame{"last": id, "recovered": true})
				if again.channel("room:1") != nil {
					t.Error("a channel that was not asked for again is there")
				}
				if name == "still there" {
					c.expectClose(4002)
				}
			})
		}
	}
}

// offline returns nil if a user has no sessions.
func (n *node) offline(t *testing.T, user string) error {
	if f := n.user(t, user); f["online"] != false {
		return fmt.Errorf("%v is online", f)
	}
	return nil
}

func TestSessionOfNobody(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	other, hello := n.connect(t, "bob", "")
	id := n.publish(t, `{"channel":"room:1","data":1}`)
	n.publish(t, `{"channel":"room:1","data":2}`)
	for _, session := range []string{"s_nobody", hello.str("session"), "", "x", strings.Repeat("s", 5000), "\u0000"} {
		c, again := n.connectFrame(t, "alice", fmt.Sprintf(`,"session":"%s","channels":{"room:1":%q}`,
			strings.ReplaceAll(session, "\u0000", `\u0000`), id))
		expectHas(t, again, frame{"resumed": false})
		if again.str("session") == session {
			t.Errorf("got the session %q", session)
		}
		expectHas(t, again.channel("room:1"), frame{"recovered": true})
		expectHas(t, c.expect("message"), frame{"data": 2.0}) // the position is honoured all the same
	}
	other.quiet()
}

func TestResumeMissesNothing(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		a, b := startNode(t, "a", connect()), startNode(t, "b", connect())
		c, hello := a.connect(t, "alice", "channel=room:1")
		seen := a.publish(t, `{"channel":"room:1","data":0}`)
		expectHas(t, c.expect("message"), frame{"id": seen})
		c.cut()
		for i := range 20 {
			a.publish(t, fmt.Sprintf(`{"channel":"room:1","data":%d}`, i+1))
		}
		c = b.dial(t, query("access_token", token("alice"), "session", hello.str("session"), "channel", "room:1@"+seen))
		again := c.expect("connected")
		expectHas(t, again, frame{"resumed": true, "session": hello.str("session"), "node": "b"})
		expectHas(t, again.channel("room:1"), frame{"recovered": true})
		a.publish(t, `{"channel":"room:1","data":21}`)
		got := []float64{}
		for _, m := range c.expectMessages(21) {
			got = append(got, m["data"].(float64))
		}
		for i := range got {
			if got[i] != float64(i+1) {
				t.Fatalf("got %v", got)
			}
		}
		c.quiet()
	})
}

func TestPositionsThatAreNotVouchedFor(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	for i, test := range []struct {
		since     func(ids []string) string
		recovered bool
		replayed  []int // as few and as many
	}{
		{func(ids []string) string { return ids[0] }, false, []int{10, 11}}, // 10 are kept, and a tenth more
		{func([]string) string { return "1-0" }, false, []int{10, 11}},
		{func([]string) string { return "0-0" }, false, []int{10, 11}},
		{func([]string) string { return "0" }, true, []int{10, 11}},
		{func([]string) string { return "" }, true, []int{0}},
		{func(ids []string) string { return ids[27] }, true, []int{2}},
		{func(ids []string) string { return ids[29] }, true, []int{0}},
	} {
		channel := fmt.Sprintf("open:%d", i)
		var ids []string
		for i := range 30 {
			ids = append(ids, n.publish(t, fmt.Sprintf(`{"channel":%q,"data":%d}`, channel, i)))
		}
		c, _ := n.connect(t, "alice", "")
		c.send(`{"type":"subscribe","ref":1,"channel":%q,"since":%q}`, channel, test.since(ids))
		expectHas(t, c.expect("subscribed"), frame{"ref": 1.0, "last": ids[29], "recovered": test.recovered})
		got := 0
		if test.replayed[0] > 0 {
			for got++; c.expect("message").str("id") != ids[29]; got++ {
			}
		}
		c.quiet()
		if !slices.Contains(test.replayed, got) {
			t.Errorf("since %q: %d messages, want %v", test.since(ids), got, test.replayed)
		}
	}
	c, hello := n.connect(t, "alice", "channel=plain:1@1-0&channel=plain:2@0&channel=plain:3")
	for name, recovered := range map[string]bool{"plain:1": false, "plain:3": true} {
		expectHas(t, hello.channel(name), frame{"last": nil, "recovered": recovered})
	}
	c.quiet()
}
