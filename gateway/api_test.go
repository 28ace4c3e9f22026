package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/gateway"
)

// user asks the server API for a user.
func (n *node) user(t *testing.T, user string) frame {
	t.Helper()
	status, answer := n.call(t, "GET", "/v1/users/"+url.PathEscape(user), "")
	if status != 200 {
		t.Fatalf("user %q: %d %v", user, status, answer)
	}
	return frame(answer.(map[string]any))
}

// sessions returns the sessions of a user.
func (n *node) userSessions(t *testing.T, user string) []frame {
	t.Helper()
	var all []frame
	list, ok := n.user(t, user)["sessions"].([]any)
	if !ok {
		t.Fatalf("sessions of %s are no list", user)
	}
	for _, s := range list {
		all = append(all, frame(s.(map[string]any)))
	}
	return all
}

// awaitChannels waits until the one session of a user has exactly some channels.
func (n *node) awaitChannels(t *testing.T, user string, want ...string) {
	t.Helper()
	await(t, func() error {
		sessions := n.userSessions(t, user)
		if len(sessions) != 1 {
			return fmt.Errorf("%s has %d sessions", user, len(sessions))
		}
		var got []string
		for _, c := range sessions[0]["channels"].([]any) {
			got = append(got, c.(string))
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Errorf("%s has %v, want %v", user, got, want)
		}
		return nil
	})
}

// expectProblem fails unless an answer is a problem document.
func expectProblem(t *testing.T, status int, answer any, code string) {
	t.Helper()
	m, _ := answer.(map[string]any)
	expectHas(t, m, frame{"code": code, "status": float64(status), "title": true, "type": true})
}

func TestAPIAuthorization(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	for name, header := range map[string][]string{
		"none":           nil,
		"wrong key":      {"Authorization", "Bearer wrong"},
		"no scheme":      {"Authorization", testAPIKey},
		"another scheme": {"Authorization", "Basic " + testAPIKey},
		"empty key":      {"Authorization", "Bearer "},
		"prefix":         {"Authorization", "Bearer " + testAPIKey[:5]},
		"client's token": {"Authorization", "Bearer " + token("alice")},
	} {
		for _, call := range []string{"POST /v1/publish", "GET /v1/users/alice", "GET /v1/nodes"} {
			method, path, _ := strings.Cut(call, " ")
			status, h, body := httpDo(t, method, n.api+path, `{"channel":"room:1","data":1}`, header...)
			if status != 401 || h.Get("Content-Type") != "application/problem+json" || h.Get("WWW-Authenticate") == "" {
				t.Errorf("%s, %s: %d %v", name, call, status, h)
			}
			var answer any
			if err := json.Unmarshal(body, &answer); err != nil {
				t.Errorf("%s: %v", body, err)
			}
			expectProblem(t, 401, answer, "unauthorized")
		}
	}
	if status, _, body := httpDo(t, "GET", n.api+"/v1/nodes", "", "Authorization", "bearer "+testAPIKey); status != 200 {
		t.Errorf("scheme in lower case: %d %s", status, body)
	}
}

func TestAPIWithoutAKeyIsOff(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) { cfg.APIKey = "" })
	for _, header := range [][]string{nil, {"Authorization", "Bearer "}, {"Authorization", "Bearer x"}} {
		for _, call := range []string{"POST /v1/publish", "GET /v1/users/alice", "GET /v1/nodes"} {
			method, path, _ := strings.Cut(call, " ")
			if status, _, body := httpDo(t, method, n.api+path, `{"channel":"room:1","data":1}`, header...); status != 404 {
				t.Errorf("%s: %d %s", call, status, body)
			}
		}
	}
}

func TestAPIUnknownEndpoints(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	for _, call := range []string{"GET /v1/whatever", "GET /whatever", "PATCH /v1/publish", "GET /debug/pprof/", "GET /ws", "GET /"} {
		method, path, _ := strings.Cut(call, " ")
		status, answer := n.call(t, method, path, "")
		if status != 404 && status != 405 {
			t.Errorf("%s: %d", call, status)
		}
		expectProblem(t, status, answer, "not_found")
	}
}

func TestAPIPublish(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		a, b := startNode(t, "a", connect()), startNode(t, "b", connect())
		c, _ := b.connect(t, "alice", "channel=room:1&channel=plain:1")
		for body, want := range map[string]struct{ answer, message frame }{
			`{"channel":"room:1","event":"e","data":{"a":1}}`: {
				frame{"channel": "room:1", "id": true}, frame{"channel": "room:1", "event": "e", "from": nil, "to": nil, "id": true}},
			`{"to":"alice","data":"x"}`: {
				frame{"channel": "user:alice", "id": true}, frame{"channel": "user:alice", "to": "alice", "data": "x", "event": nil}},
			`{"channel":"user:alice","data":"x"}`: {
				frame{"channel": "user:alice", "id": true}, frame{"channel": "user:alice", "to": nil, "data": "x"}},
			`{"channel":"broadcast","data":false}`: {
				frame{"channel": "broadcast", "id": true}, frame{"channel": "broadcast", "data": false}},
			`{"channel":"plain:1","data":"live"}`: {
				frame{"channel": "plain:1", "id": nil}, frame{"channel": "plain:1", "id": nil, "data": "live"}},
			`{"channel":"room:1","data_base64":"AAEK/w=="}`: {
				frame{"channel": "room:1", "id": true}, frame{"channel": "room:1", "bytes": "\x00\x01\n\xff", "data": nil}},
			`{"channel":"room:1","data_base64":""}`: {
				frame{"channel": "room:1", "id": true}, frame{"channel": "room:1", "bytes": "", "data": nil}},
			`{"channel":"room:1","data":1,"event":null,"key":null,"to":null,"data_base64":null}`: {
				frame{"id": true}, frame{"data": 1.0}},
		} {
			status, answer := a.call(t, "POST", "/v1/publish", body)
			if status != 200 {
				t.Fatalf("%s: %d %v", body, status, answer)
			}
			expectHas(t, answer.(map[string]any), want.answer)
			m := c.expect("message")
			expectHas(t, m, want.message)
			if id, ok := answer.(map[string]any)["id"]; ok && m["id"] != id {
				t.Errorf("%s: id %v, delivered with %v", body, id, m["id"])
			}
		}
		c.quiet()
	})
}

func TestAPIPublishMistakes(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) { cfg.Limits.FrameSize, cfg.Limits.Outbox = 2048, 4096 })
	c, _ := n.connect(t, "alice", "channel=room:1")
	for body, want := range map[string]struct {
		status int
		code   string
	}{
		``:                               {400, "bad_request"},
		`{`:                              {400, "bad_request"},
		`{} {}`:                          {400, "bad_request"},
		`[{"channel":"room:1","data":1}`: {400, "bad_request"},
		`[] x`:                           {400, "bad_request"},
		`null`:                           {400, "bad_request"},
		`5`:                              {400, "bad_request"},
		`"x"`:                            {400, "bad_request"},
		`{}`:                             {400, "bad_request"},
		`{"data":1}`:                     {400, "bad_request"},
		`{"channel":"room:1"}`:           {400, "bad_request"},
		`{"channel":"room:1","to":"bob","data":1}`:                                  {400, "bad_request"},
		`{"channel":"room:1","data":1,"data_base64":"eA=="}`:                        {400, "bad_request"},
		`{"channel":"room:1","data_base64":"!"}`:                                    {400, "bad_request"},
		`{"channel":"room:1","data_base64":5}`:                                      {400, "bad_request"},
		`{"channel":5,"data":1}`:                                                    {400, "bad_request"},
		`{"channel":"room:1","data":1,"from":"mallory"}`:                            {400, "bad_request"},
		`{"channel":"room:1","event":5,"data":1}`:                                   {400, "bad_request"},
		`{"channel":"room:1","key":"","data":1}`:                                    {400, "bad_request"},
		`{"channel":"room:1","key":5,"data":1}`:                                     {400, "bad_request"},
		`{"channel":"room:1","key":"` + strings.Repeat("k", 129) + `","data":1}`:    {400, "bad_request"},
		`{"channel":"room:1","event":"` + strings.Repeat("e", 129) + `","data":1}`:  {400, "bad_request"},
		`{"channel":"room 1","data":1}`:                                             {400, "bad_request"},
		`{"channel":"room:*","data":1}`:                                             {400, "bad_request"},
		`{"channel":"","data":1}`:                                                   {400, "bad_request"},
		`{"channel":"` + strings.Repeat("c", 256) + `","data":1}`:                   {400, "bad_request"},
		`{"to":"a b","data":1}`:                                                     {400, "bad_request"},
		`{"to":"` + strings.Repeat("u", 251) + `","data":1}`:                        {400, "bad_request"},
		"{\"channel\":\"room:1\",\"data\":\"\xff\"}":                                {400, "bad_request"},
		"{\"channel\":\"room:\xff\",\"data\":1}":                                    {400, "bad_request"},
		`{"channel":"room:1","data":"` + strings.Repeat("x", 3000) + `"}`:           {413, "too_large"},
		`{"channel":"room:1","data":"` + strings.Repeat("x", 40000) + `"}`:          {413, "too_large"},
		`{"channel":"room:1","data_base64":"` + strings.Repeat("AAAA", 1000) + `"}`: {413, "too_large"},
		// Finding L8.
		`{"channel":"room:1","data":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`: {400, "bad_request"},
	} {
		status, answer := n.call(t, "POST", "/v1/publish", body)
		if status != want.status {
			t.Errorf("%.80s: %d %v, want %d", body, status, answer, want.status)
		}
		expectProblem(t, want.status, answer, want.code)
	}
	c.quiet() // nothing of it was published
	for _, body := range []string{
		`{"channel":"room:1","key":"` + strings.Repeat("k", 128) + `","event":"` + strings.Repeat("e", 128) + `","data":1}`,
		` {"channel":"room:1","data":1} ` + "\n",
		`{"channel":"room:2","data":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`,
		`{"channel":"` + strings.Repeat("c", 255) + `","data":1}`,
		`{"to":"` + strings.Repeat("u", 250) + `","data":1}`,
	} {
		n.publish(t, body)
	}
}

// TestWrongMethods: a path that is there says which methods it has (finding U7).
func TestWrongMethods(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) { cfg.Pprof = true })
	for _, c := range []struct{ method, address, allow string }{
		{"GET", n.api + "/v1/publish", "POST"},
		{"POST", n.api + "/v1/users/alice", "GET"},
		{"GET", n.api + "/v1/users/alice/sessions", "DELETE"},
		{"POST", n.api + "/metrics", "GET"},
		{"POST", n.api + "/debug/pprof/", "GET"},
		{"DELETE", n.api + "/healthz", "GET, HEAD"},
		{"POST", n.public + "/ws", "GET"},
		{"PUT", n.public + "/readyz", "GET, HEAD"},
	} {
		status, header, body := httpDo(t, c.method, c.address, "")
		if status != 405 || header.Get("Allow") != c.allow || header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d, Allow %q, %s", c.method, c.address, status, header.Get("Allow"), body)
		}
	}
}

// TestPathsAreTakenAsTheyAre: no redirect repeats what a client puts into a header
// (finding L11), and no profile tells the command line, which may have secrets in
// it (finding L3).
func TestPathsAreTakenAsTheyAre(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) { cfg.Pprof = true })
	for _, address := range []string{n.public + "/healthz/", n.api + "/v1/nodes/", n.api + "/debug/pprof/cmdline"} {
		status, header, body := httpDo(t, "GET", address, "", "X-Forwarded-Prefix", "/evil.example")
		if status != 404 || header.Get("Location") != "" {
			t.Errorf("%s: %d %v %s", address, status, header, body)
		}
	}
	if status, _, body := httpDo(t, "GET", n.api+"/debug/pprof/goroutine?debug=1", ""); status != 200 {
		t.Errorf("a profile: %d %s", status, body)
	}
}

func TestAPIPublishArray(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	c, _ := n.connect(t, "alice", "channel=room:1&channel=room:2")
	var elements []string
	for i := range 100 {
		elements = append(elements, fmt.Sprintf(`{"channel":"room:%d","data":%d}`, 1+i%2, i))
	}
	elements[10], elements[20], elements[30] = `5`, `{"channel":"room:1"}`, `{"channel":"room:1","data":"\ud800"}`
	status, answer := n.call(t, "POST", "/v1/publish", "["+strings.Join(elements, ",\n")+"]")
	answers, _ := answer.([]any)
	if status != 200 || len(answers) != len(elements) {
		t.Fatalf("%d %v", status, answer)
	}
	ids := map[string][]string{}
	for i, a := range answers {
		if i == 10 || i == 20 {
			expectProblem(t, 400, a, "bad_request")
			continue
		}
		channel := fmt.Sprintf("room:%d", 1+i%2)
		expectHas(t, a.(map[string]any), frame{"channel": channel, "id": true})
		ids[channel] = append(ids[channel], frame(a.(map[string]any)).str("id"))
	}
	got := map[string][]string{}
	for _, m := range c.expectMessages(98) {
		got[m.str("channel")] = append(got[m.str("channel")], m.str("id"))
	}
	for channel := range ids {
		if !slices.Equal(got[channel], ids[channel]) {
			t.Errorf("%s: delivered %v, answered %v", channel, got[channel], ids[channel])
		}
	}
	for body, n0 := range map[string]int{`[]`: 0, `[{"channel":"room:1","data":1}]`: 1} {
		status, answer := n.call(t, "POST", "/v1/publish", body)
		if answers, ok := answer.([]any); status != 200 || !ok || len(answers) != n0 {
			t.Errorf("%s: %d %v", body, status, answer)
		}
	}
}

func TestAPIPublishTakesAnyContentType(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	for _, kind := range []string{"application/json", "application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded", ""} {
		status, h, body := httpDo(t, "POST", n.api+"/v1/publish", `{"channel":"room:1","data":1}`,
			"Authorization", "Bearer "+testAPIKey, "Content-Type", kind)
		if status != 200 || !strings.HasPrefix(h.Get("Content-Type"), "application/json") {
			t.Errorf("%q: %d %v %s", kind, status, h, body)
		}
	}
}

func TestAPIUsers(t *testing.T) {
	t.Parallel()
	a, b := startTwo(t)
	status, _, body := httpDo(t, "GET", a.api+"/v1/users/nobody", "", "Authorization", "Bearer "+testAPIKey)
	if status != 200 || string(body) != `{"user":"nobody","online":false,"sessions":[]}` {
		t.Errorf("never seen: %d %s", status, body)
	}
	before := time.Now().Add(-2 * time.Second)
	for _, user := range []string{"alice", "a/b", "a+b@example.com", "é ø"[:2], "50%", "a#b?c", "..", "a%2Fb", "user:x", `"q"\`} {
		c := a.dial(t, query("access_token", token(user, claims{"client": "mobile"}), "device", `my "phone" é`, "channel", "room:1"))
		hello := c.expect("connected")
		<-time.After(2 * time.Millisecond) // they are listed by the millisecond at which they came
		d, other := b.connect(t, user, "")
		await(t, func() error {
			f := b.user(t, user)
			sessions := b.userSessions(t, user)
			if f["online"] != true || f["user"] != user || len(sessions) != 2 {
				return fmt.Errorf("got %v", f)
			}
			if len(sessions[0]["channels"].([]any)) != 3 || len(sessions[1]["channels"].([]any)) != 2 {
				return fmt.Errorf("got %v", sessions)
			}
			return nil
		})
		sessions := b.userSessions(t, user)
		expectHas(t, sessions[0], frame{"id": hello["session"], "device": `my "phone" é`, "client": "mobile", "node": "a", "ip": "127.0.0.1"})
		expectHas(t, sessions[1], frame{"id": other["session"], "device": "", "client": "web", "node": "b"})
		at, err := time.Parse(time.RFC3339Nano, sessions[0].str("connected_at"))
		if err != nil || at.Before(before) || at.After(time.Now().Add(2*time.Second)) {
			t.Errorf("connected_at %v", sessions[0]["connected_at"])
		}
		c.cut()
		await(t, func() error {
			if got := b.userSessions(t, user); len(got) != 1 || got[0]["node"] != "b" {
				return fmt.Errorf("got %v", got)
			}
			return nil
		})
		d.conn.Close(1000, "")
		await(t, func() error { return a.offline(t, user) })
	}
	for path, want := range map[string]string{
		"/v1/users/x+y%40example.com": "x+y@example.com", "/v1/users/x%2By": "x+y", "/v1/users/x+y": "x+y", "/v1/users/x%2Fy": "x/y",
	} {
		if _, answer := a.call(t, "GET", path, ""); frame(answer.(map[string]any)).str("user") != want {
			t.Errorf("%s: got %v, want %s", path, answer, want)
		}
	}
	for _, bad := range []string{"a%20b", "a*b", "%7B", "%00", "%ff", strings.Repeat("u", 251)} {
		status, answer := a.call(t, "GET", "/v1/users/"+bad, "")
		expectProblem(t, status, answer, "bad_request")
	}
}

func TestAPIUserChannelsFollow(t *testing.T) {
	t.Parallel()
	a, b := startTwo(t)
	c, _ := a.connect(t, "bob", "channel=room:1")
	b.awaitChannels(t, "bob", "broadcast", "room:1", "user:bob")
	c.reply(`{"type":"subscribe","ref":1,"channel":"room:2"}`)
	b.awaitChannels(t, "bob", "broadcast", "room:1", "room:2", "user:bob")
	c.reply(`{"type":"unsubscribe","ref":1,"channel":"room:1"}`)
	b.awaitChannels(t, "bob", "broadcast", "room:2", "user:bob")
}

func TestAPINodes(t *testing.T) {
	t.Parallel()
	a, b := startTwo(t)
	alice, _ := a.connect(t, "alice", "channel=room:1&channel=room:2")
	bob, _ := a.connect(t, "bob", "channel=room:1")
	nodes := func() map[string]frame {
		status, answer := b.call(t, "GET", "/v1/nodes", "")
		if status != 200 {
			t.Fatalf("%d %v", status, answer)
		}
		all := map[string]frame{}
		for _, n := range answer.(map[string]any)["nodes"].([]any) {
			all[frame(n.(map[string]any)).str("name")] = n.(map[string]any)
		}
		return all
	}
	await(t, func() error {
		got := nodes()
		ok := got["a"].has(frame{"connections": 2.0, "channels": 5.0, "version": "test", "draining": false, "started_at": true}) &&
			got["b"].has(frame{"connections": 0.0, "channels": 0.0, "draining": false})
		if len(got) != 2 || !ok {
			return fmt.Errorf("got %v", got)
		}
		return nil
	})
	if at, err := time.Parse(time.RFC3339Nano, nodes()["a"].str("started_at")); err != nil || time.Since(at) > time.Hour {
		t.Errorf("started_at %v", nodes()["a"]["started_at"])
	}
	alice.cut()
	bob.cut()
	a.stop()
	await(t, func() error {
		if got := nodes(); got["a"] != nil {
			return fmt.Errorf("got %v", got)
		}
		return nil
	})
	await(t, func() error { return b.offline(t, "alice") })
}

func TestHealthEndpoints(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	for _, address := range []string{n.public, n.api} {
		for _, path := range []string{"/healthz", "/readyz"} {
			for _, method := range []string{"GET", "HEAD"} {
				if status, _, body := httpDo(t, method, address+path, ""); status != 200 {
					t.Errorf("%s %s: %d %s", method, path, status, body)
				}
			}
		}
	}
}

func TestMetricsEndpoint(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	c, _ := n.connect(t, "alice", "channel=room:1")
	d, _ := n.connect(t, "bob", "")
	c.reply(`{"type":"whatever","ref":1}`)
	c.send(`{"type":"publish","ref":1,"channel":"room:1","data":1}`)
	c.expectOwn()
	d.conn.Close(1000, "")
	n.call(t, "GET", "/v1/users/alice", "")
	n.rawExchange(t, n.rawRequest("connect=1"))
	want := []string{
		`gateway_connections 1`, `gateway_channels 3`, `gateway_handshakes_total{status="101"} 2`, `gateway_handshakes_total{status="401"} 1`,
		`gateway_disconnects_total{cause="client"} 1`, `gateway_disconnects_total{cause="lost"} 0`,
		`gateway_messages_total 1`, `gateway_deliveries_total 1`, `gateway_request_errors_total{code="bad_request"} 1`,
		`http_requests_total{endpoint="/v1/users/:user",method="GET",status="200"} 1`,
		`http_requests_total{endpoint="/ws",method="GET",status="101"} 2`, `http_requests_total{endpoint="/ws",method="GET",status="401"} 1`,
		`gateway_delivery_seconds_count 1`,
	}
	await(t, func() error {
		status, _, body := httpDo(t, "GET", n.api+"/metrics", "")
		lines := strings.Split(string(body), "\n")
		for _, w := range want {
			if status != 200 || !slices.Contains(lines, w) {
				return fmt.Errorf("%d: no %s in\n%s", status, w, body)
			}
		}
		return nil
	})
}

// expectOwn takes in the client's own message and the reply to its
// publish, in whatever order.
func (c *client) expectOwn() (message, reply frame) {
	c.t.Helper()
	message, reply = c.next(), c.next()
	if message.str("type") != "message" {
		message, reply = reply, message
	}
	if message.str("type") != "message" || reply.str("type") != "published" {
		c.t.Fatalf("got %v and %v, want a message and published", message, reply)
	}
	return message, reply
}
