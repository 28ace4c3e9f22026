package gateway_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"wssgateway/gateway"
)

func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "")
	bad := frame{"type": "error", "code": "bad_request", "message": true, "retry_after_ms": nil}
	for request, ref := range map[string]any{
		``:                                      nil,
		`x`:                                     nil,
		`{`:                                     nil,
		`{"type":"ping"`:                        nil,
		`{"type":"ping"} x`:                     nil,
		`{"type":"ping"}{"type":"ping"}`:        nil,
		`{type:"ping"}`:                         nil,
		`{"type":"ping",}`:                      nil,
		`{'type':'ping'}`:                       nil,
		`{"type":"ping","ref":01}`:              nil,
		"{\"type\":\"ping\",\"ref\":\"\x01\"}":  nil,
		"\ufeff" + `{"type":"ping"}`:            nil,
		"\x00":                                  nil,
		`{"type":"pi` + "\x00" + `ng","ref":1}`: nil,
		`null`:                                  nil,
		`true`:                                  nil,
		`5`:                                     nil,
		`"ping"`:                                nil,
		`{}`:                                    nil,
		`[]`:                                    nil,
		` [ ] `:                                 nil,
		strings.Repeat(`[`, 20000):              nil,
		strings.Repeat(`[`, 20000) + strings.Repeat(`]`, 20000): nil,
		`{"ref":1}`:                                               1.0,
		`{"ref":1,"type":null}`:                                   1.0,
		`{"ref":1,"type":""}`:                                     1.0,
		`{"ref":1,"type":5}`:                                      1.0,
		`{"type":["ping"],"ref":1}`:                               1.0,
		`{"type":"pong","ref":1}`:                                 1.0,
		`{"type":"PING","ref":1}`:                                 1.0,
		`{"type":"ping ","ref":1}`:                                1.0,
		`{"type":"message","ref":"x"}`:                            "x",
		`{"type":"ping\u0000","ref":"x"}`:                         "x",
		`{"type":"ping","ref":1.5}`:                               nil,
		`{"type":"ping","ref":1.0}`:                               nil,
		`{"type":"ping","ref":1e3}`:                               nil,
		`{"type":"ping","ref":9007199254740993}`:                  nil,
		`{"type":"ping","ref":-9007199254740993}`:                 nil,
		`{"type":"ping","ref":1` + strings.Repeat("0", 400) + `}`: nil,
		`{"type":"ping","ref":{}}`:                                nil,
		`{"type":"ping","ref":[1]}`:                               nil,
		`{"type":"ping","ref":true}`:                              nil,
		`{"type":"ping","ref":"` + strings.Repeat("r", 65) + `"}`: nil,
		`{"type":"ping","ref":"` + strings.Repeat("é", 33) + `"}`: nil,
	} {
		frames := c.ask(request)
		if len(frames) != 1 {
			t.Errorf("%.60q got %v, want one error", request, frames)
			continue
		}
		bad["ref"] = ref
		if !frames[0].has(bad) {
			t.Errorf("%.60q got %v, want ref %v", request, frames[0], ref)
		}
	}
}

func TestRefsAreEchoed(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "")
	for _, ref := range []string{
		`0`, `1`, `-1`, `9007199254740992`, `-9007199254740992`, `9007199254740991`, `""`, `"x"`, `"\"\\\/\n\u0000"`,
		`"é😀"`, `"\ud83d\ude00"`, `"` + strings.Repeat("r", 64) + `"`, `"` + strings.Repeat("é", 32) + `"`, `"</script>"`, `"null"`,
	} {
		var want any
		if err := json.Unmarshal([]byte(ref), &want); err != nil {
			t.Fatal(err)
		}
		for request, kind := range map[string]string{
			`{"type":"ping","ref":%s}`:                                       "pong",
			`{"ref":%s,"type":"subscribe","channel":"room:1"}`:               "subscribed",
			`{"type":"unsubscribe","ref":%s,"channel":"room:1"}`:             "unsubscribed",
			`{"type":"publish","ref":%s,"channel":"room:9","data":1}`:        "published",
			`{"type":"history","ref":%s,"channel":"room:9","limit":1}`:       "history",
			`{"type":"history","ref":%s,"channel":5}`:                        "error",
			`{"type":"unknown","ref":%s}`:                                    "error",
			`{"type":"connect","ref":%s}`:                                    "error",
			`{"type":"subscribe","channel":"user:bob","ref":%s}`:             "error",
			`{"type":"publish","channel":"broadcast","ref":%s,"data":"\t"}`:  "error",
			`{"type":"subscribe","channel":"room:1","since":"x","ref":%s}`:   "error",
			`{"type":"publish","channel":"r","to":"bob","data":1,"ref":%s}`:  "error",
			`{"type":"refresh","token":"x","data":{"ref":"inner"},"ref":%s}`: "error",
		} {
			f := c.reply(request, ref)
			if got, ok := f["ref"]; !ok || got != want || f.str("type") != kind {
				t.Errorf("%s with ref %s got %v, want a %s", request, ref, f, kind)
			}
		}
	}
}

func TestWithoutRefOnlyFailuresAreAnswered(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "")
	for _, request := range []string{
		`{"type":"ping"}`, `{"type":"ping","ref":null}`, `{"type":"publish","channel":"room:1","data":1}`,
		`{"type":"history","channel":"room:1"}`, `{"type":"unsubscribe","channel":"room:1"}`,
	} {
		if frames := c.ask(request); len(frames) > 0 {
			t.Errorf("%s got %v", request, frames)
		}
	}
	expectHas(t, c.reply(`{"type":"subscribe","channel":"room:1"}`), frame{"type": "subscribed", "ref": nil})
	for request, code := range map[string]string{
		`{"type":"unsubscribe","channel":"broadcast"}`:      "forbidden",
		`{"type":"publish","channel":"broadcast","data":1}`: "forbidden",
		`{"type":"publish","channel":"room:1"}`:             "bad_request",
		`{"type":"history","channel":"plain:1"}`:            "not_found",
		`{"type":"subscribe","channel":"user:bob"}`:         "forbidden",
		`{"type":"refresh","token":"x"}`:                    "unauthorized",
		`{"type":"whatever"}`:                               "bad_request",
	} {
		expectHas(t, c.reply("%s", request), frame{"type": "error", "code": code, "ref": nil})
	}
}

func TestArrays(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "")
	var hundred []string
	for i := range 100 {
		hundred = append(hundred, fmt.Sprintf(`{"type":"ping","ref":%d}`, i))
	}
	frames := c.ask("[" + strings.Join(hundred, " ,\n ") + "]")
	if len(frames) != 100 {
		t.Fatalf("got %d replies", len(frames))
	}
	for i, f := range frames {
		expectHas(t, f, frame{"type": "pong", "ref": float64(i)})
	}
	expectHas(t, c.reply("%s", "["+strings.Join(append(hundred, hundred[0]), ",")+"]"), frame{"code": "bad_request", "ref": nil})

	// What is wrong with one is nobody else's; replies are in order.
	frames = c.ask(` [{"type":"ping","ref":1},5,{"type":"what","ref":2},[{"type":"ping","ref":9}],null,{"type":"subscribe","ref":3,"channel":"room:1"},
		{"type":"unsubscribe","ref":4,"channel":"room:1"},{"type":"subscribe","ref":5,"channel":"room:1","since":"0"},{"type":"ping"},
		{"type":"publish","ref":6,"channel":"room:2","data":[1]},{"type":"history","ref":7,"channel":"room:2"},
		{"type":"unsubscribe","ref":8,"channel":"room:1"},{"type":"connect","ref":9},{"type":"ping","ref":10}] `)
	want := []frame{
		{"type": "pong", "ref": 1.0}, {"code": "bad_request", "ref": nil}, {"code": "bad_request", "ref": 2.0},
		{"code": "bad_request", "ref": nil}, {"code": "bad_request", "ref": nil}, {"type": "subscribed", "ref": 3.0},
		{"type": "unsubscribed", "ref": 4.0}, {"type": "subscribed", "ref": 5.0}, {"type": "published", "ref": 6.0},
		{"type": "history", "ref": 7.0}, {"type": "unsubscribed", "ref": 8.0}, {"code": "bad_request", "ref": 9.0}, {"type": "pong", "ref": 10.0},
	}
	if len(frames) != len(want) {
		t.Fatalf("got %v", frames)
	}
	for i := range want {
		expectHas(t, frames[i], want[i])
	}

	// Also the first one can be connect.
	d := n.dial(t, "access_token="+token("bob"))
	d.send(`[{"type":"ping","ref":1},{"type":"connect","ref":2},{"type":"ping","ref":3}]`)
	expectHas(t, d.expectError("unauthorized"), frame{"ref": 1.0})
	expectHas(t, d.expect("connected"), frame{"ref": 2.0})
	expectHas(t, d.expect("pong"), frame{"ref": 3.0})
}

func TestRepliesKeepTheOrderOfRequests(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "")
	const rounds = 100
	for i := range rounds {
		c.send(`[{"type":"subscribe","ref":"s%d","channel":"room:1"},{"type":"unsubscribe","ref":"u%[1]d","channel":"room:1"},{"type":"ping","ref":"p%[1]d"}]`, i)
	}
	for i := range rounds {
		for _, kind := range []string{"subscribed", "unsubscribed", "pong"} {
			expectHas(t, c.next(), frame{"type": kind, "ref": fmt.Sprintf("%c%d", map[string]byte{"subscribed": 's', "unsubscribed": 'u', "pong": 'p'}[kind], i)})
		}
	}
}

func TestJSONFreedoms(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "")
	for request, ref := range map[string]any{
		" \t\r\n{ \"type\" : \"ping\" , \"ref\" : 1 } \r\n\t ":                                            1.0,
		`{"\u0074ype":"p\u0069ng","r\u0065f":1}`:                                                          1.0,
		`{"type":"ping","ref":1,"ref":2}`:                                                                 2.0,
		`{"type":"what","ref":1,"type":"ping"}`:                                                           1.0,
		`{"type":"ping","ref":1,"unknown":{"type":"x","ref":[{}]},"Ref":7,"x":null}`:                      1.0,
		`{"type":"ping","ref":1,"x":1e999999,"y":-0.0e-5}`:                                                1.0,
		`{"type":"ping","ref":1,"x":"\ud800\"}{"}`:                                                        1.0,
		`{"type":"ping","ref":1,"x":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`:           1.0,
		`{"type":"ping","ref":1,"x":` + strings.Repeat(`{"a":`, 63) + `1` + strings.Repeat("}", 63) + `}`: 1.0,
		`{"":1,"type":"ping","ref":"` + `\u0072` + `"}`:                                                   "r",
	} {
		expectHas(t, c.reply("%s", request), frame{"type": "pong", "ref": ref})
	}
}

func TestTextInBinaryFrames(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "")
	binary := func(s string) frame {
		t.Helper()
		if err := c.write(websocket.MessageBinary, s); err != nil {
			t.Fatal(err)
		}
		frames := c.sync()
		if len(frames) != 1 {
			t.Fatalf("%q got %v", s, frames)
		}
		return frames[0]
	}
	for _, bad := range []string{
		``, "\n", "\n\n", `{"type":"ping","ref":1}`, "x\n", "{\"type\":\n\"ping\"}\n", "[{\"type\":\"ping\"}]\n", "null\n", "\xff\n",
		"{\"type\":\"ping\",\"ref\":\"\xff\"}\n", "5\nx", "{\"type\":\"publish\",\"channel\":\"room:1\",\"x\":}\nx", "   \n",
	} {
		expectHas(t, binary(bad), frame{"type": "error", "code": "bad_request", "ref": nil})
	}
	expectHas(t, binary("{\"type\":\"publish\",\"ref\":3,\"channel\":\"room 1\"}\nx"), frame{"code": "bad_request", "ref": 3.0})
	expectHas(t, binary(" {\"type\":\"ping\",\"ref\":1} \r\n"), frame{"type": "pong", "ref": 1.0})
	expectHas(t, binary("{\"type\":\"subscribe\",\"ref\":1,\"channel\":\"room:1\"}\nignored"), frame{"type": "subscribed"})
}

func TestUnsupportedTypesAreBadRequests(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) { patient(cfg); cfg.AuthTimeout *= 4 })
	c := n.dial(t, "")
	for _, kind := range []string{"subscribe", "unsubscribe", "publish", "history", "refresh", "ping"} {
		c.send(`{"type":%q,"ref":1}`, kind)
		expectHas(t, c.expectError("unauthorized"), frame{"ref": 1.0})
	}
	c.send(`{"type":"nothing","ref":1}`)
	expectHas(t, c.expectError("bad_request"), frame{"ref": 1.0})
}
