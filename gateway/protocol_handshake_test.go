package gateway_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
)

func TestHandshakeTakesTheTokenFromEverywhere(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	tok := token("alice")
	for name, how := range map[string]struct {
		query  string
		header []string
	}{
		"header":             {"connect=1", []string{"Authorization", "Bearer " + tok}},
		"scheme in any case": {"connect=1", []string{"Authorization", "bearer " + tok}},
		"query":              {"connect=1&access_token=" + tok, nil},
		"subprotocol":        {"connect=1", []string{"Sec-WebSocket-Protocol", "gateway.v1, bearer." + tok}},
		"subprotocol first":  {"connect=1", []string{"Sec-WebSocket-Protocol", "bearer." + tok + ", gateway.v1"}},
		"two protocol lines": {"connect=1", []string{"Sec-WebSocket-Protocol", "gateway.v1", "Sec-WebSocket-Protocol", "bearer." + tok}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, status, header := n.rawExchange(t, n.rawRequest(how.query, how.header...))
			if status != http.StatusSwitchingProtocols {
				t.Fatal(status)
			}
			want := ""
			if strings.Contains(name, "protocol") {
				want = "gateway.v1"
			}
			if got := header.Get("Sec-WebSocket-Protocol"); got != want {
				t.Errorf("subprotocol %q, want %q", got, want)
			}
			if got := header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
				t.Errorf("accept %q", got)
			}
			expectHas(t, r.text(), frame{"type": "connected", "user": "alice", "ref": nil})
		})
	}
}

func TestHandshakeRefusals(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	good := "access_token=" + token("alice")
	for name, how := range map[string]struct {
		query  string
		header []string
		status int
	}{
		"query connect without a token": {"connect=1", nil, 401},
		"bad token in the query":        {"access_token=x", nil, 401},
		"bad token in the header":       {"", []string{"Authorization", "Bearer x"}, 401},
		"no token in the header":        {"", []string{"Authorization", "Bearer"}, 401},
		"another scheme":                {"", []string{"Authorization", "Basic YTpi"}, 401},
		"bad token in the subprotocol":  {"", []string{"Sec-WebSocket-Protocol", "gateway.v1, bearer.x"}, 401},
		"bearer without gateway.v1":     {"", []string{"Sec-WebSocket-Protocol", "bearer." + token("alice")}, 400},
		"bearer with another protocol":  {"", []string{"Sec-WebSocket-Protocol", "chat, bearer." + token("alice")}, 400},
		"no token and no gateway.v1":    {"", []string{"Sec-WebSocket-Protocol", "bearer."}, 400},
		"device too long":               {good + "&device=" + strings.Repeat("d", 65), nil, 400},
		"device not UTF-8":              {good + "&device=%ff", nil, 400},
		"escape that is none":           {good + "&channel=room:%zz", nil, 400},
		"foreign origin":                {good, []string{"Origin", "https://evil.example"}, 403},
		"origin of a file":              {good, []string{"Origin", "null"}, 403},
		"origin with a like name":       {good, []string{"Origin", "http://127.0.0.1.evil.example"}, 403},
		"wrong version":                 {good, []string{"Sec-WebSocket-Version", "8"}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := n.rawRequest(how.query, how.header...)
			if name == "wrong version" {
				request = strings.Replace(request, "Sec-WebSocket-Version: 13\r\n", "", 1)
			}
			if _, status, _ := n.rawExchange(t, request); status != how.status {
				t.Errorf("status %d, want %d", status, how.status)
			}
		})
	}
}

func TestHandshakeIsWebSocketOnly(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	host := "Host: " + strings.TrimPrefix(n.public, "http://") + "\r\n"
	upgrade := "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + rawKey + "\r\n"
	for name, how := range map[string]struct {
		request string
		status  int
	}{
		"plain GET":       {"GET /ws HTTP/1.1\r\n" + host + "\r\n", http.StatusUpgradeRequired},
		"HTTP/1.0":        {"GET /ws HTTP/1.0\r\n" + host + upgrade + "\r\n", http.StatusUpgradeRequired},
		"POST":            {"POST /ws HTTP/1.1\r\n" + host + upgrade + "Content-Length: 0\r\n\r\n", 0},
		"no key":          {"GET /ws HTTP/1.1\r\n" + host + strings.Replace(upgrade, "Sec-WebSocket-Key: "+rawKey+"\r\n", "", 1) + "\r\n", 400},
		"bad key":         {"GET /ws HTTP/1.1\r\n" + host + strings.Replace(upgrade, rawKey, "x", 1) + "\r\n", 400},
		"no upgrade":      {"GET /ws HTTP/1.1\r\n" + host + strings.Replace(upgrade, "Upgrade: websocket\r\n", "", 1) + "\r\n", http.StatusUpgradeRequired},
		"no such path":    {"GET /wss HTTP/1.1\r\n" + host + upgrade + "\r\n", 404},
		"admin in public": {"GET /v1/nodes HTTP/1.1\r\n" + host + "\r\n", 404},
		"metrics":         {"GET /metrics HTTP/1.1\r\n" + host + "\r\n", 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, status, _ := n.rawExchange(t, how.request)
			if how.status != 0 && status != how.status || status < 400 || status > 499 {
				t.Errorf("status %d, want %d", status, how.status)
			}
		})
	}
}

func TestHandshakeOrigins(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) {
		cfg.Origins = []string{"app.example", "https://*.shop.example", "other.example:8443"}
	})
	for origin, status := range map[string]int{
		n.public:                        101,
		"https://app.example":           101,
		"http://APP.example":            101,
		"https://a.shop.example":        101,
		"https://other.example:8443":    101,
		"http://a.shop.example":         403,
		"https://shop.example":          403,
		"https://other.example":         403,
		"https://app.example.evil.test": 403,
		"https://evil.test/app.example": 403,
		"null":                          403,
	} {
		_, got, _ := n.rawExchange(t, n.rawRequest("access_token="+token("alice"), "Origin", origin))
		if got != status {
			t.Errorf("origin %s: %d, want %d", origin, got, status)
		}
	}
}

func TestQueryConnect(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	id := n.publish(t, `{"channel":"room:7@2","data":1}`)
	second := n.publish(t, `{"channel":"room:7@2","data":2}`)

	c := n.dial(t, query("access_token", token("alice"), "device", "phone",
		"channel", "room:42", "channel", "room:7@2@"+id, "channel", "a@b.example", "channel", "room:9@"))
	hello := c.expect("connected")
	expectHas(t, hello, frame{"user": "alice", "node": "a", "resumed": false, "ping": 30.0, "ref": nil, "session": any(true)})
	expectHas(t, hello.channel("room:7@2"), frame{"last": second, "recovered": true})
	for _, name := range []string{"room:42", "a@b.example", "room:9@", "user:alice", "broadcast"} {
		expectHas(t, hello.channel(name), frame{"last": "0-0", "recovered": true})
	}
	expectHas(t, c.expect("message"), frame{"id": second, "data": 2.0, "channel": "room:7@2"})
	c.quiet()

	t.Run("position 0", func(t *testing.T) {
		c := n.dial(t, query("access_token", token("alice"), "channel", "room:7@2@0"))
		expectHas(t, c.expect("connected").channel("room:7@2"), frame{"last": second, "recovered": true})
		expectHas(t, c.expect("message"), frame{"id": id})
		expectHas(t, c.expect("message"), frame{"id": second})
		c.quiet()
	})
	t.Run("each parameter alone", func(t *testing.T) {
		for _, q := range []string{"connect=1", "session=", "device=d", "channel=room:1"} {
			c := n.dial(t, "access_token="+token("alice")+"&"+q)
			c.expect("connected")
		}
	})
	t.Run("a token alone waits for the frame", func(t *testing.T) {
		c := n.dial(t, "access_token="+token("alice"))
		c.send(`{"type":"ping","ref":1}`)
		expectHas(t, c.expectError("unauthorized"), frame{"ref": 1.0})
		c.send(`{"type":"connect","ref":2}`)
		expectHas(t, c.expect("connected"), frame{"ref": 2.0, "user": "alice"})
	})
	t.Run("a connect frame after it", func(t *testing.T) {
		c := n.dial(t, "connect=1&access_token="+token("alice"))
		c.expect("connected")
		c.send(`{"type":"connect","ref":2}`)
		expectHas(t, c.expectError("bad_request"), frame{"ref": 2.0})
		c.quiet()
	})
}

func TestFramesThatComeWithTheHandshake(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	early := string(masked(fin|opPing, "hi")) + string(masked(finText, `{"type":"ping","ref":1}`))
	r, status, _ := n.rawExchange(t, n.rawRequest("connect=1&access_token="+token("alice"))+early)
	if status != http.StatusSwitchingProtocols {
		t.Fatal(status)
	}
	seen := map[string]bool{}
	for range 3 {
		first, payload, err := r.read()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case first == fin|opPong && string(payload) == "hi":
			seen["pong"] = true
		case strings.Contains(string(payload), `"connected"`):
			seen["connected"] = true
		case strings.Contains(string(payload), `"pong"`):
			seen["reply"] = seen["connected"]
		}
	}
	if len(seen) != 3 || !seen["reply"] {
		t.Errorf("got %v", seen)
	}
}

func TestWhoAsksForNothingDoesNotHoldTheNode(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	for _, address := range []string{n.public, n.api} {
		for _, sent := range []string{"", "GET /healthz HTTP/1.1\r\nHost: x", "POST /v1/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n" +
			"Authorization: Bearer " + testAPIKey + "\r\n\r\n{"} {
			nc, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { nc.Close() })
			if _, err := nc.Write([]byte(sent)); err != nil {
				t.Fatal(err)
			}
		}
		httpDo(t, "GET", address+"/healthz", "") // so the others are accepted
	}
	start, stolen := time.Now(), redistest.TimeStolen(t)
	n.stop() // fails the test on an error
	if took := time.Since(start); took > 4*time.Second+stolen() {
		t.Errorf("stopped after %v", took)
	}
}
